# PostgreSQL behind that port, as its owner sees it. Sets $data, its folder; what sql prints is what it answers, or why not.
find_postgres() {
  find_app
  data=$(readlink "/proc/$main/cwd")
  [ -f "$data/PG_VERSION" ] || fail "$name is no PostgreSQL that the drill can find its way in"
  owner=$(stat -c %U "/proc/$main")
  socket=$(sed -n 5p "$data/postmaster.pid")
  [ "$socket" ] || fail "$name has no socket in the guest"
  tools=$(readlink "/proc/$main/exe")
  tools=${tools%/*}
  [ -x "$tools/psql" ] || tools=/usr/bin
  [ -x "$tools/psql" ] || fail "the guest has no psql"
  export HF_ASK="$tools/psql -XqAt -v ON_ERROR_STOP=1 -h $socket -p $port"
}

sql() { # DATABASE QUERY: $user is known to it as a variable
  export HF_DATABASE="$1" HF_USER="$user"
  echo "$2" | su -s /bin/sh "$owner" -c 'exec $HF_ASK -v user="$HF_USER" -d "$HF_DATABASE"' 2>&1
}

ask() { # DATABASE QUERY: what it answers is $said
  said=$(sql "$1" "$2") || fail "PostgreSQL says: $said"
}
