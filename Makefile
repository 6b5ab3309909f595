# Two commands do everything: `make run` shows the product, `make test` proves it.

PYTHON ?= python3
PORT ?= 8080
VENV := .venv
BIN := $(VENV)/bin
DEMO_HOME ?=

.PHONY: help install run test check bench clean

help:  ## What can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | sort

install: $(BIN)/.installed  ## A virtual environment with everything in it (.venv)

$(BIN)/.installed: pyproject.toml .ci/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Curfew needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Say which: make $@ PYTHON=python3.12" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c .ci/constraints.txt -e '.[aws,azure,gcp,kubernetes,conformance,dev]'
	@touch $@

# Each run is a demo of its own in a folder that goes with it; DEMO_HOME=folder keeps one.
run: install  ## The demo: a simulated company on an accelerated clock, at http://127.0.0.1:$(PORT)
	@echo "Curfew governs a simulated company, 240 times as fast as real time. It starts…"
	@home='$(DEMO_HOME)'; test -n "$$home" || { home=$$(mktemp -d) && trap 'rm -rf "$$home"' EXIT; }; \
	trap 'kill "$$curfew"; wait "$$curfew"' INT TERM; \
	CURFEW_HOME="$$home" CURFEW_DEMO_SPEED=240 CURFEW_CYCLE_SECONDS=2 CURFEW_CEILING=enforce \
	CURFEW_BREAKER=100% CURFEW_METRICS_ANONYMOUS=1 CURFEW_PUBLIC_URL=http://127.0.0.1:$(PORT) \
	CURFEW_MAIL='demo://{to}' CURFEW_NOTIFY=platform@example.org CURFEW_ADMIN_TOKEN=$${CURFEW_ADMIN_TOKEN:-demo} \
	CURFEW_DATABASE_URL= CURFEW_APPLY=service/demo $(BIN)/curfew serve --port $(PORT) & curfew=$$!; \
	wait "$$curfew"

test: install check  ## Everything: the checks, then all tests on real parts
	@.ci/system-packages
	$(BIN)/python -m pytest -n auto

check: install  ## Format, lint, types, contracts, dependencies, migrations
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry . --no-ansi
	@home=$$(mktemp -d) && CURFEW_HOME=$$home CURFEW_DATABASE_URL= $(BIN)/alembic upgrade head && CURFEW_HOME=$$home CURFEW_DATABASE_URL= $(BIN)/alembic check; status=$$?; rm -rf $$home; exit $$status

bench: install  ## Figures, as ratios within one run
	$(BIN)/python -m bench

clean:  ## Remove what the other targets made
	rm -rf $(VENV) dist build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
