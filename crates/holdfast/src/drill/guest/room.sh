# The room on file systems, and taking all of it.
mount_of() { # PATH
  df -Pk "$1" 2>/dev/null | tail -n 1 | { read -r _ _ _ _ _ at; echo "$at"; }
}

left() { # MOUNT: in KiB
  df -Pk "$1" | tail -n 1 | { read -r _ _ _ left _; echo "$left"; }
}

fill() { # MOUNT: to the last block
  file=${1%/}/holdfast-drill.fill n=0
  for kib in "$(left "$1")" 1048576 65536 4096 256; do # in no time, where the file system can
    while fallocate -l $((kib * 1024)) "$file.$n" 2>/dev/null; do n=$((n + 1)); done
    n=$((n + 1))
  done
  cat /dev/zero >"$file" 2>/dev/null
  [ "$(left "$1")" -lt 1024 ] || fail "$(left "$1") KiB are still free on $1"
}
