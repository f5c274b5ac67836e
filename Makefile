# make demo   see it work: names pictures of clothes, then trains a small network for a minute
# make test   install what the tests need, then run them all
# make test-drivers  run the kernels on newer CPU drivers, one of which has matrix units (in test: a part of it)
# make build  the release binary, target/release/nin-wgpu
#
# On Linux without a Vulkan device, demo and test first install Mesa's CPU driver (apt or dnf).

.DEFAULT_GOAL := help
.PHONY: help build demo test test-drivers

TARGET := $(or $(CARGO_TARGET_DIR),target)
NIN_WGPU := $(TARGET)/release/nin-wgpu
DEMO_RUN := $(TARGET)/demo-run
# About a minute of training on two CPU cores.
DEMO_EPOCHS ?= 5

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

build:
	@scripts/setup-build.sh
	cargo build --release

demo: build
	@scripts/setup-vulkan.sh
	@printf '\n== Pictures of clothes, named by the network inside the binary\n'
	$(NIN_WGPU) infer assets/samples
	@printf '\n== The same kind of network learning from 3,000 small pictures, about a minute on two CPU cores\n'
	@rm -rf '$(DEMO_RUN)'
	$(NIN_WGPU) train --model nin-small --data assets/fashion-mnist-mini --epochs $(DEMO_EPOCHS) --out '$(DEMO_RUN)'

test:
	@scripts/setup-build.sh
	@scripts/setup-vulkan.sh
	@scripts/run-tests.sh

test-drivers:
	@scripts/setup-build.sh
	@scripts/test-drivers.sh
