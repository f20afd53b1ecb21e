# The tables go, and with them the damaged page.
find_postgres
ask postgres 'drop database if exists holdfast_drill'
ask postgres 'drop database if exists holdfast_drill_sound'
