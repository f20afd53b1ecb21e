# The clock of the guest is a day ahead.
read -r up _ </proc/uptime
now=$(date +%s)
echo "$now ${up%.*}" >/run/holdfast-drill.clock || exit 1
date -s "@$((now + 86400))" >/dev/null || { echo "the guest does not let its clock be set" && exit 1; }
