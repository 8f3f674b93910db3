# Everything from one place. Needs Rust, a C compiler and Python 3 (3.11 to test); no root, no Docker.

CARGO := $(shell command -v cargo || echo "$$HOME/.cargo/bin/cargo")
SEED = $(or $(GROUNDSTATION_SEED),$(shell od -An -N4 -tu4 /dev/urandom | tr -d ' '))

.DEFAULT_GOAL := help
.PHONY: help run console test test-faults nemesis drill conformance fuzz lint deny deb fmt schemas examples bench tools test-tools clean docker-up

help: ## Show what can be made
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1#\2/p' $(MAKEFILE_LIST) | awk -F'#' '{ printf "  make %-12s %s\n", $$1, $$2 }'

run: tools ## A private Postgres and NATS, one pod, its page and some satellites; Ctrl-C ends it all
	@sh tools/console.sh where-possible
	@exec $(CARGO) run --locked -- dev

console: ## Build the page into console/dist, which the next build of the program embeds
	@sh tools/console.sh

test: test-tools console ## Lint, then all tests against real servers; says which part took how long
	@CARGO=$(CARGO) sh tools/test.sh

# Tests that open as many sockets as a process may have, or measure a pod's times, run last, one by
# one.
ONE_BY_ONE = storm:: rolling_restart:: cluster_faults:: failover::a_fail_over reads::edges_are_in_time enrolment::ten_thousand

test-faults: test-tools console ## The same and the long ones, with every fault injected; GROUNDSTATION_SEED=n repeats a run
	@seed=$(SEED); echo "GROUNDSTATION_SEED=$$seed"; status=0; \
	export GROUNDSTATION_FAULTS=full GROUNDSTATION_SEED=$$seed; \
	$(CARGO) test --locked --workspace --features failpoints --no-fail-fast -- --include-ignored $(ONE_BY_ONE:%=--skip %) || status=$$?; \
	$(CARGO) test --locked --workspace --features failpoints --no-fail-fast --test integration -- --include-ignored --test-threads=1 $(ONE_BY_ONE) || status=$$?; \
	exit $$status

# A seed always gives the same plan; the outcome depends on the machine as well.
nemesis: test-tools ## Many faults at once for MINUTES (30), with a checker beside them; SEED=n repeats a plan
	@seed=$(SEED); echo "MINUTES=$(or $(MINUTES),30) SEED=$$seed"; \
	GROUNDSTATION_SEED=$$seed GROUNDSTATION_NEMESIS_SECONDS=$$(($(or $(MINUTES),30) * 60)) \
	$(CARGO) test --locked --workspace --features failpoints --test integration nemesis::whatever -- --nocapture

drill: test-tools ## Rehearse disasters, and print what an operator does and sees
	@$(CARGO) test --locked --workspace --features failpoints --test integration -- --ignored --nocapture --test-threads=1 drills::

conformance: ## The Autobahn cases against the WebSocket layer
	$(CARGO) build --locked --example echo
	sh tools/conformance.sh

fuzz: ## Fuzz the message parser for FUZZ_SECONDS (60); needs nightly Rust and cargo-fuzz
	@mkdir -p fuzz/corpus/message
	cd fuzz && $(CARGO) +nightly fuzz run --sanitizer none --dev message corpus/message seeds/message -- \
		-max_len=65536 -max_total_time=$(or $(FUZZ_SECONDS),60)

lint: ## Check format, lints and the code's documentation
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets --features failpoints -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps --document-private-items --lib

# Not part of lint: cargo-deny takes minutes to build, and its advisories come from the network.
deny: ## Check licences, sources and advisories of all that is built in; needs cargo-deny
	cargo deny --locked check

deb: console ## A Debian package in target/debian; needs cargo-deb
	$(CARGO) build --locked --release --bin groundstation
	target/release/groundstation man target/man
	cargo deb --locked --no-build

fmt: ## Format the code
	$(CARGO) fmt --all

schemas: ## Write the schemas of the stream's and the satellites' messages and of the HTTP API from the types
	$(CARGO) run --locked --example schemas

examples: test-tools ## Run the examples of docs/examples against real servers
	$(CARGO) build --locked --workspace --features failpoints --example consume --example receive
	$(CARGO) test --locked --workspace --features failpoints --test integration -- --include-ignored examples:: receivers::

bench: tools ## Measure; SECTIONS="edges load" for a part (see benches/main.rs)
	$(CARGO) bench --locked -- $(SECTIONS)

tools: ## Find PostgreSQL and nats-server, or bring them into .tools
	@sh tools/find-or-install.sh

test-tools: ## The same, and what only tests need
	@sh tools/find-or-install.sh tests

clean: ## Remove all that was built, brought or stored here
	$(CARGO) clean
	rm -rf .tools console/dist console/node_modules
	@for data in .groundstation/*/data; do \
		case "$$(readlink "$$data")" in /var/tmp/groundstation-*/data) rm -rf "$$(dirname "$$(readlink "$$data")")" ;; esac; \
	done
	rm -rf .groundstation

docker-up: ## Two pods behind real servers in Docker, ports 8080 and 8081
	docker compose up --build --detach
