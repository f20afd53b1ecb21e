# Finds the application by the port it listens on: no guest is asked for its layout. Sets $main, the process
# that holds the port (the oldest, where several do), and $name, what the kernel calls it.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

fail() {
  echo "$1"
  exit 1
}

socket() { # the number of the socket that listens
  hex=$(printf %04X "$port")
  cat /proc/net/tcp /proc/net/tcp6 2>/dev/null |
    while read -r _ local _ state _ _ _ _ _ inode _; do
      case $local:$state in *:"$hex":0A) echo "$inode" && break ;; esac
    done
}

holders() { # the processes that have it open
  ls -l /proc/[0-9]*/fd 2>/dev/null |
    while read -r line; do
      case $line in
        /proc/*/fd:) process=${line#/proc/} ;;
        *"socket:[$1]") echo "${process%/fd:}" ;;
      esac
    done
}

find_app() {
  inode=$(socket)
  [ "$inode" ] || fail "nothing listens on port $port"
  main='' oldest=''
  for process in $(holders "$inode"); do
    read -r line 2>/dev/null <"/proc/$process/stat" || continue
    set -- ${line##*) } # from its state on: the 20th is when it was started
    if [ ! "$oldest" ] || [ "${20}" -lt "$oldest" ]; then main=$process oldest=${20}; fi
  done
  [ "$main" ] && read -r name <"/proc/$main/comm" || fail "no process holds port $port"
}
