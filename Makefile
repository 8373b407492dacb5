# `make lab` and `make test` are what one needs; the rest is for those who measure.
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
MAPT := target/release/mapt
# For example: make lab LAB=--keep
LAB ?=

.PHONY: lab test test-long bench bench-netns deps build

# A whole MAP-T network in namespaces of this machine, and a table of what works in it.
lab: build
	scripts/apt-install $$($(MAPT) lab --missing-packages)
	$(SUDO) $(MAPT) lab $(LAB)

# Everything that must pass before a change goes in.
test:
	.ci/run

# The same properties with many more cases, and the tests that take minutes.
test-long: build
	scripts/apt-install $$($(MAPT) lab --missing-packages)
	PROPTEST_CASES=20000 cargo test --locked --release -- --include-ignored

# Nanoseconds a packet, without I/O.
bench:
	cargo bench --locked

# Throughput in namespaces: plain routing, tayga twice, mapt-ce and mapt-br.
bench-netns: build
	scripts/apt-install $$($(MAPT) lab --missing-packages --bench)
	$(SUDO) $(MAPT) lab --bench

# The Debian packages of all of the above.
deps: build
	scripts/apt-install $$($(MAPT) lab --missing-packages) $$($(MAPT) lab --missing-packages --bench)

build:
	cargo build --locked --release --bins
