# Everything goes through here. `make help` lists the targets.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
MODEL := smollm2-135m
SECOND := qwen2.5-coder-0.5b
PROFILE ?= cpu
# Local JSON-lines files of GSM8K and of MATH; empty: the hub, by name
GSM8K ?=
MATH ?=
# Local copies of the counts of real models and of a real run; empty: their public places. The
# published tables have no public file.
RATES ?=
RUN ?=
TABLES ?=
# The chapters that read stored results
STORED := real_rates real_run language_exact language_sampled estimating_conflict life_of_a_conflict \
  training_study training_pass_at_k conflict_free math_conflict laptop_to_cluster
# One claim of claims.yml, or several; empty: all
CLAIM ?=
# Lines of the library that the tests run, where pytest-cov is installed
LINES = $(shell $(BIN)/python -c "import pytest_cov" 2> /dev/null && echo --cov=src/passgrad --cov-report=term:skip-covered)
# Which tests: quick, test, rest (what test leaves out) or all; see tests/conftest.py
TIER ?= test
# One stored result, such as two_conventions/cpu/seed-0; empty: the one whose day it is
RESULT ?=
# Arguments for pytest: make test ARGS="-k toy"
ARGS ?=
# The tests of make lower-bounds: what needs neither a language model nor gradient surgery
LOWER := unit/test_metrics.py unit/test_objectives.py unit/test_interference.py unit/test_bounds.py \
  unit/test_exponential_sums.py unit/test_objective_map.py unit/estimators unit/stats \
  unit/worlds/test_bandit.py unit/worlds/test_tabular.py unit/ascent/test_ascent.py \
  unit/ascent/test_directions.py unit/measurement/test_crossfit.py unit/measurement/test_estimate.py \
  unit/measurement/test_planning.py
# Processes for pytest, a thread each; empty: one process with all threads
JOBS ?= 2

.PHONY: help env model model-second second adapters study book audit quick test test-all gpu lint types floors pytest doctor verify reproduce run results figures lock lower-bounds clean

help: ## Show this list
	@echo "Targets:"
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1|\2/' | while IFS='|' read -r name text; do printf '  make %-10s %s\n' "$$name" "$$text"; done
	@echo "First time: make book (a quarter of an hour on two cores), then open _build/html/index.html"

book: env model ## Execute the chapters that changed and build _build/html
	$(BIN)/passgrad book --profile $(PROFILE)

quick: env lint ## Style, and the tests that take a minute in all: no model, no other process
	@$(MAKE) pytest TIER=quick

test: env model lint types floors ## Style, types, floors and tests: ten minutes on two cores
	@$(MAKE) pytest TIER=test

test-all: env model lint types floors ## The same with every test, and which lines of the library ran
	@$(MAKE) pytest TIER=all COVER=1

gpu: env model ## On a GPU, under eight minutes, no network: its tests, a measurement, training, benchmarks
	$(BIN)/python scripts/gpu.py $(ARGS)

doctor: env ## Say whether this machine is ready
	$(BIN)/passgrad doctor

verify: env ## Check all that ships against claims.yml: at most two minutes, no network
	$(BIN)/passgrad verify $(CLAIM)

audit: env model ## Compute one stored result again in full, chosen by the date, and compare
	$(BIN)/passgrad audit $(foreach f,$(GSM8K),--file gsm8k_path="$(abspath $(f))") $(RESULT)

reproduce: env model ## Run the commands of the claims again: make reproduce CLAIM=C3
	$(BIN)/passgrad reproduce $(CLAIM)

run: env model ## Run one notebook: make run NB=toy PROFILE=smoke
	@test -n "$(NB)" || { echo "name a notebook: make run NB=toy PROFILE=smoke" >&2; exit 2; }
	$(BIN)/passgrad run "$(NB)" --profile $(PROFILE)

results: env model ## Recompute what ships in data/results (hours; NB=training_pass_at_k for one chapter)
	for chapter in $(or $(NB),$(STORED)); do \
	  files=(); \
	  case "$$chapter" in language_sampled|math_conflict) files+=(-p gsm8k_path="$(abspath $(GSM8K))");; esac; \
	  case "$$chapter" in math_conflict) files+=(-p math_path="$(abspath $(MATH))");; esac; \
	  case "$$chapter" in real_rates) files+=(-p path="$(abspath $(RATES))");; esac; \
	  case "$$chapter" in real_run) files+=(-p path="$(abspath $(RUN))" -p tables_path="$(abspath $(TABLES))");; esac; \
	  $(BIN)/passgrad run "$$chapter" --profile cpu -p recompute=true $${files[@]+"$${files[@]}"}; \
	done
	$(MAKE) figures
	$(BIN)/passgrad verify

