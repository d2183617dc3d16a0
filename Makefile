# Requirements: Linux (`make train` also on macOS), Python 3.11 to 3.14 (with venv) and make. The main targets are `make train` and `make test`.
# Each target first installs its lock file into .venv if .venv is missing or older than the lock file.
# Another Python: make PYTHON=/path/to/python3.12 train; a .venv of another one is made again.
# Arguments for the target's command: make train ARGS="seed=1".

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help train test check lint types tensorboard bench gpu browser soak lock clean

VENV := .venv
RUN := $(VENV)/bin/python
ARGS ?=
# Two test processes with one torch thread each: with two threads each they are ten times slower on two cores.
PYTEST := OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 --dist loadscope

help:  ## print this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

train: $(VENV)/.installed-run  ## train the tutorial's network: python -m src.train $(ARGS), without ARGS seed=2, which ends on ohlol
	@$(RUN) -m src.train $(or $(ARGS),seed=2)
ifndef ARGS
	@printf '%s\n' "next, in this terminal after   . $(VENV)/bin/activate" \
	  "  python -m src.train data=tiny_shakespeare budget=3min    # a book, in three minutes" \
	  "  python -m src.train data=text data.path=my.txt           # a text of your own (docs/your_own_corpus.md)" \
	  "  make tensorboard                                         # curves, figures and samples in the browser"
endif

# mypy beside the tests: alone it leaves a core idle
test: lint  ## lint, types and all tests but the long ones of make soak
	@$(RUN) -m mypy & types=$$!; code=0; $(PYTEST) -m "not soak" $(ARGS) || code=$$?; wait $$types || code=$$?; exit $$code

check: lint types  ## lint, types and the fast tests: run this before each commit
	@$(PYTEST) -m "not slow and not soak" $(ARGS)

soak: $(VENV)/.installed-test  ## every long test: 200 kills at random times, one before and after each write, sweeps, ranks
	@UNROLL_KILLS=200 $(PYTEST) -m "soak or slow" $(ARGS)

lint: $(VENV)/.installed-test  ## run ruff on all files
	@$(RUN) -m ruff check .

types: $(VENV)/.installed-test  ## run mypy on src
	@$(RUN) -m mypy

tensorboard: $(VENV)/.installed-run  ## show the runs in the browser; it prints the address
	@echo "TensorBoard reads runs/ and prints its address in a few seconds. Another port: make tensorboard ARGS=--port=6007"
	@$(RUN) -m tensorboard.main --logdir runs --samples_per_plugin=text=1000,images=1000 $(ARGS)

bench: $(VENV)/.installed-run  ## measure the speed on this machine: python -m src.benchmark $(ARGS)
	@$(RUN) -m src.benchmark $(ARGS)

# Nothing is installed for another Python than that of .venv: it needs torch 2.11 or newer, and what src.train imports.
gpu: $(if $(filter $(VENV)/%,$(RUN)),$(VENV)/.installed-run)  ## what only a CUDA GPU can decide, limited to eight minutes; make gpu RUN=python3 takes that Python
	@$(RUN) -m tests.gpu.run $(ARGS)

# Only the TensorBoard tests need a browser, and they are skipped without one, so a failure here is not an error.
browser:  ## install Debian's chromium for the TensorBoard tests
	@if browser=$$(command -v chromium || command -v chromium-browser); then echo "browser: $$browser"; \
	elif ! command -v apt-get >/dev/null; then \
	  echo "browser: no apt-get here; install chromium with this system's package manager, or the browser tests are skipped"; \
	elif [ "$$(id -u)" != 0 ]; then \
	  echo "browser: this needs root: sudo apt-get install chromium; without it the browser tests are skipped"; \
	elif ! { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium; } >/dev/null 2>&1; then \
	  echo "browser: apt-get could not install chromium; the browser tests are skipped"; \
	else echo "browser: $$(command -v chromium)"; fi

# --- the virtual environment -----------------------------------------------------------------------------------------

# In a terminal pip shows its downloads (torch is large); otherwise it prints errors only.
PIP_INSTALL = $(RUN) -m pip install --disable-pip-version-check $$([ -t 1 ] || echo --quiet)
# No dependencies and no build environment: the lock file contains all packages, including setuptools.
PROJECT := --no-deps --no-build-isolation --editable .

