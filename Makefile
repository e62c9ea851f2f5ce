# `make quickstart` and `make test` do all the set-up: they need Python 3.11 or later, make and a C compiler.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
NATIVE := $(wildcard kernels/cpu/*.[ch] kernels/cpu/*.inc)

export PYTHONSAFEPATH = 1

.PHONY: quickstart test check sanitize lint types docs bench-gpu base clean

quickstart: $(VENV)/installed
	$(BIN)/lowrank quickstart --out runs/quickstart

# Two processes of one thread each; the tests of a module stay together, for what they share is made once.
PYTEST = OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n 2 --dist loadscope --durations=20

test: $(VENV)/installed-test
	$(PYTEST) $(PYTEST_FLAGS)

# What needs no process of its own, with the best instruction set alone.
check: $(VENV)/installed-test
	$(PYTEST) -m 'not slow' $(PYTEST_FLAGS)

# The tests of the C library, of a build that finds what is read or written out of bounds, and what C leaves undefined.
NATIVE_TESTS = tests/kernels/test_cpu_attention.py tests/kernels/test_cpu_blocks.py \
	tests/kernels/test_cpu_decode_attention.py tests/kernels/test_cpu_formats.py tests/kernels/test_cpu_linears.py \
	tests/kernels/test_cpu_products.py tests/kernels/test_cpu_tiles.py tests/kernels/test_lean.py
SANITIZERS = $(shell $(CC) -print-file-name=libasan.so) $(shell $(CC) -print-file-name=libubsan.so)

build/sanitized/native.so: $(NATIVE)
	mkdir -p build/sanitized
	$(CC) -shared -fPIC -g -O1 -std=gnu11 -fopenmp -ffp-contract=off -fvisibility=hidden -fno-omit-frame-pointer \
		-fsanitize=address,undefined -fno-sanitize-recover=undefined -o $@ kernels/cpu/*.c -lm

sanitize: $(VENV)/installed-test build/sanitized/native.so
	LD_PRELOAD="$(SANITIZERS)" ASAN_OPTIONS=detect_leaks=0 LOWRANK_CPU_LIBRARY="$(CURDIR)/build/sanitized/native.so" \
		$(BIN)/python -m pytest $(PYTEST_FLAGS) $(NATIVE_TESTS)

lint: $(VENV)/installed-test types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The site, in build/site: open build/site/index.html.
docs: $(VENV)/installed-test
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

# Trains the embedded base from nothing, about an hour on two cores; interrupted, it goes on where it was.
base: $(VENV)/installed
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m lowrank.train.pretrain lowrank/base/recipe.toml runs/base
	cp runs/base/consolidated.00.pth runs/base/params.json runs/base/tokenizer.model runs/base/log.jsonl lowrank/base/
	cp runs/base/curve.svg docs/base.svg

# Needs a CUDA GPU and a Python with torch and triton (make bench-gpu PYTHON=python3); installs and fetches nothing. The
# rows are added to bench/results/, and to the folder $OUT if that is set.
bench-gpu: types
	PYTHONPATH=build/types $(PYTHON) -m lowrank.bench.bench_kernels --device cuda --peers --shapes full \
		--out bench/results $(if $(OUT),--out "$(OUT)") $(BENCH_FLAGS)
	PYTHONPATH=build/types $(PYTHON) -m lowrank.bench.bench_fused --device cuda --out bench/results $(if $(OUT),--out "$(OUT)")
	PYTHONPATH=build/types $(PYTHON) -m lowrank.bench.bench_decode --shape 7b --device cuda --out bench/results $(if $(OUT),--out "$(OUT)")

# Type checkers cannot follow an editable install that maps folders to sub-packages: they get the package as links.
types:
	mkdir -p build/types/lowrank
	ln -sfn "$(CURDIR)"/lowrank/* "$(CURDIR)"/kernels "$(CURDIR)"/model "$(CURDIR)"/train "$(CURDIR)"/eval "$(CURDIR)"/bench build/types/lowrank/

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "lowrank needs Python 3.11 or later: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml constraints.txt $(NATIVE) | $(VENV)/bin/python
	$(BIN)/pip install --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/installed-test: pyproject.toml constraints.txt $(NATIVE) | $(VENV)/bin/python
	$(BIN)/pip install --disable-pip-version-check -c constraints.txt -e '.[test,oracles,data,gguf,eval,lm-eval,docs]'
	touch $@ $(VENV)/installed

clean:
	rm -rf build dist runs *.egg-info
