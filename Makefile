# Every target works in a fresh clone: .ci/bootstrap finds a Python and keeps .venv, once for all of them.

BOOTSTRAP := bash .ci/bootstrap
PYTHON_IN_VENV := .venv/bin/python
ARGS ?=

# pyright would otherwise ask the network, each time, whether there is a newer pyright.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.DEFAULT_GOAL := help
.PHONY: help demo test bench chaos fuzz soak long-notebooks long-programs parity long-oracle lint types format clean

help: ## Show this list
	@echo 'make TARGET [ARGS="..."] [PYTHON=/path/to/python3]'
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-15s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo 'The first use of a target installs what it needs into .venv, and nothing elsewhere.'
	@echo 'ARGS go to the program behind the target:   make test ARGS="-k cancel -x"'
	@echo 'PYTHON names the interpreter for .venv:     make test PYTHON=python3.12'

# Workers start from source files each time where Python is told to write no bytecode, and then take half
# as long again; pytest then rewrites each file of the tests anew, in each of its processes. An installed
# package has its bytecode; so shall a checkout.
unexport PYTHONDONTWRITEBYTECODE
COMPILE := -m compileall -q schemas/pyrepl3_schemas pyrepl3_worker pyrepl3_client

# The suites start thousands of processes, and wait for them: twice as many runs as there are cores keep these
# busy. Files stay whole: what they set up for many tests is shared.
CORES := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
IN_PARALLEL := --numprocesses=$(shell echo $$(($(CORES) * 2))) --maxprocesses=4 --dist=loadfile

demo: ## See it work: a worker, live output, a cancellation
	@$(BOOTSTRAP)
	@$(PYTHON_IN_VENV) $(COMPILE)
	@$(PYTHON_IN_VENV) -m pyrepl3_client.demo $(ARGS)

test: ## Run the tests
	@$(BOOTSTRAP) test
	@$(PYTHON_IN_VENV) $(COMPILE)
	@$(PYTHON_IN_VENV) -m pytest $(IN_PARALLEL) --durations=5 --durations-min=1 $(ARGS)

chaos: ## Kill workers and programs of durable sessions; ARGS="--seed 1 --sessions 8 --cells 1000"
	@$(BOOTSTRAP) test
	@$(PYTHON_IN_VENV) $(COMPILE)
	@$(PYTHON_IN_VENV) -m tests.stress.chaos $(ARGS)

fuzz: ## Send a million mutated frames to both sides; ARGS="--seed 1 --target worker"
	@$(BOOTSTRAP) test
	@$(PYTHON_IN_VENV) $(COMPILE)
	@$(PYTHON_IN_VENV) -m tests.stress.fuzz $(ARGS)

soak: ## Run 100,000 executions in 50 sessions, and look what is left; ARGS="--seed 1 --flood 1000000000"
	@$(BOOTSTRAP) test
	@$(PYTHON_IN_VENV) $(COMPILE)
	@$(PYTHON_IN_VENV) -m tests.stress.soak $(ARGS)

long-notebooks: ## Kill notebooks of many libraries at each of their cells; ARGS="-k sales"
	@$(BOOTSTRAP) test notebooks
	@$(PYTHON_IN_VENV) $(COMPILE)
	@$(PYTHON_IN_VENV) -m pytest -m long -rP tests/integration/recovery/test_notebooks.py $(ARGS)
long-programs: ## Run test suites of CPython and libraries in sessions and outside, and compare; ARGS="--only toolz"
	@$(BOOTSTRAP) test
	@$(PYTHON_IN_VENV) $(COMPILE)
	@$(PYTHON_IN_VENV) -m tests.programs $(ARGS)
parity: ## Run notebooks in a Jupyter kernel and here, and compare; ARGS="--notebook magics --all"
	@$(BOOTSTRAP) test notebooks parity
	@$(PYTHON_IN_VENV) $(COMPILE)
	@$(PYTHON_IN_VENV) -m tests.parity $(ARGS)
long-oracle: ## Checkpoint and kill random programs; PYREPL3_SEED=1 PYREPL3_EXAMPLES=5000, every fault put back
	@$(BOOTSTRAP) test
	@$(PYTHON_IN_VENV) $(COMPILE)
	@$(PYTHON_IN_VENV) -m pytest -m long -rP tests/worker/checkpoint/oracle tests/integration/recovery/oracle $(ARGS)

bench: ## Measure beside the peers; ARGS="--quick" for seconds instead of minutes
	@$(BOOTSTRAP) bench
	@$(PYTHON_IN_VENV) $(COMPILE)
	@$(PYTHON_IN_VENV) -m benchmarks $(ARGS)

lint: ## Check style and format; both, even if the first finds something
	@$(BOOTSTRAP) lint
	@status=0; \
	.venv/bin/ruff check $(ARGS) || status=1; \
	.venv/bin/ruff format --check || status=1; \
	exit $$status

types: ## Check types, those of tests and benchmarks too
	@$(BOOTSTRAP) lint test bench
	@$(PYTHON_IN_VENV) -m pyright --pythonpath $(PYTHON_IN_VENV) $(ARGS)

format: ## Reformat, and fix what can safely be fixed
	@$(BOOTSTRAP) lint
	@.venv/bin/ruff check --fix --exit-zero --quiet $(ARGS)
	@.venv/bin/ruff format

clean: ## Remove .venv and everything else that can be made again
	@rm -rf .venv .pytest_cache .ruff_cache .hypothesis build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
