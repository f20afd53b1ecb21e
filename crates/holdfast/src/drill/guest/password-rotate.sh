# The user of the probe gets another password, and is asked for it wherever it comes from.
find_postgres
kept=/var/tmp/holdfast-drill.password
mkdir -m 700 $kept || fail "an earlier drill was not taken back: $kept is there"
ask postgres 'show hba_file'
echo "$said" >$kept/place && cat "$said" >$kept/hba || fail "the rules of access cannot be kept"
ask postgres "select rolpassword from pg_authid where rolname = :'user'"
echo "$said" >$kept/hash
ask postgres "set password_encryption = 'scram-sha-256'; alter role :\"user\" password 'rotated by a drill'"
read -r hba <$kept/place
{ printf 'host all "%s" all scram-sha-256\n' "$user"; cat $kept/hba; } >"$hba" && kill -HUP "$main" ||
  fail "the rules of access cannot be changed"
