# Damages a page of a table made for it, and reads it. A copy is made file by file, past the cache of PostgreSQL: what
# is damaged before anybody reads the copy is read from the disk.
find_postgres
ask postgres "select count(*) from pg_database where datname like 'holdfast_drill%'"
[ "$said" = 0 ] || fail "an earlier drill was not taken back: drop the databases holdfast_drill and holdfast_drill_sound"
ask postgres 'create database holdfast_drill_sound'
ask holdfast_drill_sound "create table pages as select n, repeat('x', 500) from generate_series(1, 1000) n"
copy='create database holdfast_drill template holdfast_drill_sound'
sql postgres "$copy strategy file_copy" >/dev/null || ask postgres "$copy" # before 15 there is no other way
ask holdfast_drill "select pg_relation_filepath('pages')"
dd if=/dev/urandom of="$data/$said" bs=8192 seek=7 count=1 conv=notrunc 2>/dev/null || fail "no page could be damaged"
! sql holdfast_drill 'select count(*) from pages' >/dev/null || fail "the damaged page was read as if it were sound"
