# Rows of times, of samples in milliseconds. To be sourced with how many digits a second has behind the point.

digits=$1

values() { # NAME: its samples in seconds, the least first
  awk -v name="$1" -v digits="$digits" '$1 == name { printf "%.*f\n", digits, $2 / 1000 }' samples | sort -n
}
median() { # NAME
  values "$1" | awk '{ all[NR] = $1 } END { print (all[int((NR + 1) / 2)] + all[int((NR + 2) / 2)]) / 2 }'
}
row() { # WHAT NAME [MUST]
  printf '| %s | %s s | %s | %s |\n' "$1" "$(median "$2")" "$(values "$2" | sed -n '1p;$p' | paste -sd-)" "${3-}"
  figures+=("{\"figure\": \"$2\", \"what\": \"$1\", \"unit\": \"s\", \"values\": [$(values "$2" | paste -sd,)], \"median\": $(median "$2")}")
}
