#!/usr/bin/env bash
# How well lines are grouped and templates are found: `holdfast logs analyze` with its one configuration on
# annotated logs, scored as the literature does.
#
# Usage: benches/parse.sh EVAL_FOLDER [OUTPUT_FOLDER]
# EVAL_FOLDER has eval_parse.py (the scores; python3 runs it) and data/logs/parse*/SYSTEM/{messages.txt,truth.csv};
# OUTPUT_FOLDER keeps the CSV files.

set -euo pipefail
. "$(dirname "$0")/head.sh"
if (($# < 1 || $# > 2)) || [[ ! -f ${1-}/eval_parse.py ]]; then usage; fi
eval=$(cd "$1" && pwd)
output "${@:2}"
build -p holdfast

for set in "$eval"/data/logs/parse*; do
  for system in "$set"/*/; do
    "$program" logs analyze --csv patterns "$system/messages.txt" >"$work/$(basename "$system").csv"
  done
  echo "$(basename "$set"): GA, FGA, PA, FTA; nPA and nFTA after normalisation; groups found and true"
  python3 "$eval/eval_parse.py" "$set" "$work"
done
