#!/usr/bin/env bash
# How well windows that ended badly are told from the others: `holdfast logs analyze --train --score` with its one
# configuration, without labels, on data sets that are annotated.
#
# Usage: benches/windows.sh EVAL_FOLDER [OUTPUT_FOLDER]
# EVAL_FOLDER has eval_anomaly.py (the scores; python3 runs it) and data/logs/anomaly/SET with labels.csv and either
# sequences.csv, whose column `split` says what is learned and what is judged, or counts.csv: then every other normal
# window is learned, and all the rest judged; and the same with the two halves changed. OUTPUT_FOLDER keeps the CSV files.

set -euo pipefail
. "$(dirname "$0")/head.sh"
if (($# < 1 || $# > 2)) || [[ ! -f ${1-}/eval_anomaly.py || ! -d ${1-}/data/logs/anomaly ]]; then usage; fi
eval=$(cd "$1" && pwd)
output "${@:2}"
build -p holdfast
declare -A must=([HDFS_xu_sample]=0.985 [HDFS_100k]=0.70 [FaultInj_DEPL]=0.95)

# Lists which windows are learned: of the normal ones every other, beginning with the first or the second.
halves='
import csv, sys
labels, half = sys.argv[1], int(sys.argv[2])
normal = 0
print("id,split")
for row in csv.DictReader(open(labels, newline="")):
    is_learned = row["label"] == "0" and normal % 2 == half
    normal += row["label"] == "0"
    print("%s,%s" % (row["id"], "train" if is_learned else "test"))
'

judge() { # NAME TRAIN SCORE LABELS SPLIT
  local began figures
  began=$(date +%s%N)
  "$program" logs analyze --train "$2" --score "$3" >"$work/$1.csv"
  echo "-- $1, $((($(date +%s%N) - began) / 1000000)) ms to learn and judge"
  python3 "$eval/eval_anomaly.py" "$4" "$work/$1.csv" --split "$5" --json "$work/$1.json"
  figures=$(grep -oP '"f1": \K[0-9.]+' "$work/$1.json")
  awk -v f="$figures" -v m="${must[${1%%-*}]-0}" \
    'BEGIN { if (m > 0) printf "F1 %.4f, must be >= %s: %s\n", f, m, (f >= m ? "met" : "NOT MET") }'
}

echo "windows, judged by what was learned without labels; own threshold, one configuration"
for set in "$eval"/data/logs/anomaly/*/; do
  name=$(basename "$set")
  if [[ -f $set/sequences.csv ]]; then
    judge "$name" "$set/sequences.csv" "$set/sequences.csv" "$set/labels.csv" "$set/sequences.csv"
    continue
  fi
  for half in 0 1; do
    split=$work/$name-$half-split.csv train=$work/$name-$half-train.csv
    python3 -c "$halves" "$set/labels.csv" "$half" >"$split"
    awk -F, 'NR == FNR { learned[$1] = $2 == "train"; next } FNR == 1 || learned[$1]' \
      "$split" "$set/counts.csv" >"$train"
    judge "$name-half-$half" "$train" "$set/counts.csv" "$set/labels.csv" "$split"
  done
done
