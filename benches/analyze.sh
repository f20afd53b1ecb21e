#!/usr/bin/env bash
# From a file to its findings: how much of a log `holdfast logs analyze` reads for a second of one processor.
#
# Usage: benches/analyze.sh [MIB] [RUNS]
# Writes a syslog of so many MiB (150), 31 kinds of lines with times that go on, and reads it so often (5).

set -euo pipefail
. "$(dirname "$0")/head.sh"
mib=${1:-150}
runs=${2:-5}
if ((mib < 1 || runs < 1)); then usage; fi
build -p holdfast
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

awk -v most=$((mib * 1048576)) '
  BEGIN {
    kinds = split("accepted connection from|closed connection of|query took|checkpoint wrote buffers|" \
      "cache evicted entries of|job picked up by worker|lease renewed for|retrying upstream after|" \
      "session opened for user|session closed for user|packet of bytes sent to|GET /orders/ served in|" \
      "POST /orders/ refused with|index rebuilt of|file rotated at|timer fired after|" \
      "message queued as|message sent as|reload of configuration|disk at percent|load is at|" \
      "vacuum removed rows of|login of user from|logout of user from|lock waited for by|" \
      "snapshot written to|snapshot read from|replica is behind by|health check passed in|" \
      "token issued to|pool grew to", kind, "|")
    srand(31)
    while (bytes < most) {
      n++
      second = int(n / 40)
      line = sprintf("Nov %2d %02d:%02d:%02d db1 app[%d]: %s %d 10.0.%d.%d in %.3f ms",
        1 + int(second / 86400) % 28, int(second / 3600) % 24, int(second / 60) % 60, second % 60,
        100 + n % 7, kind[1 + int(rand() * kinds)], int(rand() * 100000), int(rand() * 200), int(rand() * 250),
        rand() * 90)
      print line
      bytes += length(line) + 1
    }
  }' >"$work/syslog"

TIMEFORMAT='%U %S'
for ((run = 1; run <= runs; run++)); do
  spent=$( { time "$program" logs analyze "$work/syslog" >/dev/null 2>&1; } 2>&1)
  awk -v mib="$mib" -v spent="$spent" 'BEGIN {
    split(spent, s, " ")
    printf "%.0f MiB a second of processor time (%.2f s); must be at least 80\n", mib / (s[1] + s[2]), s[1] + s[2]
  }'
done
