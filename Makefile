# Needs Python 3.11 or newer with pip and venv, and nothing else: every target makes the environment that it wants.
#
#   make demo               the main job, from nothing, in a minute
#   make dev                a whole deployment on this machine, until Ctrl-C
#   make test               all tests                         ARGS="tests/unit -k ledger"
#   make chaos              faults at random, for as long as SECONDS=600 says        ARGS="--seed 42" to draw the same again
#   make bench              all benchmarks, or one            NAME=add
#   make lint               style, types, direction of imports, the contract
#   make format             rewrites sources and protos in the one style
#   make proto              client/memoro/v1 and client/buf from protos/
#   make lock               requirements.lock from pyproject.toml
#   make clean              takes all of it away again
#
# PYTHON=python3.12 chooses an interpreter; ARGS go to the command.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
PROTO_VENV := .venv-proto
LOCK_VENV := .venv-lock
UV := uv==0.13.9

PIP := -m pip --disable-pip-version-check --no-input --quiet install --progress-bar off --no-compile
NAME ?=
SECONDS ?= 600
ARGS ?=

.PHONY: demo dev test chaos bench lint format proto lock clean venv

demo: venv
	@$(BIN)/memoro demo $(ARGS)

dev: venv
	@exec $(BIN)/memoro dev $(ARGS)

# The chaos suite has the machine to itself: it measures how soon things come back.
test: venv
ifdef ARGS
	@$(BIN)/pytest $(ARGS)
else
	@$(BIN)/pytest --numprocesses 2 --dist loadfile --ignore tests/chaos
	@$(BIN)/pytest tests/chaos
endif

chaos: venv
	@$(BIN)/python -m tests.chaos.endurance --seconds $(SECONDS) $(ARGS)

bench: venv
	@$(BIN)/python -m benchmarks $(NAME) $(ARGS)

lint: venv
	@$(check_lock)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/buf lint
	@$(BIN)/buf format --diff --exit-code

format: venv
	@$(BIN)/ruff check --fix --quiet .
	@$(BIN)/ruff format .
	@$(BIN)/buf format --write

proto: $(PROTO_VENV)/.made
	@protos/generate.sh $(PROTO_VENV)

# Pins stay where they still fit; ARGS=--upgrade moves them all. Never an address of an index: where packages come from is
# for each machine to say.
lock: $(LOCK_VENV)/.made
	@$(LOCK_VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --all-extras --no-header --no-annotate \
	    --no-emit-index-url --output-file requirements.lock $(ARGS) pyproject.toml
	@$(LOCK_VENV)/bin/python -c 'import pathlib; lock = pathlib.Path("requirements.lock"); lock.write_text( \
	    "# Made by make lock from pyproject.toml, for Python 3.11 and newer.\n" + lock.read_text())'
	@$(check_lock)

clean:
	@rm -rf $(VENV) $(PROTO_VENV) $(LOCK_VENV) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

# --- environments: made again when what they are made from has changed -----------------------------------------------

venv: $(VENV)/.installed

$(VENV)/.installed: $(VENV)/.made pyproject.toml
	@$(BIN)/python $(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.made: requirements.lock
	@echo 'Setting up $(VENV): a minute or so.'
	@$(call make_venv,$(VENV))
	@$(BIN)/python $(PIP) --no-deps --requirement requirements.lock
	@touch $@

$(PROTO_VENV)/.made: protos/requirements.txt
	@$(call make_venv,$(PROTO_VENV))
	@$(PROTO_VENV)/bin/python $(PIP) --no-deps --requirement protos/requirements.txt
	@touch $@

$(LOCK_VENV)/.made: Makefile
	@$(call make_venv,$(LOCK_VENV))
	@$(LOCK_VENV)/bin/python $(PIP) '$(UV)'
	@touch $@

# The first interpreter that runs, is new enough, and can make an environment; PYTHON= overrides the search.
define make_venv
for python in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11); do \
    if "$$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
        exec "$$python" -m venv --clear $(1); \
    fi; \
done; \
echo 'No Python 3.11 or newer with pip and venv was found (looked for: $(or $(PYTHON),python3 and python3.11 to python3.14)).' >&2; \
echo 'Install one (on Debian: apt install python3 python3-venv), or say where it is: make PYTHON=/path/to/python3.12' >&2; \
exit 1
endef

check_lock = if grep -nE '://|^-| @ ' requirements.lock; then echo 'requirements.lock names an address' >&2; exit 1; fi
