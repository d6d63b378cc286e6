# `make` alone lists what there is.
SHELL := /bin/bash
.DEFAULT_GOAL := help
SEEDS ?= 100
FIRST ?= 1
.PHONY: help up down build test check fmt lint e2e dev sqlx page images bench bench-short sim

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/\1\t\2/' | expand -t 12

up: ## install what is missing, build, start the server and one local agent (LISTEN=, Ctrl-C stops)
	@scripts/up

down: ## stop, remove the pods and all state of `make up`
	@scripts/down

build: ## the whole set-up, then release binaries with the page embedded
	@scripts/setup run
	@scripts/build

test: ## all tests: pure, API, whole-system
	@scripts/test

check: ## compile everything
	@. scripts/env && cargo check --workspace --all-targets

fmt: ## format
	@cargo fmt --all && cd frontend && cargo fmt

lint: ## rustfmt and clippy without warnings
	@. scripts/env && cargo fmt --all --check && cargo clippy -q --workspace --all-targets -- -D warnings

e2e: ## only the whole-system tests
	@scripts/test -p longshore-e2e

sim: ## SEEDS=N worlds of the deterministic simulator, from FIRST= on
	@. scripts/env && cargo build -q --profile sim -p longshore-sim && nice -n 5 "$$CARGO_TARGET_DIR/sim/longshore-sim" run --seeds $(SEEDS) --first $(FIRST)

dev: ## the server alone, debug build, state in .longshore/dev
	@scripts/setup run && . scripts/env && cargo run -p longshore-server -- dev --data-dir .longshore/dev

page: ## build the page into frontend/dist
	@scripts/setup build && scripts/build-page

sqlx: ## refresh the committed descriptions of all SQL queries
	@scripts/sqlx-prepare

bench: build ## measure, side by side with the peer in PEER_DIR= (ROUNDS=3, ONLY=list,watch); writes bench/results
	@scripts/bench

bench-short: build ## the main figures only, about a minute
	@scripts/bench --short

images: ## server and agent images (BASE=, BUILD_BASE= name other base images)
	@scripts/images
