# Ends it, and takes its swap away; a reset has left the file only.
PATH=$PATH:/usr/sbin:/sbin
file=/var/tmp/holdfast-drill.swap heap=/run/holdfast-drill.heap
if read -r group 2>/dev/null </run/holdfast-drill.group; then
  kill -9 "-$group" 2>/dev/null
  rm -f /run/holdfast-drill.group
fi
n=0
while [ -d $heap ] && ! { umount $heap && rmdir $heap; } 2>/dev/null && [ $((n += 1)) -lt 10 ]; do sleep 1; done
[ ! -e $file ] || { swapoff $file 2>/dev/null; rm -f $file; }
