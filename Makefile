# What can be done here; `make` alone lists it.

.PHONY: help setup build image demo test bench

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 14

setup:  ## install the Debian or Ubuntu packages that are missing
	@scripts/setup.sh

build: setup  ## build the program: target/release/holdfast
	cargo build --release -p holdfast

image: setup  ## build the demo guest, a small PostgreSQL machine, or find it built
	@guest/build.sh

demo: build image  ## break a real database machine five times and watch it come back (DEMO_ARGS=--keep)
	target/release/holdfast demo $(DEMO_ARGS)

test: image  ## run every check and every test, on real guests too
	@scripts/setup.sh --tests
	@scripts/test.sh

bench: setup  ## measure the speed of the engine and of the simulator
	cargo run --release -p holdfast-core --example bench_engine
	cargo run --release -p holdfast-sim --example simulate 200