$(VENV)/.installed-run: requirements.lock $(VENV)/bin/python | $(VENV)/bin/pip
	@echo "Installing what $< lists into $(VENV), once. torch alone may take minutes."
	@$(PIP_INSTALL) -r $< && $(PIP_INSTALL) $(PROJECT)
	@touch $@

$(VENV)/.installed-test: requirements-test.lock requirements.lock $(VENV)/bin/python | $(VENV)/bin/pip
	@echo "Installing what $< lists into $(VENV), once. torch alone may take minutes."
	@$(PIP_INSTALL) -r $< && $(PIP_INSTALL) $(PROJECT)
	@touch $(VENV)/.installed-run $@

# bin/python is a link that breaks when its Python is removed. pip is installed last: without it the venv is incomplete.
MAKE_VENV = @python=$$($(FIND_PYTHON)) && echo "Making $(VENV) with $$python" && "$$python" -m venv --clear $(VENV)
$(VENV)/bin/python: ; $(MAKE_VENV)
$(VENV)/bin/pip: | $(VENV)/bin/python ; $(MAKE_VENV)

# Its Python is not the one that PYTHON names: make it again.
IDENTITY := -c "import sys; print(sys.base_prefix, sys.version)"
ifneq ($(PYTHON),)
ifneq ($(shell $(PYTHON) $(IDENTITY) 2>&1),$(shell $(RUN) $(IDENTITY) 2>&1))
.PHONY: $(VENV)/bin/python
endif
endif

# Print the first of PYTHON, or of the usual names, that is new enough and has venv; otherwise print what to install.
FIND_PYTHON = without_venv=; \
	if [ -n "$(PYTHON)" ]; then set -- "$(PYTHON)"; \
	else set -- python3.11 python3.12 python3.13 python3.14 python3 python; fi; \
	for name in "$$@"; do \
	  "$$name" -c "import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))" >/dev/null 2>&1 || continue; \
	  if "$$name" -c "import ensurepip, venv" >/dev/null 2>&1; then echo "$$name"; exit 0; fi; \
	  without_venv=$${without_venv:-$$name}; \
	done; \
	if [ -n "$$without_venv" ]; then \
	  echo "$$without_venv has no venv module: install it (Debian, Ubuntu: apt-get install python3-venv), then run make again" >&2; \
	else \
	  echo "no Python 3.11 to 3.14 with venv among: $$*. Install one (Debian, Ubuntu: apt-get install python3 python3-venv)," >&2; \
	  echo "or name it: make PYTHON=/path/to/python3.11 $(or $(MAKECMDGOALS),train)" >&2; \
	fi; exit 1

# --- maintenance ----------------------------------------------------------------------------------------------------

# The test packages are resolved first and constrain the others, so that both lock files have the same versions.
# Local build tags (torch's +cpu) and CUDA's packages are removed: torch's own build requires the right ones.
lock:  ## resolve both lock files again from pyproject.toml (with Python 3.11)
	@set -e; python=$(or $(PYTHON),python3.11); rm -rf build/lock; mkdir -p build/lock; \
	resolve() { \
	  "$$python" -m venv build/lock/venv --clear; \
	  build/lock/venv/bin/python -m pip install --quiet torch==2.13.0 $$2; \
	  build/lock/venv/bin/python -m pip check; \
	  { grep '^#' $$1; build/lock/venv/bin/python -m pip list --format=freeze --exclude pip --exclude unroll-rnn \
	    | sed 's/+[a-z0-9.]*$$//' | grep -Ev '^(nvidia-|cuda-|triton=)'; } >build/lock/$$1; \
	}; \
	resolve requirements-test.lock "-e .[test,joblib,slurm,search,export,notebook,wandb,mlflow]"; \
	resolve requirements.lock "-e . -c build/lock/requirements-test.lock"; \
	mv build/lock/*.lock .; rm -rf build

clean:  ## remove .venv, caches and build files; never runs/
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find conf src tests -name __pycache__ -type d -prune -exec rm -rf {} +
