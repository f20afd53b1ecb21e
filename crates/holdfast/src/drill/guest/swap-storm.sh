# Gives the guest as much swap as it has memory, and one who reads more than its memory holds, over and over.
PATH=$PATH:/usr/sbin:/sbin
fail() { echo "$1" && exit 1; }
for tool in mkswap swapon swapoff setsid; do
  command -v $tool >/dev/null || fail "the guest has no $tool"
done
memory=$(sed -n 's/^MemTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo)
file=/var/tmp/holdfast-drill.swap heap=/run/holdfast-drill.heap
[ ! -e $file ] || fail "an earlier drill was not taken back: $file is there"
fallocate -l $((memory * 1024)) $file 2>/dev/null || { rm -f $file; fail "there is no room for swap on /var/tmp"; }
chmod 600 $file
mkswap $file >/dev/null 2>&1 && swapon $file || { rm -f $file; fail "the guest takes no swap on /var/tmp"; }
mkdir -p $heap && mount -t tmpfs -o size=${memory}k,mode=700 heap $heap || fail "no tmpfs can be mounted"
export heap megabytes=$((memory / 1024 * 95 / 100))
setsid sh -c '
  echo $$ >/run/holdfast-drill.group
  dd if=/dev/zero of=$heap/full bs=1M count=$megabytes 2>/dev/null
  while :; do cat $heap/full; done' </dev/null >/dev/null 2>&1 &
