#!/usr/bin/env bash
# What `holdfast metrics analyze` finds in the series of the Numenta Anomaly Benchmark, and how often it cries wolf,
# beside NAB's windowed Gaussian on the same series. One setting for everything; each row is scored by rows before it.
#
# Usage: benches/nab.sh EVAL_FOLDER [JSON]      JSON: write Holdfast's figures there
# EVAL_FOLDER has eval_nab.py (the scores) and data/metrics/nab (data/GROUP/FILE.csv, windows.json); python3 runs it.

set -euo pipefail
. "$(dirname "$0")/head.sh"
if (($# < 1 || $# > 2)) || [[ ! -f ${1-}/eval_nab.py || ! -d ${1-}/data/metrics/nab/data ]]; then usage; fi
eval=$(cd "$1" && pwd)
nab=$eval/data/metrics/nab
json=${2:+$(realpath -m "$2")}
build -p holdfast
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# NAB's windowed Gaussian: how far from the mean of the last 6,400 rows, moved on every 100.
gaussian='
import csv, math, sys
window, step, rows = [], [], csv.reader(sys.stdin)
next(rows)
print("timestamp,score")
total = squares = 0.0
for time, value in rows:
    x, n = float(value), len(window)
    mean = total / n if n else 0.0
    deviation = math.sqrt(max(squares / n - mean * mean, 0.0)) if n else 0.0
    print("%s,%.17g" % (time, 1 - 0.5 * math.erfc(abs(x - mean) / max(deviation, 1e-6) / math.sqrt(2)) if n else 0.0))
    step.append(x)
    if n < 6400 or len(step) == 100:
        gone = window[:100] if n >= 6400 else []
        window = window[len(gone):] + step
        total += sum(step) - sum(gone)
        squares += sum(s * s for s in step) - sum(g * g for g in gone)
        step = []
'

rows=0 spent=0
while read -r file; do
  mkdir -p "$work/holdfast/$(dirname "$file")" "$work/gaussian/$(dirname "$file")"
  began=$(date +%s%N)
  "$program" metrics analyze "$nab/data/$file" --csv >"$work/holdfast/$file"
  spent=$((spent + $(date +%s%N) - began))
  rows=$((rows + $(wc -l <"$work/holdfast/$file") - 1))
  python3 -c "$gaussian" <"$nab/data/$file" >"$work/gaussian/$file"
done < <(cd "$nab/data" && find . -name '*.csv' -printf '%P\n' | sort)

echo "NAB, 100 is perfect and 0 is silence; the best threshold of each profile, one for all series"
for name in holdfast gaussian; do
  echo "-- $name"
  options=()
  [[ $name == holdfast && -n $json ]] && options=(--json "$json")
  python3 "$eval/eval_nab.py" "$nab/data" "$nab/windows.json" "$work/$name" "${options[@]}"
done
echo "-- holdfast, told as a finding (a probability of at least one in five)"
python3 "$eval/eval_nab.py" "$nab/data" "$nab/windows.json" "$work/holdfast" --threshold 0.2
echo "$rows rows in $((spent / 1000000)) ms with reading and printing: $((rows * 1000 / (spent / 1000000 + 1))) rows a second"
