# Every target creates .venv first if it is missing or out of date; test, check, and docs add the development requirements.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEV := $(VENV)/.installed-dev
ARGS ?=

.PHONY: install train evaluate test check docs clean

install: $(STAMP)

train: $(STAMP)
	$(BIN)/python train.py $(ARGS)

evaluate: $(STAMP)
	$(BIN)/python evaluate.py $(ARGS)

# two processes with one thread each are faster than one process with two threads
test: $(DEV)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# the site, in docs/_build; its source folder is the repository root
docs: $(DEV)
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -c docs . docs/_build $(ARGS)

clean:
	rm -rf $(VENV) docs/_build docs/api docs/settings.md .pytest_cache .ruff_cache .mypy_cache .import_linter_cache

$(STAMP): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if (3, 11) <= v < (3, 14) else \
		f"{sys.executable} is Python {v.major}.{v.minor}: 3.11 to 3.13 is required. Try  make PYTHON=python3.12 $(MAKECMDGOALS)")'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@

$(DEV): $(STAMP) requirements-dev.txt
	$(BIN)/python -m pip install --quiet --requirement requirements-dev.txt
	@touch $@
