#!/usr/bin/env bash
# What users feel of restore points: how long a client of PostgreSQL in the demo guest waits while a snapshot is taken, frozen or
# with its memory of 512 MiB, and how soon it is served after going back, by a boot or with the memory.
#
# Usage: benches/points.sh [--runs N] [--json FILE] [--work FOLDER] [--qemu PROGRAM]
# Medians of N runs of each (3), by turns. A wait is the longest transaction of one client that inserts rows without a pause
# (pgbench), in the seconds around the snapshot; the same without one stands beside it. A way back is timed from the command to
# the first `SELECT 1`. With PROGRAM that QEMU runs the guest (`scripts/qemu10.sh` prints one that saves memory while the guest runs).

set -euo pipefail
. "$(dirname "$0")/head.sh"
. "$root/benches/times.sh" 3
qemu='' others=()
while (($#)); do
  case $1 in
    --qemu) qemu=$(realpath "${2-}") && shift 2 ;;
    *) others+=("$1") && shift ;;
  esac
done
options "${others[@]}"
pgbench=$(compgen -G '/usr/lib/postgresql/*/bin/pgbench' | tail -1 || true)
needs qemu-system-x86:qemu-system-x86_64 qemu-utils:qemu-img postgresql-client:psql postgresql:${pgbench:-pgbench}
build -p holdfast
guest=$(guest/build.sh --quiet)
work=$(mktemp -d ${work:+-p "$work"})
daemon=''
end() { # what this script started, and nothing else
  if [[ $daemon ]]; then
    "$program" --state "$work/state" vm stop orders --force >/dev/null 2>&1 || true
    for ((tries = 0; tries < 100; tries++)); do
      pgrep -f "guest=orders.*$work/" >/dev/null || break
      sleep 0.1
    done
    kill "$daemon" && wait "$daemon" || true
  fi
  daemon=''
}
trap 'end; rm -rf "$work"' EXIT
cd "$work"

holdfast() {
  "$program" --state "$work/state" "$@"
}
asked() { # whether the guest's database answers; QEMU takes a connection before there is a guest, and then nothing comes
  [[ $(timeout .5 psql -h "${address%:*}" -p "${address#*:}" -U orders orders -Atc 'SELECT 1' 2>/dev/null) == 1 ]]
}
well() { # waits until the VM is well
  until holdfast status --json | grep -q '"state": "ok"' && asked; do sleep 0.2; done
}

qemu-img create -q -f qcow2 -F raw -b "$guest/base.raw" orders.qcow2
cat >holdfast.toml <<END
state = "state"
[vm.orders]
${qemu:+qemu = '$qemu'}
disk = "orders.qcow2"
images = ["$(dirname "$guest")"]
memory = "512MiB"
accel = "tcg"
kernel = "$guest/vmlinux"
initrd = "$guest/initrd.gz"
cmdline = "$(sed -n 's/^cmdline=//p' "$guest/manifest")"
[vm.orders.app.postgres]
probe = "postgres://orders@guest/orders"
quiesce = "su postgres -c 'psql -h /run/postgresql -c checkpoint'"
END
"$program" run --config holdfast.toml >daemon.log 2>&1 &
daemon=$!
address=''
until [[ $address ]]; do
  kill -0 "$daemon" || { cat daemon.log >&2 && exit 1; }
  address=$(holdfast status --json 2>/dev/null | grep -o '"postgres": "[0-9.]*:[0-9]*"' | cut -d'"' -f4 || true)
  sleep 0.2
done
well
psql -q -h "${address%:*}" -p "${address#*:}" -U orders orders -c 'CREATE TABLE bench (at timestamptz DEFAULT now())'
echo 'INSERT INTO bench DEFAULT VALUES;' >insert.sql

wait_of() { # NAME COMMAND...: the longest transaction of a client while this is done
  local name=$1 client
  shift
  rm -f latency.*
  "$pgbench" -n -c 1 -T 8 -f insert.sql -l --log-prefix=latency -h "${address%:*}" -p "${address#*:}" -U orders orders \
    >client 2>&1 &
  client=$!
  sleep 2
  "$@" >&2
  wait "$client" || { cat client >&2 && exit 1; }
  sample "$name" "$(cat latency.* | awk '$3 > most { most = $3 } END { printf "%d", most / 1000 }')"
}
newest() { # the number of the newest snapshot that is none set aside
  holdfast snapshot list orders --json | awk '/"id":/ { gsub(/[^0-9]/, ""); id = $0 } /"set_aside": false/ { newest = id } END { print newest }'
}
way_back() { # NAME HOW: from the command to the first answer
  local begun
  begun=$(now)
  holdfast snapshot "$2" orders "$(newest)" --yes >&2
  until asked; do sleep 0.02; done
  sample "$1" $(($(now) - begun))
  well
}
forget() { # all snapshots: each run begins with one disk
  for id in $(holdfast snapshot list orders --json | awk '/"id":/ { gsub(/[^0-9]/, ""); print }'); do
    holdfast snapshot delete orders "$id" >/dev/null
  done
}

at_most() { # VALUE MOST: whether it is
  awk -v value="$1" -v most="$2" 'BEGIN { print value <= most ? "met" : "NOT MET" }'
}

for ((run = 1; run <= runs; run++)); do
  echo "run $run of $runs, load $(cut -d ' ' -f 1-3 /proc/loadavg)" >&2
  wait_of none true
  wait_of disk holdfast snapshot create orders --freeze
  way_back boot revert
  wait_of memory holdfast snapshot create orders --memory
  way_back resume resume
  forget
done
ratio=$(awk -v resume="$(median resume)" -v boot="$(median boot)" 'BEGIN { printf "%.2f", resume / boot }')
figures=()
printf '| restore points, as users feel them | median of %s | least-most | must |\n|---|---|---|---|\n' "$runs"
row 'longest wait of a client, nothing is done' none
row 'the same while a quiesced snapshot of the disk is taken' disk "$(at_most "$(median disk)" .3): at most .3 s"
row 'the same while a snapshot with its memory is taken' memory "$(at_most "$(median memory)" .6): at most .6 s"
row 'back to a snapshot by a boot, to `SELECT 1`' boot
row 'back with its memory, to `SELECT 1`' resume "$(at_most "$ratio" .2): $ratio of the boot, at most .2"
if [[ $json ]]; then
  all=$(printf ',\n  %s' "${figures[@]}")
  printf '{"v": 1, "runs": %s, "date": "%s", "processors": %s, "ratio": %s, "figures": [%s\n]}\n' \
    "$runs" "$(date -u +%F)" "$(nproc)" "$ratio" "${all#,}" >"$json"
fi
