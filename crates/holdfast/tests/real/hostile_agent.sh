#!/bin/sh
# Not an agent: whoever asks on its port gets what no agent would say, one kind after the other (A11 to A17).
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

refuse() { printf '{"error": {"class": "\\u001b[2J", "desc": "\\u001b]0;owned\\u0007"}, "id": %s}\n' "$1"; }

many() { yes "$2" | head -n "$1" | tr -d '\n'; }

# A crowd is more than an answer may hold; what is left of it when it is refused is less than a new client skips.
systems() { # KIND: one that is full, or a crowd of them
  full='{"name": "x", "mountpoint": "/\u001b]0;owned\u0007\u001b[31m", "type": "ext4", "used-bytes": 100, "total-bytes": 100, "disk": []}'
  printf '{"return": [%s' "$full"
  [ "$1" = crowds ] && many 8000 ",$full"
  printf '], "id": %s}\n' "$2"
}

cards() { # KIND: the one that is asked for, then thousands with addresses that nobody may dial, or a crowd of them
  say "cards of $1"
  addresses='[{"ip-address": "127.0.0.9", "prefix": 8}, {"ip-address": "169.254.169.254"}, {"ip-address": "10.0.2.16"}]'
  printf '{"return": [{"name": "eth0", "hardware-address": "%s", "ip-addresses": %s}' "$(cat /sys/class/net/[!l]*/address)" "$addresses"
  case $1 in crowds) count=8000 ;; *) count=2000 ;; esac
  many $count ",{\"name\": \"\\u001b]0;owned\", \"ip-addresses\": $addresses}"
  printf '], "id": %s}\n' "$2"
}

answer() { # KIND: in the right form and with the right number, and says what cannot be
  while read -r line <&3; do
    id=$(number "$line")
    case $line in
      *guest-sync-delimited*) printf '\377{"return": %s}\n' "$id" ;;
      *fsfreeze-status*) if [ "$1" = frozen ]; then printf '{"return": "frozen", "id": %s}\n' "$id"; else refuse "$id"; fi ;;
      *fsfreeze-freeze*) say "asked to freeze"; printf '{"return": 0, "id": %s}\n' "$id" ;;
      *fsfreeze-thaw*) say "asked to thaw" ;; # and never says so
      *fsinfo*) systems "$1" "$id" ;;
      *get-interfaces*) cards "$1" "$id" ;;
      *file-open*) printf '{"return": 7, "id": %s}\n' "$id" ;;
      *file-read*) printf '{"return": {"count": 9, "buf-b64": "G10wO293bmVkBw==", "eof": true}, "id": %s}\n' "$id" ;;
      *) refuse "$id" ;;
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
  crowds | frozen | lies) while :; do answer "$1" >&3; usleep 20000; done ;; # the port reads as ended whenever the host lets go of it
  '')
    open_port
    for kind in endless deep numbers old drip junk frozen; do for_a_while $kind 7; done
    for_a_while crowds 40
    for_a_while lies 40
    say over
    exec sleep 3600
    ;;
esac
