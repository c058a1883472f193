# You need only `make demo` and `make test`; both create .venv first.
#   PYTHON=python3.12 make test          another interpreter (3.11 or newer)
#   TORCH_BACKEND=cpu make demo          CPU wheels of torch if the index has them (smaller download)

PYTHON ?= python3
TORCH_BACKEND ?=
BIN := .venv/bin
INSTALLED := .venv/.installed
COMPAT := .venv/compat-transformers-4.57
export TOKENIZERS_PARALLELISM := false
export HF_HUB_OFFLINE ?= 1

# Keep compiled modules: otherwise each of hundreds of processes compiles torch, 26 seconds of CPU instead of 10.
unexport PYTHONDONTWRITEBYTECODE

# Tests run on every core, each file on one, as its tests share trained runs. A core needs 4 GB.
# Files with slow tests run first (tests/conftest.py); otherwise the other cores would wait at the end.
WORKERS ?= logical
ON_ALL_CORES := -n $(WORKERS) --maxprocesses 6 --dist loadfile --no-loadscope-reorder
test check: export OMP_NUM_THREADS := 1

.PHONY: install demo demo-finetune test test-gpu check soak fuzz lint bench bench-gpu clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt install.sh
	@PYTHON="$(PYTHON)" TORCH_BACKEND="$(TORCH_BACKEND)" sh install.sh

demo: $(INSTALLED)
	$(BIN)/python -m demo

# fine-tunes the demo's model on three tasks and writes a report; after `make demo`
demo-finetune: $(INSTALLED)
	$(BIN)/python -m demo.finetune

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports --no-cache
	$(BIN)/hadolint --failure-threshold style docker/Dockerfile

check: lint
	$(BIN)/python -m pytest -q $(ON_ALL_CORES) -m "not slow and not gpu"

test: lint $(COMPAT)
	$(BIN)/python -m pytest $(ON_ALL_CORES) --durations=15 -m "not gpu"

test-gpu: $(INSTALLED)
	$(BIN)/python -m pytest -m gpu

# kills a run over a hundred times, 60 saves, and a trainer five times: see tests/data/test_soak.py; then asks a server
# all kinds of things for an hour, or SOAK_MINUTES: see tests/serving/test_server_soak.py
soak: $(INSTALLED)
	KEBYT5_XM_SOAK=1 $(BIN)/python -m pytest tests/data/test_soak.py tests/model/test_checkpoints.py
	KEBYT5_XM_SOAK=1 $(BIN)/python -m pytest -s tests/serving/test_server_soak.py

# tens of thousands of damaged and restructured tables, images and recordings; FUZZ_EXAMPLES=N of each kind
fuzz: $(INSTALLED)
	KEBYT5_XM_FUZZ=$(or $(FUZZ_EXAMPLES),10000) $(BIN)/python -m pytest tests/data/test_fuzz_media.py tests/data/test_fuzz_tables.py tests/data/test_fuzz_names.py

# a second transformers, 4.57, for the tests that load an export with it
$(COMPAT): $(INSTALLED) constraints-4.57.txt
	$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --target $@ -r constraints-4.57.txt
	@touch $@

# measures a GPU, in five minutes: see benchmarks/gpu.py
bench-gpu: $(INSTALLED)
	$(BIN)/python -m benchmarks.gpu $(BENCH_GPU)

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv build *.egg-info
