# Fills the file system that the application works on.
find_app
mount=$(mount_of "/proc/$main/cwd/")
[ -d "$mount" ] || fail "the disk of $name was not found"
fill "$mount"
