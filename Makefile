# Everything a developer or a machine runs. Needs GNU make and CPython >= 3.11; uv is used when it is there.
PYTHON ?= python3
export PYTHON

BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest -p tests.support.no_skips
WORKERS ?= 2

.DEFAULT_GOAL := help
.SUFFIXES:
.PHONY: help serve demo test check lanes proof openapi migration \
  bench-help bench-http bench-run bench-ledger bench-tamper bench-tools bench-rolling bench-sse bench-gate chaos env-serve env-test lint

help: ## say what there is
	@echo "MeshFlow: make <target>"
	@sed -n 's/^\([a-z][a-z-]*\):[^#]*## \(.*\)$$/  \1|\2/p' Makefile | while IFS='|' read -r target what; do \
	  printf '%-16s %s\n' "$$target" "$$what"; done

serve: env-serve ## install, start a database, serve with two development keys (ARGS="--port 9000")
	$(BIN)/meshflow serve --dev $(ARGS)

demo: env-serve ## run the main job end to end; exit 0 only if every step held
	$(BIN)/meshflow demo

test: lint ## lint, types, imports and every test; a skipped test is a failure
	$(PYTEST) -n $(WORKERS) $(ARGS)

check: lint ## the fast lane: lint, types, imports, unit and architecture tests
	$(PYTEST) -n $(WORKERS) tests/unit tests/architecture $(ARGS)

lanes: env-test ## what is shipped: reproducible wheel, wheel alone by pip, the API document, the vectors by node, /docs in Chromium, a rolling restart behind nginx, the sandbox in a pod
	sh scripts/lanes.sh

proof: env-test ## every attack, bench and chaos test at full counts; writes the tables in docs/
	MESHFLOW_PROOF=1 $(PYTEST) -n $(WORKERS) $(ARGS)
	$(BIN)/python -m bench.tamper_bench --full
	$(BIN)/python -m bench.chaos_bench --kills 30 --seconds 600
	for bench in help http run ledger; do $(BIN)/python -m bench.$${bench}_bench || exit 1; done
	$(BIN)/python -m bench.tools_bench --attacks --write
	$(BIN)/python -m bench.rolling_bench --full
	$(BIN)/python -m bench.sse_bench
	$(BIN)/python -m bench.gate_bench --full --wrong-labels --write
	$(BIN)/python -m bench.figures_table

openapi: env-test ## write openapi/openapi.json and openapi/webhooks.json from the code
	$(BIN)/meshflow openapi --write openapi/openapi.json
	$(BIN)/meshflow openapi --webhooks --write openapi/webhooks.json

migration: env-test ## start a migration (name=what_it_does)
	@$(BIN)/python scripts/new_migration.py $(name)

bench-help: env-test ## measure what `meshflow --help` costs
	$(BIN)/python -m bench.help_bench $(ARGS)

bench-http: env-test ## measure what a caller pays: accepting a task, a governed model call, the wait to start
	$(BIN)/python -m bench.http_bench $(ARGS)

bench-run: env-test ## measure whole runs
	$(BIN)/python -m bench.run_bench $(ARGS)

bench-ledger: env-test ## measure appending to, verifying and sequencing the ledger
	$(BIN)/python -m bench.ledger_bench $(ARGS)

bench-tamper: env-test ## attack the ledger (ARGS=--full)
	$(BIN)/python -m bench.tamper_bench $(ARGS)

chaos: env-test ## kill and stop processes under load (ARGS='--kills 30')
	$(BIN)/python -m bench.chaos_bench $(ARGS)

bench-tools: env-test ## measure confined calls beside unconfined ones (ARGS=--attacks runs every corpus of attacks)
	$(BIN)/python -m bench.tools_bench $(ARGS)

bench-rolling: env-test ## restart two servers behind nginx under load (ARGS=--full: 10,000 requests)
	$(BIN)/python -m bench.rolling_bench $(ARGS)

bench-sse: env-test ## keep 10,000 idle event streams on one process (ARGS='--streams 1000')
	$(BIN)/python -m bench.sse_bench $(ARGS)

bench-gate: env-test ## replay a lost model against the gate (ARGS='--write --full --wrong-labels' writes docs/gate-bench.md)
	$(BIN)/python -m bench.gate_bench $(ARGS)

lint: env-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

env-serve:
	@sh scripts/environment.sh embedded,perf,shell

env-test:
	@sh scripts/environment.sh embedded,perf,shell,dev
