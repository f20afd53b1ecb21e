# Fills the file system that the application works on, to the last block.
find_app
mount=$(df -Pk "/proc/$main/cwd/" 2>/dev/null | tail -n 1 | { read -r _ _ _ _ _ at; echo "$at"; })
[ -d "$mount" ] || fail "the disk of $name was not found"
file=${mount%/}/holdfast-drill.fill
left() { df -Pk "$mount" | tail -n 1 | { read -r _ _ _ left _; echo "$left"; }; }
n=0
for kib in "$(left)" 1048576 65536 4096 256; do # in no time, where the file system can
  while fallocate -l $((kib * 1024)) "$file.$n" 2>/dev/null; do n=$((n + 1)); done
  n=$((n + 1))
done
cat /dev/zero >"$file" 2>/dev/null
[ "$(left)" -lt 1024 ] || fail "$(left) KiB are still free on $mount"
