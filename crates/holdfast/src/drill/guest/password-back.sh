# The rules of access and the password that were there before.
kept=/var/tmp/holdfast-drill.password
[ -d $kept ] || exit 0
find_postgres
if [ -f $kept/hash ]; then
  read -r hba <$kept/place && cat $kept/hba >"$hba" || fail "the rules of access cannot be put back"
  read -r hash <$kept/hash
  if [ "$hash" ]; then hash="'$hash'"; else hash=null; fi
  ask postgres "alter role :\"user\" password $hash"
  kill -HUP "$main"
fi
rm -rf $kept
