#!/usr/bin/env bash
# How a repository grows with its points: one disk is saved, and then again after each of many changes, each of which stays.
#
# Usage: benches/growth.sh [--runs N] [--json FILE] [--work FOLDER]
# The disk and the changes are those of benches/backup.sh; N changes (365: daily for a year); FOLDER gets 3 GiB and 25 MiB for each.

set -euo pipefail
. "$(dirname "$0")/head.sh"
options --runs 365 "$@"
needs time:/usr/bin/time coreutils:cp
build -p holdfast
build -p holdfast-backup --example vm_disk
vm_disk=$built/examples/vm_disk
work=$(mktemp -d ${work:+-p "$work"})
trap 'rm -rf "$work"' EXIT
export XDG_CONFIG_HOME=$work/config XDG_CACHE_HOME=$work/cache
cd "$work"
mkdir cache
rows=()

timed() { # COMMAND...: `seconds` and `mib` of it
  if ! /usr/bin/time -o spent -f '%e %M' "$@" >said 2>&1; then
    echo "$* failed" >&2
    tail said >&2
    exit 1
  fi
  read -r seconds mib < <(tail -n 1 spent)
  mib=$((mib / 1024))
}
size() { # FOLDER: bytes of its files
  find "$1" -type f -printf '%s\n' | awk '{ all += $1 } END { printf "%.0f\n", all }'
}
row() { # CHANGES SECONDS MIB: one more, with the restore of the newest point
  local all index_bytes
  all=$(size repo) index_bytes=$(size repo/index)
  timed "$program" backup restore --repo repo --out again.img
  cmp -s disk.img again.img || { echo "change $1: the disk did not come back as it was" >&2 && exit 1; }
  rm again.img
  rows+=("$1 $(awk -v all="$all" -v told="$index_bytes" -v seconds="$2" -v mib="$3" -v back="$seconds" -v back_mib="$mib" \
    'BEGIN { printf "%.0f %.1f %.2f %.2f %d %.2f %d", all / 1048576, told / 1048576, told / all * 1024, seconds, mib, back, back_mib }')")
  echo "change $1 of $runs: ${rows[-1]}" >&2
}

"$vm_disk" image disk.img 8
"$program" backup init --repo repo >/dev/null
timed "$program" backup image disk.img --repo repo
row 0 "$seconds" "$mib"
for ((change = 1; change <= runs; change++)); do
  "$vm_disk" change disk.img ranges $((8 + change))
  timed "$program" backup image disk.img --repo repo --changed ranges
  ((change != 1 && change != runs && change % 73)) || row $change "$seconds" "$mib"
done
echo '| changes | repository, MiB | index, MiB | index for 1 KiB, bytes | save, s | its peak memory, MiB | restore, s | its peak memory, MiB |'
echo '|---|---|---|---|---|---|---|---|'
for each in "${rows[@]}"; do echo "| ${each// / | } |"; done
if [[ $json ]]; then
  all=$(printf ',\n  [%s]' "${rows[@]// /, }")
  printf '{"v": 1, "date": "%s", "processors": %s, "columns": ["changes", "repository_mib", "index_mib", "index_bytes_per_kib", "save_s", '\
'"save_mib", "restore_s", "restore_mib"], "rows": [%s\n]}\n' "$(date -u +%F)" "$(nproc)" "${all#,}" >"$json"
fi