# Without their dependencies, beside the environment: what their registries import and no more.
ADAPTERS := verl==0.9.1 skyrl==0.3.0 ray==2.60.0 tensordict==0.15.3 torchdata==0.11.0 jaxtyping==0.3.11 \
  loguru==0.7.3 omegaconf==2.4.0 codetiming==1.4.0 msgpack==1.2.4 pyvers==0.2.3

adapters: env ## Check the adapters against verl and SkyRL themselves: half a minute
	$(BIN)/python -m pip install --disable-pip-version-check -q --no-deps --upgrade --target _build/adapters $(ADAPTERS)
	PYTHONPATH=_build/adapters $(BIN)/python -m pytest -q -p no:cacheprovider -W ignore tests/adapters

study: env ## Make the records of the training study that are not stored yet (seven hours of one core)
	OMP_NUM_THREADS=1 $(BIN)/python -c "from passgrad_book.experiments.study.plan import main; main()"

second: model-second ## Compute what is missing of the second real model (two hours of one core, 12 GB)
	$(BIN)/python scripts/second_model.py $(ARGS)

figures: env ## Draw the figure of the README from the stored results
	$(BIN)/python scripts/readme_figure.py

# Where an index has no wheel of the oldest torch, its pin is raised in requirements/lower-bounds.txt.
lower-bounds: ## Test the core with the oldest packages that pyproject.toml admits (once a release)
	rm -rf _build/lower
	$(PYTHON) -m venv _build/lower
	_build/lower/bin/python -m pip install --disable-pip-version-check --progress-bar off -r requirements/lower-bounds.txt
	_build/lower/bin/python -m pip install --disable-pip-version-check --no-deps -e .
	cd tests && PASSGRAD_ROOT=.. PASSGRAD_TEST_ALLOWANCE=9 OMP_NUM_THREADS=1 ../_build/lower/bin/python -m pytest --tier test -q -p no:cacheprovider -W default::DeprecationWarning -c ../pyproject.toml $(LOWER)
	_build/lower/bin/passgrad plan --help > /dev/null

lock: env ## Resolve requirements/requirements.in again into lock.txt
	$(BIN)/python requirements/make_lock.py

clean: ## Remove all that can be made again, the environment excepted
	rm -rf _build .pytest_cache .ruff_cache .mypy_cache .hypothesis .import_linter_cache

# --- parts of the above

env: $(VENV)/.installed ## Make .venv from the lock (again only when the lock changed)

$(VENV)/.installed: requirements/lock.txt pyproject.toml
	@command -v $(PYTHON) > /dev/null || { echo "$(PYTHON) is not on the path; install it, or name another Python >= 3.11: make PYTHON=python3.12" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing $$(grep -c == requirements/lock.txt) packages from requirements/lock.txt (about two minutes, 3 GB)"
	$(BIN)/python -m pip install --no-deps --disable-pip-version-check --progress-bar off -r requirements/lock.txt
	# The build tool is in the lock too, so nothing is fetched behind its back.
	$(BIN)/python -m pip install --no-deps --disable-pip-version-check --no-build-isolation -e .
	@touch $@

model: env ## Fetch and check the small language model
	$(BIN)/passgrad models fetch $(MODEL)

model-second: env ## Fetch and check the second one (480 MB, 2.5 GB on disk): to recompute, no more
	$(BIN)/passgrad models fetch $(SECOND)

lint: env ## ruff: its rules and its format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: env ## mypy on src
	$(BIN)/mypy

floors: env ## import-linter: no module imports one of a higher floor
	$(BIN)/lint-imports

pytest: env $(if $(filter quick,$(TIER)),,model) ## The tests alone: make pytest ARGS="-k toy"
	$(if $(JOBS),OMP_NUM_THREADS=1) $(BIN)/python -m pytest --tier $(TIER) $(if $(JOBS),-n $(JOBS) --dist loadgroup) $(if $(COVER),$(LINES)) $(ARGS)
