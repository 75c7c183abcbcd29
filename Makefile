# `make` alone lists the targets. Needs git, make and Python 3.11 to 3.13; everything else is installed below
# this folder.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help install demo up check test test-long docs test-services ui-test chaos docker-test sabotage busy-hour bench lint format clean

# uv from the PATH, or one of our own in .tools
UV_VERSION := 0.13.9
SYSTEM_UV := $(shell command -v uv 2>/dev/null)
UV := $(if $(SYSTEM_UV),uv,.tools/bin/uv)
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	"$$p" -c 'import sys; sys.exit(not (3,11) <= sys.version_info[:2] <= (3,13))' 2>/dev/null && { echo "$$p"; break; }; done)
RUN := .venv/bin/
# on a terminal, uv shows its progress; elsewhere the lines that are echoed say enough
UV_SAYS := $(shell test -t 2 || echo --quiet)
PYTEST_ARGS ?=
LINT = "$(RUN)ruff" check . && "$(RUN)ruff" format --check . && "$(RUN)mypy" && \
	"$(RUN)sqlfluff" lint --disable-progress-bar --processes 2 dbt_project

SITE = .tools/docs/bin/zensical build --clean --strict

help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.tools/bin/uv:
	@test -n "$(PYTHON)" || { echo "make: Headrace needs Python 3.11, 3.12 or 3.13 on the PATH" >&2; exit 1; }
	@echo "installing uv $(UV_VERSION) into .tools"
	@"$(PYTHON)" -m venv .tools
	@.tools/bin/python -m pip install --quiet --disable-pip-version-check "uv==$(UV_VERSION)"

.venv/.installed: uv.lock pyproject.toml $(if $(SYSTEM_UV),,.tools/bin/uv)
	@test -n "$(PYTHON)" || { echo "make: Headrace needs Python 3.11, 3.12 or 3.13 on the PATH" >&2; exit 1; }
	@echo "installing the locked packages into .venv: a minute or two where they are not in the cache of uv"
	@$(UV) sync --frozen --python "$(PYTHON)" $(UV_SAYS)
	@echo "compiling the decoder and parsing the dbt project, once: about half a minute"
	@"$(RUN)python" -m headrace.local.prepare
	@touch $@
	@echo "installed; try 'make demo', or '.venv/bin/headrace --help'"

install: .venv/.installed ## Install everything into .venv, from the lock file

demo: install ## The main job on real input, end to end, with a summary
	@"$(RUN)headrace" demo $(DEMO_ARGS)

up: install ## The whole platform with UI and live traffic, until Ctrl-C
	@"$(RUN)headrace" up

# the folders whose tests need no running stack, and some more that are fast: what a contributor runs while editing
FAST := tests/contracts tests/core tests/formats tests/test_architecture.py tests/test_docs.py --ignore=tests/core/test_extras.py

check: install .tools/docs/.installed ## Lint, types, docs and fast tests: the inner loop, under a minute
	@$(LINT)
	@$(SITE)
	@"$(RUN)python" -m pytest $(PYTEST_ARGS) $(FAST)

test: install .tools/docs/.installed ## Lint, types, docs and all tests but the long ones: what CI asks of every change, ~15 min
	@$(LINT)
	@$(SITE)
	@"$(RUN)python" -m pytest $(PYTEST_ARGS)

test-long: install ## The long tests: whole platforms, wheels, histories by the hundred; ~40 min
	@"$(RUN)python" -m pytest -m "long and not ui" $(PYTEST_ARGS)

# Apache Kafka, SeaweedFS (S3), ElasticMQ (SQS), Apicurio Registry, Postgres and Prometheus, where Java and the registries
# are at hand
FETCH = "$(RUN)python" tests/services/fetch.py "$(UV)" .tools/services
FETCHED := HEADRACE_TEST_KAFKA=.tools/services/kafka HEADRACE_TEST_S3=.tools/services/s3 \
	HEADRACE_TEST_QUEUE=.tools/services/queue HEADRACE_TEST_POSTGRES=.tools/services/postgres \
	HEADRACE_TEST_REGISTRY=.tools/services/registry HEADRACE_TEST_NODE=.tools/services/node \
	HEADRACE_TEST_PROMETHEUS=.tools/services/prometheus HEADRACE_TEST_JDBC=.tools/services/jdbc

test-services: install ## The suites on Apache Kafka (SASL and TLS too), S3 and Postgres, where they can be had
	@$(FETCH)
	@$(FETCHED) "$(RUN)python" -m pytest -n 0 -rs $(PYTEST_ARGS) tests/services

ui-test: install ## The UI in headless Chromium, screenshots in .ui-test; needs a chromium on the PATH, ~4 min
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || \
		echo "make: there is no Chromium, so nothing is tested; get one by: apt-get install chromium" >&2
	@"$(RUN)python" -m pytest -n 0 -rs -m ui $(PYTEST_ARGS) tests/ui

chaos: install ## The whole chaos matrix: crashes in every window, durable brokers killed too; ~20 min
	@$(FETCH)
	@$(FETCHED) PYTHONPATH=tests "$(RUN)python" -m chaos $(CHAOS_ARGS)
	@[ -n "$(CHAOS_ARGS)" ] || "$(RUN)python" -m pytest -n 0 -q -m "" tests/chaos/test_serving.py

docker-test: install ## The compose project, built from what is at hand: started, the demo in it, reconciled; ~10 min
	@$(FETCH)
	@PYTHONPATH=tests "$(RUN)python" -m containers.demo .tools/docker .tools/services

MINUTES ?= 60

busy-hour: install ## Live traffic beside a load, all checks every minute: no false alarm, faults found; MINUTES=60
	@PYTHONPATH=tests "$(RUN)python" -m busy --minutes "$(MINUTES)" $(BUSY_ARGS)

sabotage: install ## Mistakes of people in a platform that runs: named, nobody else stopped, well after the repair; ~40 min
	@PYTHONPATH=tests "$(RUN)python" -m sabotage $(SABOTAGE_ARGS)

# peers ask for older versions of some packages than Headrace does: an environment of its own
.tools/bench/.installed: uv.lock pyproject.toml $(if $(SYSTEM_UV),,.tools/bin/uv)
	@echo "installing what is measured beside Headrace into .tools/bench: a minute or two"
	@UV_PROJECT_ENVIRONMENT=.tools/bench $(UV) sync --frozen --python "$(PYTHON)" --no-default-groups --group bench $(UV_SAYS)
	@touch $@

bench: .tools/bench/.installed ## Measure everything beside bare drivers and peers, write docs/performance.md; ~1 h
	@.tools/bench/bin/headrace bench report $(BENCH_ARGS)

# what builds the site asks for a package that dbt refuses: an environment of its own
.tools/docs/.installed: docs/requirements.txt $(if $(SYSTEM_UV),,.tools/bin/uv)
	@echo "installing what builds the docs site into .tools/docs"
	@$(UV) venv --quiet --clear --python "$(PYTHON)" .tools/docs
	@$(UV) pip sync --quiet --python .tools/docs/bin/python --require-hashes docs/requirements.txt
	@touch $@

docs: .tools/docs/.installed ## The docs site in site/; every link and anchor must lead somewhere
	@$(SITE)

lint: install ## Ruff, mypy and sqlfluff alone
	@$(LINT)

format: install ## Format and fix what can be fixed
	@"$(RUN)ruff" check --fix . ; "$(RUN)ruff" format .

clean: ## Remove the local state (lake, warehouse, logs), not your files in .headrace/archive; asks nothing
	@test ! -d .headrace || find .headrace -mindepth 1 -maxdepth 1 ! -name archive -exec rm -rf {} +
