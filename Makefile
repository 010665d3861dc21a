# `make sweep` and `make test` need only Python >= 3.11, make and a C compiler.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: sweep test test-all test-faults lint lock clean

# The default study on the synthetic corpus.
sweep: .venv/ready
	$(BIN)/python study/sweep.py

# Two processes of one thread each; all tests of a file run in the same one.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

test: .venv/ready
	$(PYTEST) -m "not slow"

test-all: test
	$(PYTEST) -m "slow and not faults"

# Faults injected into real sweeps, one after the other, with the seconds until they recover; about half an hour.
test-faults: .venv/ready
	$(BIN)/python -m pytest -m faults --capture no

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-logo --no-cache
	$(BIN)/mypy

# torch comes first, since deepspeed is built from source against the installed torch. On a machine with a GPU and without
# CUDA's compiler, the two variables keep deepspeed's installation from failing; none of its kernels is built.
.venv/ready: requirements.lock
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.11 ...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $$(grep -E '^(pip|setuptools|wheel)==' requirements.lock)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $$(grep -E '^torch==' requirements.lock)
	DS_BUILD_OPS=0 DS_IGNORE_CUDA_DETECTION=1 $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation -r requirements.lock
	touch $@

# Lock the versions in .venv, without local build tags (torch 2.13.0+cpu -> 2.13.0) and without CUDA's packages.
lock:
	$(BIN)/python -m pip freeze --all | grep -vE '^(nvidia|cuda|triton)' | sed -E 's/\+cpu$$//' > requirements.lock

clean:
	rm -rf .venv results
