# Ends what was begun as one group; a reset has done so already.
read -r group 2>/dev/null </run/holdfast-drill.group || exit 0
kill -9 "-$group" 2>/dev/null
rm -f /run/holdfast-drill.group
