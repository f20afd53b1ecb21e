# Opens what makes it panic, and writes nothing.
(: >>/proc/sysrq-trigger) 2>/dev/null || { echo "this guest's kernel takes no order to panic from its agent" && exit 1; }
