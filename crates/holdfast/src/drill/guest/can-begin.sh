# What the scripts that follow need, since they cannot say what they lack.
PATH=$PATH:/usr/sbin:/sbin
for tool in setsid renice tail; do
  command -v $tool >/dev/null || { echo "the guest has no $tool" && exit 1; }
done
