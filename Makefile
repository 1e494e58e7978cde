# make setup: .venv with torch and autoreid_fast, editable, its native libraries built
# make demo:  the whole method on synthetic pedestrians
# make test:  the tests;  make lint: style and types;  make bench: the kernels measured
#
# On a machine with CUDA the same commands take the CUDA build of torch and build the CUDA library.

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check --quiet
NATIVE := $(shell find csrc -type f) setup.py
WORKERS ?= auto

.PHONY: setup dev demo test lint format bench clean

setup: $(VENV)/.setup
dev: $(VENV)/.dev

$(VENV)/.torch:
	$(PYTHON) -m venv $(VENV)
	$(PIP) install $(TORCH) "setuptools>=77" wheel ninja pybind11
	touch $@

$(VENV)/.setup: $(VENV)/.torch pyproject.toml $(NATIVE)
	$(PIP) install --no-build-isolation --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.setup
	$(PIP) install --no-build-isolation --editable ".[dev]"
	touch $@

demo: setup
	$(BIN)/autoreid-fast demo

test: dev
	$(BIN)/python -m pytest -n $(WORKERS)

lint: dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $$(git ls-files '*.h' '*.cpp' '*.cu' '*.cuh')

format: dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $$(git ls-files '*.h' '*.cpp' '*.cu' '*.cuh')

bench: dev
	$(BIN)/autoreid-fast bench

clean:
	rm -rf $(VENV) build *.egg-info autoreid_fast/*.so
