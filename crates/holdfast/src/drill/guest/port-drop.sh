# The guest's firewall drops what comes for the application's port from outside.
find_app
if command -v nft >/dev/null; then
  said=$(nft -f - 2>&1 <<TABLE
table inet holdfast_drill {
  chain input {
    type filter hook input priority -300;
    iifname != "lo" tcp dport $port drop
  }
}
TABLE
  ) || fail "nft says: $said"
elif command -v iptables >/dev/null; then
  said=$(iptables -I INPUT ! -i lo -p tcp --dport "$port" -m comment --comment holdfast-drill -j DROP 2>&1) ||
    fail "iptables says: $said"
else
  fail "the guest has no nft and no iptables"
fi
