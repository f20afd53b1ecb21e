#!/usr/bin/env bash
# What a backup costs: `holdfast backup` beside restic, borg, qemu-img, zstd and cp on the same disk in the same minutes.
#
# Usage: benches/backup.sh [--runs N] [--only-holdfast] [--json FILE] [--work FOLDER]
# The disk has 4 GiB, of which 1.9 are in use; 2 % of it change in writes of 4 KiB (crates/backup/examples/vm_disk.rs).
# Medians of N runs (3), each with new repositories; FOLDER gets 16 GiB for the time (a temporary one otherwise).

set -euo pipefail
. "$(dirname "$0")/head.sh"
peers=1 words=()
for word; do
  if [[ $word == --only-holdfast ]]; then peers=0; else words+=("$word"); fi
done
options "${words[@]}"
needs time:/usr/bin/time zstd:zstd coreutils:cp restic:restic borgbackup:borg qemu-utils:qemu-img
build -p holdfast
build -p holdfast-backup --example vm_disk
vm_disk=$built/examples/vm_disk
work=$(mktemp -d ${work:+-p "$work"})
trap 'rm -rf "$work"' EXIT
seed=8
export XDG_CONFIG_HOME=$work/config RESTIC_PASSWORD=x BORG_PASSPHRASE=x RESTIC_CACHE_DIR=$work/restic-cache
export BORG_BASE_DIR=$work/borg-home

timed() { # NAME COMMAND...: its seconds are samples of NAME, its peak memory in MiB of NAME-mib
  local name=$1
  shift
  sync
  if ! /usr/bin/time -o "$work/spent" -f '%e %M' "$@" >"$work/said" 2>&1; then
    echo "$name: $* failed" >&2
    tail "$work/said" >&2
    exit 1
  fi
  read -r seconds kib < <(tail -n 1 "$work/spent")
  sample "$name" "$seconds"
  sample "$name-mib" "$((kib / 1024))"
}
size() { # FOLDER...: bytes of its files
  find "$@" -type f -printf '%s\n' | awk '{ all += $1 } END { printf "%.0f\n", all }'
}
same() { # A B
  cmp -s "$1" "$2" || { echo "$1 and $2 differ" >&2 && exit 1; }
}
mib() { # BYTES
  awk -v bytes="$1" 'BEGIN { printf "%.2f", bytes / 1048576 }'
}

full() { # everything saves the disk for the first time
  timed cp cp --sparse=always "$work/disk.img" now.img
  if ((peers)); then
    timed restic-full restic -q -r restic backup now.img
    timed borg-full borg create --compression zstd,3 borg::1 now.img
    timed qemu-img qemu-img convert -c -O qcow2 now.img now.qcow2
    sample qemu-img-size "$(mib "$(size now.qcow2)")"
    restic_bytes=$(size restic) borg_bytes=$(size borg)
    sample restic-size "$(mib "$restic_bytes")"
    sample borg-size "$(mib "$borg_bytes")"
  fi
  timed zstd zstd -q -T0 -3 now.img -o now.zst
  timed zstd-synced sh -c 'zstd -q -T0 -3 now.img -o synced.zst && sync synced.zst'
  sample zstd-size "$(mib "$(size now.zst)")"
  timed full "$program" backup image now.img --repo repo
  sample full-size "$(mib "$(size repo)")"
  sample full-index "$(awk -v index_bytes="$(size repo/index)" -v all="$(size repo)" \
    'BEGIN { printf "%.3f", index_bytes / all * 1024 }')"
}

changed() { # and again after the change: told of it, not told of it, and with the kept hashes lost
  local kind options
  cp --sparse=always now.img old.img
  "$vm_disk" change now.img ranges $seed
  for kind in told untold lost; do
    rm -rf repo-$kind cache-$kind
    cp -a repo repo-$kind
    cp -a cache cache-$kind
    [[ $kind == lost ]] && rm -rf cache-lost
    options=()
    [[ $kind == told ]] && options=(--changed ranges)
    export XDG_CACHE_HOME=$PWD/cache-$kind
    timed $kind "$program" backup image now.img --repo repo-$kind "${options[@]}"
    sample $kind-added "$(mib $(($(size repo-$kind) - $(size repo))))"
  done
  export XDG_CACHE_HOME=$PWD/cache-told
  cp --sparse=always old.img copied.img
  timed copy "$vm_disk" copy now.img copied.img ranges
  same now.img copied.img
  if ((peers)); then
    timed restic-changed restic -q -r restic backup now.img
    timed borg-changed borg create --compression zstd,3 borg::2 now.img
    sample restic-added "$(mib $(($(size restic) - restic_bytes)))"
    sample borg-added "$(mib $(($(size borg) - borg_bytes)))"
  fi
}

back() { # and it comes back
  timed restore "$program" backup restore --repo repo-told --out again.img
  same now.img again.img
  rm again.img
  timed onto "$program" backup restore --repo repo-told --onto old.img --holds 1
  same now.img old.img
  cp --sparse=always copied.img old.img
  dd if=now.zst of=old.img bs=1M count=8 seek=1000 conv=notrunc status=none
  timed onto-read "$program" backup restore --repo repo-told --onto old.img
  same now.img old.img
  timed unzstd zstd -q -d now.zst -o again.img
  rm again.img
  timed unzstd-synced sh -c 'zstd -q -d now.zst -o again.img && sync again.img'
  timed verify "$program" backup verify --repo repo-told --all
  if ((peers)); then
    timed restic-restore restic -q -r restic restore latest --target restic-again
    timed borg-restore sh -c 'mkdir borg-again && cd borg-again && borg extract --sparse ../borg::2'
    timed restic-verify restic -q -r restic check --read-data
    timed borg-verify borg check --verify-data borg
  fi
}

