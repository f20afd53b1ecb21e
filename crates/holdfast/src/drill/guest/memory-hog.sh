# Takes all memory with processes that the kernel may not kill, so that it kills others.
setsid sh -c '
  echo $$ >/run/holdfast-drill.group
  echo -1000 >/proc/self/oom_score_adj
  for n in 1 2 3; do tail /dev/zero & done
  wait' </dev/null >/dev/null 2>&1 &
