# Every task of this repository. `make` alone lists them. Run as root: containers, namespaces and CRIU are real.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

TOOLS := $(CURDIR)/target/tools
DENY := $(firstword $(shell command -v cargo-deny) $(TOOLS)/bin/cargo-deny)

PROGRAMS := -p dray-scheduler -p dray-node-agent -p clusterctl -p dray-e2e

.PHONY: help setup images demo test check bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

setup: ## prepare this machine: packages, a CRIU that works here (deploy/setup-host.sh)
	deploy/setup-host.sh

images: setup ## make the example images in target/images
	examples/images/build.sh

demo: images ## a cluster, Redis, a client, a migration there and back, a dead leader, and a table of it all
	cargo build --locked --release $(PROGRAMS)
	target/release/dray-demo

test: images ## run every test: unit, simulation, end to end
	tests/run.sh

check: $(DENY) ## formatting, lints, dependencies' licences and sources, documentation
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	$(DENY) --locked check bans licenses sources
	RUSTDOCFLAGS='-D warnings -A rustdoc::private_intra_doc_links' cargo doc --locked --workspace --no-deps --document-private-items

$(TOOLS)/bin/cargo-deny:
	cargo install --locked --root $(TOOLS) cargo-deny

bench: images ## figures beside plain CRIU and runc (target/bench/report.json)
	command -v runc >/dev/null || apt-get -qq --yes --no-install-recommends install runc >/dev/null
	cargo build --locked --release $(PROGRAMS)
	target/release/dray-bench

clean: ## remove what was built
	cargo clean
