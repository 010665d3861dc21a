# `make sweep` and `make test` need only Python >= 3.11, make and a C compiler.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: sweep test test-all lint lock clean

sweep: .venv/ready
	$(BIN)/python study/sweep.py

# Two processes of one thread each, a file to one of them; what takes all cores, sweeps and their faults, stays alone.
PARALLEL := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2

test: .venv/ready
	$(PARALLEL) --dist loadfile -m "not slow"

test-all: test
	$(PARALLEL) -m slow tests/analysis
	$(BIN)/python -m pytest -m slow --ignore tests/analysis

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-logo --no-cache
	$(BIN)/mypy

# torch comes first: deepspeed is built from source and looks at the torch it finds. With a GPU but without CUDA's
# compiler it would refuse to be installed, though none of its kernels is built.
.venv/ready: requirements.lock
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.11 ...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $$(grep -E '^(pip|setuptools|wheel)==' requirements.lock)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $$(grep -E '^torch==' requirements.lock)
	DS_BUILD_OPS=0 DS_IGNORE_CUDA_DETECTION=1 $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation -r requirements.lock
	touch $@

# The exact versions in .venv, without local build tags (torch 2.13.0+cpu -> 2.13.0) and without CUDA's packages.
lock:
	$(BIN)/python -m pip freeze --all | grep -vE '^(nvidia|cuda|triton)' | sed -E 's/\+cpu$$//' > requirements.lock

clean:
	rm -rf .venv results
