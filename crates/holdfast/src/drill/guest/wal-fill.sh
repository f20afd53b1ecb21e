# Fills the file system of the write-ahead log, and writes to the log until it is full and beyond, as users would.
find_postgres
wal=$(readlink -f "$data/pg_wal")
mount=$(mount_of "$wal/")
[ -d "$mount" ] && [ "$mount" != "$(mount_of "$data/")" ] ||
  fail "the write-ahead log of $name has no disk of its own: drill disk-full instead"
fill "$mount"
export HF_FILE="$file" HF_WRITE="select pg_logical_emit_message(true, 'holdfast-drill', repeat('x', 4000000))"
setsid su -s /bin/sh "$owner" -c 'while [ -e "$HF_FILE" ]; do $HF_ASK -d postgres -c "$HF_WRITE"; sleep 1; done' \
  </dev/null >/dev/null 2>&1 &
