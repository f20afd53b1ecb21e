# A reset has done so already.
PATH=$PATH:/usr/sbin:/sbin
if command -v nft >/dev/null; then
  nft list table inet holdfast_drill >/dev/null 2>&1 || exit 0
  nft delete table inet holdfast_drill
elif command -v iptables >/dev/null; then
  set -- ! -i lo -p tcp --dport "$port" -m comment --comment holdfast-drill -j DROP
  if iptables -C INPUT "$@" 2>/dev/null; then iptables -D INPUT "$@"; fi
fi
