#!/bin/sh
# Not an agent: whoever asks on its port gets what no agent would say, one kind after the other (A11 to A16).
open_port() { # one process may; those that it starts inherit it
  for port in /sys/class/virtio-ports/*; do
    read -r name 2>/dev/null <"$port/name" && [ "$name" = org.qemu.guest_agent.0 ] && break
  done
  exec 3<>"/dev/${port##*/}"
}

say() { echo "hostile: $1" >/dev/console; }

for_a_while() { # KIND SECONDS: everything that it starts is one group, which ends after some seconds
  say "$1"
  setsid sh "$0" "$1" &
  sleep "$2"
  kill -9 "-$!" 2>/dev/null
}

number() { echo "$1" | sed 's/.*"id": *\([0-9]*\).*/\1/'; }

lie() { # answers in the right form and with the right number, and says what cannot be
  while read -r line <&3; do
    id=$(number "$line")
    case $line in
      *guest-sync-delimited*) printf '\377{"return": %s}\n' "$id" ;;
      *fsinfo*) printf '{"return": [{"name": "x", "mountpoint": "/\\u001b]0;owned\\u0007\\u001b[31m", "type": "ext4", "used-bytes": 100, "total-bytes": 100, "disk": []}], "id": %s}\n' "$id" ;;
      *file-open*) printf '{"return": 7, "id": %s}\n' "$id" ;;
      *file-read*) printf '{"return": {"count": 9, "buf-b64": "G10wO293bmVkBw==", "eof": true}, "id": %s}\n' "$id" ;;
      *) printf '{"error": {"class": "\\u001b[2J", "desc": "\\u001b]0;owned\\u0007"}, "id": %s}\n' "$id" ;;
    esac
  done
}

case $1 in
  endless) yes 0123456789abcdef | tr -d '\n' >&3 ;;
  deep) while :; do { printf '\377'; head -c 100000 /dev/zero | tr '\0' '['; echo; } >&3; done ;;
  numbers) while :; do printf '\377{"return": 1e999, "return": 2, "return": 999999999999999999999}\n'; usleep 20000; done >&3 ;;
  old) while :; do printf '\377{"return": 7}\n{"return": {}, "id": 7}\n'; usleep 20000; done >&3 ;;
  drip) while :; do printf '{'; sleep 1; printf '"'; sleep 1; done >&3 ;;
  junk) while :; do printf '\377\033]0;owned\007\033[31m\033[2J\n\r\b\200\376\n'; usleep 20000; done >&3 ;;
  lies) while :; do lie >&3; usleep 20000; done ;; # the port reads as ended whenever the host lets go of it
  '')
    open_port
    for kind in endless deep numbers old drip junk; do for_a_while $kind 7; done
    for_a_while lies 20
    say over
    exec sleep 3600
    ;;
esac
