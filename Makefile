# What can be done here; `make` alone lists it.

.PHONY: help setup build image demo test bench bench-full

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 20

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

bench: image  ## measure everything once, in about 40 minutes (EVAL=FOLDER: the detectors and log patterns too)
	$(measure)
	cargo bench -p holdfast --bench guest -- --short

bench-full: image  ## the same with as many samples as the figures need, in about 3 hours (JSON=FILE: write them there)
	$(measure)
	cargo bench -p holdfast --bench guest -- $(if $(JSON),--json $(abspath $(JSON)))

define measure
	cargo run --release -p holdfast-core --example bench_engine
	cargo run --release -p holdfast-sim --example simulate 200
	benches/analyze.sh
	$(if $(EVAL),benches/heartbeat.sh $(EVAL))
	$(if $(EVAL),benches/nab.sh $(EVAL))
	$(if $(EVAL),benches/parse.sh $(EVAL))
	$(if $(EVAL),benches/windows.sh $(EVAL))
	$(if $(EVAL),cargo run --release -p holdfast-logs --example mining $(EVAL)/data/logs)
endef