values() { # NAME: its samples, the least first
  awk -v name="$1" '$1 == name { print $2 }' "$work/samples" | sort -n
}
median() { # NAME
  values "$1" | awk '{ all[NR] = $1 } END {
    if (!NR) print "-"
    else print (all[int((NR + 1) / 2)] + all[int((NR + 2) / 2)]) / 2
  }'
}
row() { # WHAT NAME [UNIT [MUST AGAINST]]: at most MUST times AGAINST, which is a name or a number
  local what=$1 name=$2 unit=${3-s} must=${4-} against=${5-} value other='' verdict='' met=null
  value=$(median "$name")
  if [[ $must && $value != - ]]; then
    other=$against
    [[ $against =~ ^[0-9.]+$ ]] || other=$(median "$against")
    if [[ $other != - ]]; then
      verdict=$(awk -v value="$value" -v must="$must" -v other="$other" -v against="$against" -v unit="$unit" 'BEGIN {
        met = value <= must * other
        if (against == other) printf "%s at most %g %s", met ? "✓" : "✗", must * other, unit
        else printf "%s %.2f of %s (%g %s), at most %g", met ? "✓" : "✗", value / other, against, other, unit, must
      }')
      [[ $verdict == ✓* ]] && met=true || met=false
    fi
  fi
  printf '| %s | %s %s | %s | %s |\n' "$what" "$value" "$unit" "$(values "$name" | sed -n '1p;$p' | paste -sd-)" "$verdict"
  figures+=("{\"figure\": \"$name\", \"what\": \"$what\", \"unit\": \"$unit\", \"values\": [$(values "$name" | paste -sd,)], \
\"median\": $([[ $value == - ]] && echo null || echo "$value"), \"must\": \"$verdict\", \"met\": $met}")
}

table() {
  printf '| what | median of %s | least-most | must |\n|---|---|---|---|\n' "$runs"
  row 'full: wall' full s 1.2 zstd
  row 'full: size of the repository' full-size MiB 1 restic-size
  row 'full: index for 1 KiB of the repository' full-index bytes 1 1
  row 'full: peak memory' full-mib MiB 1 150
  row 'change, told: wall' told s 0.1 restic-changed
  row 'change, told: beside a copy of those bytes' told s 1.5 copy
  row 'change, told: added' told-added MiB 1 30
  row 'change, told: peak memory' told-mib MiB 1 150
  row 'change, not told: wall' untold s 1 restic-changed
  row 'change, not told: added' untold-added MiB 1 30
  row 'change, not told, kept hashes lost: wall' lost s
  row 'restore, whole, on the disk: wall' restore s 1.2 unzstd
  row 'the same beside `zstd -d` and `sync`' restore s 1.2 unzstd-synced
  row 'restore: peak memory' restore-mib MiB 1 150
  row 'restore onto the disk before the change, which is told: wall' onto s
  row 'the same: peak memory' onto-mib MiB 1 150
  row 'restore onto a disk that differs in 8 MiB, not told: wall' onto-read s
  row 'verify all: wall' verify s
  row 'verify all: peak memory' verify-mib MiB 1 150
  row '`cp --sparse`: wall' cp s
  row 'copy of the changed bytes: wall' copy s
  row '`zstd -T0 -3`: wall' zstd s
  row 'the same and `sync`: wall' zstd-synced s
  row '`zstd -T0 -3`: size' zstd-size MiB
  row '`zstd -d`: wall' unzstd s
  row 'the same and `sync`: wall' unzstd-synced s
  ((peers)) || return 0
  row '`qemu-img convert -c`: wall' qemu-img s
  row '`qemu-img convert -c`: size' qemu-img-size MiB
  local peer what
  for peer in restic borg; do
    for what in full changed restore verify; do
      row "$peer, $what: wall" $peer-$what s
      row "$peer, $what: peak memory" $peer-$what-mib MiB
    done
    row "$peer, full: size" $peer-size MiB
    row "$peer, changed: added" $peer-added MiB
  done
}

"$vm_disk" image "$work/disk.img" $seed
for ((run = 1; run <= runs; run++)); do
  echo "run $run of $runs, load $(cut -d ' ' -f 1-3 /proc/loadavg)" >&2
  mkdir "$work/run"
  cd "$work/run"
  mkdir cache
  export XDG_CACHE_HOME=$PWD/cache
  "$program" backup init --repo repo >/dev/null
  if ((peers)); then
    restic -q -r restic init
    borg init -e repokey-blake2 borg
  fi
  full
  changed
  back
  cd "$work"
  rm -r "$work/run"
done
figures=()
table
if [[ $json ]]; then
  all=$(printf ',\n  %s' "${figures[@]}")
  printf '{"v": 1, "runs": %s, "date": "%s", "processors": %s, "figures": [%s\n]}\n' \
    "$runs" "$(date -u +%F)" "$(nproc)" "${all#,}" >"$json"
fi
