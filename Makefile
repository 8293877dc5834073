# make run       the service on 127.0.0.1:8000 (HOST, PORT), and one estimate
# make test      the test-suite                 on all cores (ARGS="-k name -n 0" goes to pytest)
# make test-slow the tests that take longest, which make test leaves out
# make check     style, types, architecture, lock files
# make bench     speed and accuracy
# make load      the service at 70 % and at 300 % of what it can, into docs/operations.md
# make chaos     the queue under everything that can happen to it, into docs/reliability.md
# make fuzz      50,000 requests and 50,000 files that nobody would send, into docs/security.md
# make audit     known vulnerabilities of what the lock files pin; asks the network
# make openapi   docs/openapi.json: what the service promises over HTTP
# make calibration  what the committed measurements say, as ctxplan/calibration.json
# make accuracy  docs/accuracy.md: how right the estimates are
# make evidence  docs/evidence.md: each committed measurement beside its estimate
# make claims    docs/claims.md: what Unsloth's users are told, beside what is predicted and measured
# make published docs/published.md: what others have published, beside what is predicted
# make docs      the manual, as a website in build/docs
# make reference docs/reference: the manual's pages that the code writes
# make lock      the lock files from their inputs (ARGS=--upgrade for newer versions)
# make clean     everything that the others made

SHELL := /bin/bash
PYTHON ?= $(shell python3.11 -c 'import sys; print(sys.executable)' 2>/dev/null || command -v python3)
HOST ?= 127.0.0.1
PORT ?= 8000
ARGS ?=
UV_VERSION := 0.13.9
PIP_AUDIT_VERSION := 2.10.1

VENV := .venv
VENV_TEST := .venv-test
VENV_LOCK := .venv-lock
VENV_AUDIT := .venv-audit
BIN := $(VENV_TEST)/bin
PIP_INSTALL := bin/python -m pip --disable-pip-version-check install --quiet
# The project goes in last, editable, built by the hatchling of build.txt: nothing is resolved, nothing else fetched.
PROJECT_INSTALL := $(PIP_INSTALL) --no-deps --no-build-isolation --editable .
PROJECT_FILES := pyproject.toml ctxplan/__init__.py

.PHONY: run test test-slow check bench load chaos accuracy calibration evidence tiers claims published docs reference fuzz audit openapi lock \
  clean install install-test

run: install
	@exec $(VENV)/bin/python scripts/run --host $(HOST) --port $(PORT) $(ARGS)

test: install-test
	$(BIN)/python -m pytest -n auto $(ARGS)

test-slow: install-test
	CTXPLAN_SLOW_TESTS=1 $(BIN)/python -m pytest -n auto -m slow $(ARGS)

check: install-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/lock --check

bench: install-test
	$(BIN)/python -m benchmarks $(ARGS)

load: install-test
	$(BIN)/python -m benchmarks.load --write $(ARGS)

chaos: install-test
	$(BIN)/python -m benchmarks.chaos --write $(ARGS)

fuzz: install-test
	$(BIN)/python -m benchmarks.fuzz --write $(ARGS)

# One version of a package holds everywhere, so that test.txt has all of server.txt and build.txt as well.
audit: $(VENV_AUDIT)/.installed
	$(VENV_AUDIT)/bin/pip-audit --strict --disable-pip --require-hashes --requirement requirements/test.txt $(ARGS)
	$(VENV_AUDIT)/bin/pip-audit --strict --disable-pip --no-deps --requirement requirements/probe.txt \
	  --requirement requirements/probe-nodeps.txt $(ARGS)

openapi: install-test
	$(BIN)/python scripts/openapi $(ARGS)

calibration: install-test
	$(BIN)/python scripts/calibration $(ARGS)

accuracy: install-test
	$(BIN)/python scripts/accuracy $(ARGS)

evidence: install-test
	$(BIN)/python scripts/evidence $(ARGS)

# Each confirmation beside the estimate of today; the runs in it stay as they were.
tiers: install-test
	for file in evidence/tiers/*.json; do \
	  $(BIN)/python -m app tier confirm $$(basename $$file .json) --from $$file || exit; \
	done

claims: install-test
	$(BIN)/python scripts/claims $(ARGS)

published: install-test
	$(BIN)/python scripts/published $(ARGS)

docs: install-test
	$(BIN)/python -m sphinx --fresh-env --fail-on-warning --keep-going --quiet --builder html docs build/docs $(ARGS)
	@echo "the manual is build/docs/index.html"

reference: install-test
	$(BIN)/python scripts/reference $(ARGS)

lock: $(VENV_LOCK)/.installed
	$(VENV_LOCK)/bin/python scripts/lock $(ARGS)

clean:
	rm -rf $(VENV) $(VENV_TEST) $(VENV_LOCK) $(VENV_AUDIT) scratch/fuzz dist build *.egg-info
	rm -rf .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis unsloth_compiled_cache
	find app estimator probes ctxplan benchmarks tests -name __pycache__ -type d -prune -exec rm -rf {} +

install: $(VENV)/.installed
install-test: $(VENV_TEST)/.installed

$(VENV)/.installed: requirements/server.txt requirements/build.txt $(PROJECT_FILES)
	$(call make_venv,$(VENV))
	$(VENV)/$(PIP_INSTALL) --require-hashes -r requirements/server.txt -r requirements/build.txt
	$(VENV)/$(PROJECT_INSTALL)
	@touch $@

$(VENV_TEST)/.installed: $(VENV_TEST)/.unsloth requirements/test.txt $(PROJECT_FILES)
	$(VENV_TEST)/$(PIP_INSTALL) --require-hashes -r requirements/test.txt
	$(VENV_TEST)/$(PROJECT_INSTALL)
	@touch $@

# The oracles of the tests: torch, transformers and real Unsloth. torch first and by itself, so that nothing else
# chooses its build; Unsloth last and without its dependencies (requirements/probe.in says why).
$(VENV_TEST)/.unsloth: requirements/probe.txt requirements/probe-nodeps.txt
	$(call make_venv,$(VENV_TEST))
	$(VENV_TEST)/$(PIP_INSTALL) $$(grep -oE '^torch==[0-9.]+' requirements/probe.txt)
	$(VENV_TEST)/$(PIP_INSTALL) -r requirements/probe.txt
	$(VENV_TEST)/$(PIP_INSTALL) --no-deps -r requirements/probe-nodeps.txt
	@touch $@

$(VENV_LOCK)/.installed: Makefile
	$(call make_venv,$(VENV_LOCK))
	$(VENV_LOCK)/$(PIP_INSTALL) uv==$(UV_VERSION)
	@touch $@

$(VENV_AUDIT)/.installed: Makefile
	$(call make_venv,$(VENV_AUDIT))
	$(VENV_AUDIT)/$(PIP_INSTALL) pip-audit==$(PIP_AUDIT_VERSION)
	@touch $@

define make_venv
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	  || { echo "ctxplan needs Python 3.11, 3.12 or 3.13; name one with make PYTHON=..." >&2; exit 1; }
	@test -x $(1)/bin/python || $(PYTHON) -m venv $(1)
endef
