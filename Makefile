# Everything runs in .venv, which `setup` makes and brings up to date when requirements.txt changes.
PYTHON ?= python3
# Python compiles a module when it is first imported, which most of the packages' modules never are.
INSTALL = .venv/bin/python -m pip install --disable-pip-version-check --no-compile

.DEFAULT_GOAL := help
.PHONY: help setup demo base serve test test-faults check

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST)

setup: .venv/installed  ## install what running needs into .venv

demo: setup  ## the videos of data/sample by the fast recipe: how much faster, and still the same? into out/demo
	.venv/bin/python -m bench demo --out out/demo || test $$? = 5

base: setup  ## the same videos by the base model, into out/base
	.venv/bin/python infer.py --data data/sample --out out/base

# The default recipe runs on the fp32 graphs, of which export_onnx.py keeps what is built already.
serve: setup .venv/serve  ## make videos as a service, with a page to watch them on, at http://127.0.0.1:8000
	.venv/bin/python export_onnx.py
	.venv/bin/python -m serve

# One thread in each process: threads of several processes that share cores wait for each other most of the time.
test:  ## run all tests that need no GPU
	@$(MAKE) --no-print-directory -j2 .venv/all .venv/browser
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test-faults: setup .venv/test  ## every fault of docs/faults.md, as often as it says, with figures
	VIVACE_FAULTS=full .venv/bin/python -m pytest -q -m "faults and not gpu"

check: setup .venv/test  ## style and architecture only, seconds
	.venv/bin/python -m ruff check .
	.venv/bin/python -m pytest -q tests/test_architecture.py

# The tests of the report's page need a Chromium, which no wheel brings. Where it cannot be had they are skipped.
.venv/browser:
	@mkdir -p .venv
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || { \
	    [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && echo "installing chromium for the tests" && \
	    export DEBIAN_FRONTEND=noninteractive && \
	    { apt-get update -q; apt-get install -y -q chromium; } </dev/null >/dev/null 2>&1; } || true
	@touch $@

.venv/test: requirements-test.txt requirements-finish.txt .venv/installed
	$(INSTALL) -r requirements-test.txt -r requirements-finish.txt
	@touch $@

.venv/all: requirements-test.txt requirements-finish.txt requirements-cluster.txt requirements-serve.txt .venv/installed
	$(INSTALL) $(patsubst %,-r %,$(filter %.txt,$^))
	@touch .venv/test .venv/serve $@

.venv/serve: requirements-serve.txt .venv/installed
	$(INSTALL) -r requirements-serve.txt
	@touch $@

.venv/installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 14))' || { \
	    echo "Vivace needs Python 3.10 to 3.13, and $(PYTHON) is $$($(PYTHON) --version 2>&1);" \
	         "name another: make setup PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(INSTALL) -r requirements.txt
	@touch $@
