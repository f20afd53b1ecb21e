# Nothing is left in the data folder of PostgreSQL: all is set aside, on the same file system, where only the drill looks.
find_postgres
aside=$data/.holdfast-drill
mkdir -m 700 "$aside" || fail "an earlier drill was not taken back: $aside is there"
echo "$data" >/var/tmp/holdfast-drill.data || fail "the guest cannot write to /var/tmp"
mv "$data"/* "$aside"/ || fail "the data folder cannot be emptied"
