# Kills the application and all its like at once, as the kernel would.
find_app
all=
for process in /proc/[0-9]*; do
  read -r other 2>/dev/null <"$process/comm" && [ "$other" = "$name" ] && all="$all ${process#/proc/}"
done
kill -9 $all 2>/dev/null || ! [ -d "/proc/$main" ] || fail "$name cannot be killed"
