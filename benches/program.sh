# Builds the program as it is released; `$program` is where it is. To be sourced in the root of the repository.

cargo build --quiet --release -p holdfast
program=$(cargo metadata --format-version 1 --no-deps | grep -o '"target_directory":"[^"]*"' | cut -d'"' -f4)
program+=/release/holdfast
