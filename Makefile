# The door for people and CI alike. `make` lists what there is.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test test-rust acceptance leaks lint fmt bench drivers driver-suites conformance fuzz idle check-plugins budget prepare clean

# One profile for everything, so that Wasmtime is compiled once.
CARGO_FLAGS ?= --release --locked
# `make demo ARGS='--replicas 5 --port 7000'`; `make test ARGS='psql'` runs the tests whose names hold `psql`.
ARGS ?=
# Seconds for each fuzz target.
FUZZ_SECONDS ?= $(if $(filter true,$(CI)),60,5)
export FUZZ_SECONDS
# Private copies of the drivers live below the target directory; the tests look there.
export CARGO_TARGET_DIR ?= $(CURDIR)/target

help: ## what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## a real PostgreSQL primary and replicas, the gateway in front; Ctrl-C removes everything
	@scripts/install-missing.sh compiler postgresql
	@cargo build $(CARGO_FLAGS) --bin pointsman
	@exec "$(CARGO_TARGET_DIR)/release/pointsman" demo $(ARGS)

test: prepare ## everything: units, real processes, real PostgreSQL, real drivers, plugins, fuzz, the budget
	@scripts/step.sh 'tests' $(MAKE) --no-print-directory test-rust
	@scripts/step.sh 'plugins are what their sources build' $(MAKE) --no-print-directory check-plugins
	@scripts/step.sh 'fuzz' $(MAKE) --no-print-directory fuzz
	@scripts/step.sh 'instructions per transaction' $(MAKE) --no-print-directory budget
	@echo "make test: all passed"

test-rust:
	@cargo test $(CARGO_FLAGS) -- $(ARGS)

prepare: # what the tests need, installed if missing
	@scripts/install-missing.sh compiler c++ postgresql wasm drivers valgrind

acceptance: ## what is promised, with figures: 1 GiB through COPY, 200 policy swaps under load, dying replicas; ten minutes alone
	@scripts/install-missing.sh compiler postgresql
	@POINTSMAN_ACCEPTANCE=1 POINTSMAN_BULK_MIB=1024 cargo test $(CARGO_FLAGS) --test it -- --test-threads=1 --nocapture \
	  acceptance:: bulk:: hostile:: $(ARGS)

drivers: ## every driver and ORM, also those that need a JDK (pgjdbc) or crates of their own (sqlx, diesel-async)
	@scripts/install-missing.sh compiler postgresql drivers java
	@cargo build --release --locked --manifest-path tests/drivers/rust/Cargo.toml --target-dir "$(CARGO_TARGET_DIR)/drivers/rust"
	@cargo test $(CARGO_FLAGS) --test it -- --include-ignored --nocapture drivers:: $(ARGS)

driver-suites: ## the drivers' own test suites through the gateway, beside a direct run; ARGS='--only asyncpg,tokio-postgres'
	@scripts/install-missing.sh compiler postgresql
	@cargo build $(CARGO_FLAGS) --bin pointsman
	@tests/drivers/suites $(ARGS)

leaks: ## the leak hunt at length: 100,000 random steps, clients beside twins on direct connections; ARGS='--seed 7 --steps 5000'
	@scripts/install-missing.sh compiler postgresql drivers
	@POINTSMAN_LEAKS='--steps 100000 $(ARGS)' cargo test $(CARGO_FLAGS) --test it -- --nocapture twin::

lint: ## formatting, clippy, shell scripts, dependency rules
	@cargo fmt --check
	@cargo clippy $(CARGO_FLAGS) --all-targets -- -D warnings
	@scripts/optional.sh shellcheck scripts/*.sh .ci/run $(wildcard plugins/*.sh tests/*/*.sh)
	@scripts/optional.sh cargo-deny --all-features check bans licenses sources

fmt: ## format the sources
	@cargo fmt

bench: ## criterion benches, then a transaction's cost beside other proxies; QUICK=1 is short, INSTALL=1 installs those
	@cargo bench --profile release
	@cargo build $(CARGO_FLAGS) --bin pointsman
	@tests/bench/run

idle: ## memory of 10,000 idle clients beside PgBouncer's; INSTALL=1 installs that
	@cargo build $(CARGO_FLAGS) --bin pointsman
	@tests/bench/idle $(ARGS)

budget: ## user-mode instructions per transaction against tests/budget/budget.toml
	@scripts/install-missing.sh compiler postgresql valgrind
	@cargo build $(CARGO_FLAGS) --bin pointsman
	@tests/budget/run

conformance: ## PostgreSQL's own suites through the gateway, beside a direct run; ARGS='--suite isolation --mode session'
	@tests/conformance/run $(ARGS)

fuzz: ## each fuzz target for FUZZ_SECONDS (default 5; 60 in CI)
	@scripts/install-missing.sh compiler c++
	@scripts/fuzz.sh

check-plugins: ## rebuild the shipped policies and compare them byte for byte
	@if [[ -x plugins/build.sh ]]; then plugins/build.sh --check; else echo "plugins/build.sh is not there" && exit 1; fi

clean: ## remove what was built
	@cargo clean
	@rm -rf fuzz/artifacts
