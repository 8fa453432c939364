# Every target does its own set-up; the second run finds it done.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
COSTOPT_DATA ?= ../shared/data

.PHONY: setup demo test lint docs bench plots release-check clean
setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[langchain,llamaindex,redis,minilm,local,structured,served]" --group dev
	touch $(READY)

demo: $(READY)
	$(BIN)/costopt demo

# What claims a time (tests/timed.py) runs alone; the rest in more processes than two cores, for tests also wait.
test: $(READY)
	$(BIN)/python -m pytest -n 3 -m "not flaky"
	$(BIN)/python -m pytest -m flaky

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# 'make bench ONLY=judge' measures one section anew and leaves the others as they are.
bench: $(READY)
	COSTOPT_DATA=$(COSTOPT_DATA) $(BIN)/python -m cookbook.benchmarks $(if $(ONLY),--only $(ONLY))

# RESULTS.md and its plots again from what was measured; needs no data.
plots: $(READY)
	$(BIN)/python -m cookbook.benchmarks --draw

# Builds what would be published, and installs it into empty environments: each extra alone, newest and oldest.
# 'make release-check ONLY="redis served"' looks at these extras only. Needs a package index, as 'make setup' does.
release-check: $(READY)
	$(BIN)/python -m cookbook.release $(ONLY)

clean:
	rm -rf $(VENV) dist site .mypy_cache .ruff_cache .hypothesis
