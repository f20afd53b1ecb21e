#!/usr/bin/env bash
# How soon a VM serves that boots from a restore point without a restore: the demo guest on an overlay over `holdfast backup serve`,
# beside the same on an overlay over its image on this disk. From the start (of the server too) to the first `SELECT 1`.
#
# Usage: benches/instant.sh [--runs N] [--json FILE] [--work FOLDER]
# Medians of N runs of each (3), by turns; then the disk is streamed into the overlay while the guest runs, and the server ends.

set -euo pipefail
. "$(dirname "$0")/head.sh"
. "$root/benches/times.sh" 2
options "$@"
needs qemu-system-x86:qemu-system-x86_64 qemu-utils:qemu-img postgresql-client:psql
build -p holdfast
guest=$(guest/build.sh --quiet)
work=$(mktemp -d ${work:+-p "$work"})
qemu='' server=''
end() { # what this script started, and nothing else
  [[ $qemu ]] && kill "$qemu" && wait "$qemu" || true
  [[ $server ]] && kill "$server" && wait "$server" || true
  qemu='' server=''
}
trap 'end; rm -rf "$work"' EXIT
export XDG_CONFIG_HOME=$work/config XDG_CACHE_HOME=$work/cache PGCONNECT_TIMEOUT=10
cd "$work"
mkfifo monitor
exec {monitor}<>monitor
port=$((20000 + RANDOM % 20000))

asked() { # whether the guest's database answers
  [[ $(psql -h 127.0.0.1 -p $port -U orders orders -Atc 'SELECT 1' 2>/dev/null) == 1 ]]
}

begin() { # BACKING: an overlay on it, and a guest that boots from that
  rm -f overlay.qcow2 console
  qemu-img create -q -f qcow2 -F raw -b "$1" overlay.qcow2
  qemu-system-x86_64 -M pc -accel tcg,thread=multi -cpu qemu64 -smp 1 -m 512 -nodefaults -display none \
    -kernel "$guest/vmlinux" -initrd "$guest/initrd.gz" -append "$(sed -n 's/^cmdline=//p' "$guest/manifest")" \
    -chardev file,id=console,path=console -serial chardev:console -monitor stdio \
    -device virtio-rng-pci -drive file=overlay.qcow2,id=disk,if=virtio,werror=stop,rerror=stop \
    -netdev "user,id=net,hostfwd=tcp:127.0.0.1:$port-:5432" -device virtio-net-pci,netdev=net,romfile= \
    <&"$monitor" >said 2>trouble &
  qemu=$!
}
serves() { # when the guest's database first answers
  # QEMU takes a connection before there is a guest, and then nothing comes: so its console is waited for.
  until grep -qs 'ready to accept connections' console; do
    kill -0 "$qemu" || { tail trouble console >&2 && exit 1; }
    sleep 0.02
  done
  until asked; do sleep 0.05; done
  now
}
serve() { # offers the point; its URL
  rm -f url
  mkfifo url
  "$program" backup serve --repo repo --socket offered >url &
  server=$!
  read -r url <url
}

local_image() {
  local begun
  begun=$(now)
  begin "$guest/base.raw"
  sample local $(($(serves) - begun))
  end
}
offered() { # and, with `stream`, all of it is brought here
  local begun
  begun=$(now)
  serve
  sample server $(($(now) - begun))
  begin "$url"
  sample offered $(($(serves) - begun))
  if [[ ${1-} ]]; then stream; fi
  end
}
stream() { # the rest of the disk comes while the guest runs; then it needs nobody
  local begun
  begun=$(now)
  echo 'block_stream disk' >&"$monitor"
  until grep -qs 'No active jobs' said; do
    echo 'info block-jobs' >&"$monitor"
    sleep 0.2
  done
  sample stream $(($(now) - begun))
  if qemu-img info -U overlay.qcow2 | grep -q backing; then
    echo 'the disk was not streamed' >&2 && exit 1
  fi
  kill "$server" && wait "$server"
  server=''
  asked || { echo 'the guest does not answer without the server' >&2 && exit 1; }
}

"$program" backup init --repo repo >/dev/null
"$program" backup image "$guest/base.raw" --of demo --repo repo >&2
for ((run = 1; run <= runs; run++)); do
  echo "run $run of $runs, load $(cut -d ' ' -f 1-3 /proc/loadavg)" >&2
  local_image
  if ((run == runs)); then offered stream; else offered; fi
done
ratio=$(awk -v offered="$(median offered)" -v image="$(median local)" 'BEGIN { printf "%.2f", offered / image }')
mark='NOT MET'
awk -v ratio="$ratio" 'BEGIN { exit ratio > 2 }' && mark='met'
figures=()
printf '| from the start to `SELECT 1` | median of %s | least-most | must |\n|---|---|---|---|\n' "$runs"
row 'the image is on this disk' local
row 'the point is offered, the start of the server included' offered "$mark: $ratio times the image, at most 2"
row 'of that, the server' server
row 'all of the disk streamed into the overlay (once)' stream
if [[ $json ]]; then
  all=$(printf ',\n  %s' "${figures[@]}")
  printf '{"v": 1, "runs": %s, "date": "%s", "processors": %s, "ratio": %s, "figures": [%s\n]}\n' \
    "$runs" "$(date -u +%F)" "$(nproc)" "$ratio" "${all#,}" >"$json"
fi
