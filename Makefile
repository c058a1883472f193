# `make demo` and `make test` are all one needs; both create .venv first.
#   PYTHON=python3.12 make test          another interpreter (3.11 or newer)
#   TORCH_BACKEND=cpu make demo          CPU wheels of torch where an index has them (smaller download)

PYTHON ?= python3
TORCH_BACKEND ?=
BIN := .venv/bin
INSTALLED := .venv/.installed
COMPAT := .venv/compat-transformers-4.57
export TOKENIZERS_PARALLELISM := false
# On cores shared with others, waiting OpenMP threads that spin make small steps many times slower.
export OMP_WAIT_POLICY ?= PASSIVE
export HF_HUB_OFFLINE ?= 1

# Compiled modules are kept: without them each of hundreds of processes compiles torch, 26 seconds of CPU instead of 10.
unexport PYTHONDONTWRITEBYTECODE

# Tests on as many cores as there are, a file's on one of them, as its tests share what it has trained. A core wants 4 GB.
# Those of tests that start runs come first (tests/conftest.py), else one core would wait for the other at the end.
WORKERS ?= logical
ON_ALL_CORES := -n $(WORKERS) --maxprocesses 6 --dist loadfile --no-loadscope-reorder
test check: export OMP_NUM_THREADS := 1

.PHONY: install demo demo-finetune test test-gpu check soak fuzz lint bench bench-gpu clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt install.sh
	@PYTHON="$(PYTHON)" TORCH_BACKEND="$(TORCH_BACKEND)" sh install.sh

demo: $(INSTALLED)
	$(BIN)/python -m demo

# three tasks on what the demo has trained, and their report; after `make demo`
demo-finetune: $(INSTALLED)
	$(BIN)/python -m demo.finetune

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports --no-cache

check: lint
	$(BIN)/python -m pytest -q $(ON_ALL_CORES) -m "not slow and not gpu"

test: lint $(COMPAT)
	$(BIN)/python -m pytest $(ON_ALL_CORES) --durations=15 -m "not gpu"

test-gpu: $(INSTALLED)
	$(BIN)/python -m pytest -m gpu

# a run killed over a hundred times, saves killed 60 times, a trainer five times: see tests/data/test_soak.py
soak: $(INSTALLED)
	KEBYT5_XM_SOAK=1 $(BIN)/python -m pytest tests/data/test_soak.py tests/model/test_checkpoints.py

# tens of thousands of damaged and restructured tables, images and recordings; FUZZ_EXAMPLES=N of each kind
fuzz: $(INSTALLED)
	KEBYT5_XM_FUZZ=$(or $(FUZZ_EXAMPLES),10000) $(BIN)/python -m pytest tests/data/test_fuzz_media.py tests/data/test_fuzz_tables.py tests/data/test_fuzz_names.py

# transformers 4.57 beside the installed one, for the tests that load an export with it
$(COMPAT): $(INSTALLED) constraints-4.57.txt
	$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --target $@ -r constraints-4.57.txt
	@touch $@

# what a GPU shows, in five minutes: see benchmarks/gpu.py
bench-gpu: $(INSTALLED)
	$(BIN)/python -m benchmarks.gpu $(BENCH_GPU)

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv build *.egg-info
