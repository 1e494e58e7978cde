# make setup: .venv with torch and autoreid_fast, editable, its native libraries built
# make demo:  the whole method on synthetic pedestrians
# make test:  the tests;  make lint: style and types;  make bench: the kernels measured;  make docs: the site
# make sanitize, tsan, gpu-sanitize: the native code under sanitizers;  make fuzz: the readers of files
# make triton: the Triton kernels compiled ahead of time for every GPU architecture, not for one as in the tests
# make gpu-pack: what a run on a borrowed GPU machine brings along (docs/lab/tuning.md)
# make coverage: the lines that the tests run, in child processes too
# make mutation: small errors put into the code, and which of them no test sees
# make reliability: the tests that docs/lab/reliability.md names, in their long forms; faults injected, survived, lost
#
# On a machine with CUDA the same commands take the CUDA build of torch and build the CUDA library.

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check --quiet
NATIVE := $(shell find csrc -type f) setup.py
WORKERS ?= auto
SECONDS_EACH ?= 60
SAMPLE ?= 40

.PHONY: setup dev demo test lint format docs bench sanitize tsan gpu-sanitize fuzz coverage gpu-pack triton mutation reliability clean

setup: $(VENV)/.setup
dev: $(VENV)/.dev

$(VENV)/.torch:
	$(PYTHON) -m venv $(VENV)
	$(PIP) install $(TORCH) "setuptools>=77" wheel ninja pybind11
	touch $@

$(VENV)/.setup: $(VENV)/.torch pyproject.toml $(NATIVE)
	@echo "compiling the kernels: some minutes"
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

$(VENV)/.docs: $(VENV)/.setup
	$(PIP) install --no-build-isolation --editable ".[docs]"
	touch $@

docs: $(VENV)/.docs
	$(BIN)/sphinx-build -W --keep-going -q docs build/docs

bench: dev
	$(BIN)/autoreid-fast bench

sanitize: dev
	$(BIN)/python tests/tools/sanitize.py address

tsan: dev
	$(BIN)/python tests/tools/sanitize.py thread

gpu-sanitize: dev
	$(BIN)/python tests/tools/sanitize.py gpu

gpu-pack: dev
	$(BIN)/python -m autoreid_fast.benchmarks.harness.gpu.pack

coverage: dev
	$(BIN)/python -m pytest -n $(WORKERS) --cov --cov-report=term-missing:skip-covered --cov-fail-under=90

fuzz: dev
	$(PIP) install "atheris>=3,<4"
	for name in market1501 msmt17 cuhk03 folder config; do \
	  $(BIN)/python tests/tools/fuzz.py $$name $(SECONDS_EACH) || exit 1; done

triton: dev
	AUTOREID_FAST_LONG=1 $(BIN)/python -m pytest -n $(WORKERS) tests/ops/test_triton.py -k ahead_of_time

mutation: dev
	$(BIN)/python tests/tools/mutation.py --sample $(SAMPLE)

reliability: dev
	AUTOREID_FAST_LONG=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/reliability tests/training/test_loop.py \
	  tests/commands/test_resume.py tests/commands/test_runs.py tests/commands/test_evaluate.py tests/commands/test_search_gallery.py \
	  tests/commands/test_threads.py tests/data/test_cache.py \
	  tests/report/test_garbled.py tests/report/test_page.py tests/commands/test_garbled.py tests/runs \
	  tests/tables/test_tables.py tests/search/test_search_supernets.py tests/test_files.py tests/test_streams.py

clean:
	rm -rf $(VENV) build *.egg-info autoreid_fast/*.so
