#!/usr/bin/env bash
# How soon a crash is suspected, and how often a live subject is: Holdfast's heartbeat detector beside
# Cassandra's and Akka's, on the same traces, each with one setting for everything.
#
# Usage: benches/heartbeat.sh EVAL_FOLDER [SEEDS] [HOURS]      SEEDS: 1-20; HOURS of each trace: 4
# EVAL_FOLDER has gen_heartbeats.py (the traces) and eval_fd.py (the scores); python3 runs them.

set -euo pipefail
. "$(dirname "$0")/head.sh"
if (($# < 1 || $# > 3)) || [[ ! -f ${1-}/gen_heartbeats.py || ! -f ${1-}/eval_fd.py ]]; then usage; fi
eval=$(cd "$1" && pwd)
seeds=${2:-1-20} hours=${3:-4}
build -p holdfast-core --example heartbeat_eval
program=$built/examples/heartbeat_eval
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

one() { # SCENARIO SEED: prints "DETECTOR SCENARIO TD MISTAKES_PER_HOUR" three times
  local folder=$work/$1-$2 name
  mkdir "$folder"
  python3 "$eval/gen_heartbeats.py" "$1" "$2" "$hours" >"$folder/trace"
  "$program" "$folder/trace" "$folder"
  for name in holdfast cassandra akka; do
    python3 "$eval/eval_fd.py" "$folder/trace" "$folder/$name.csv" |
      sed -E "s|^TD mean ([0-9.]+) .* = ([0-9.]+)/h.*|$name $1 \1 \2|"
  done
  rm -r "$folder"
}
export -f one
export eval hours work program

for scenario in lan steal pauses wan mixed; do
  for ((seed = ${seeds%-*}; seed <= ${seeds#*-}; seed++)); do echo "$scenario $seed"; done
done | xargs -P "$(nproc)" -L 1 bash -euo pipefail -c 'one "$@"' one >"$work/scores"

echo "mean detection time in seconds, mistakes per hour (of the worst seed); seeds $seeds, $hours hours each"
awk '
  { n[$1, $2]++; td[$1, $2] += $3; rate[$1, $2] += $4; if ($4 > worst[$1, $2]) worst[$1, $2] = $4 }
  END {
    scenarios = split("lan steal pauses wan mixed", scenario); detectors = split("holdfast cassandra akka", name)
    printf "%-10s", ""; for (s = 1; s <= scenarios; s++) printf "  %-20s", scenario[s]; print ""
    for (d = 1; d <= detectors; d++) {
      printf "%-10s", name[d]
      for (s = 1; s <= scenarios; s++) {
        k = name[d] SUBSEP scenario[s]
        printf "  %-20s", sprintf("%.3f  %.2f (%.2f)", td[k] / n[k], rate[k] / n[k], worst[k])
      }
      print ""
    }
  }' "$work/scores"
