[ -w /proc/sysrq-trigger ] || { echo "this guest's kernel takes no sysrq, or the agent may not give one" && exit 1; }
