# Shortcuts; the README has the same in plain lines. Each target sets up .venv first if it must.
#   make quickstart PYTHON=/path/to/python3.11    chooses the interpreter
#   make quickstart CORES=4                       limits the cores
#   make test PYTEST_ARGS="-k merge"              chooses tests

CORES ?= all
PYTEST_ARGS ?= --numprocesses auto --dist loadfile
RUN := .venv/bin/python -m

.DEFAULT_GOAL := help
.PHONY: help quickstart study test lint lock workflow development
# Targets share .venv; jobs of the workflow run in parallel anyway.
.NOTPARALLEL:

help: ## Say what there is
	@awk -F ' *## *' '/^[a-z]+:.*## / { sub(/:.*/, "", $$1); printf "make %-11s %s\n", $$1, $$2 }' Makefile

quickstart: workflow ## Run the example on a real engine without a GPU: about three minutes, then seconds
	@$(RUN) snakemake --cores $(CORES)
	@$(RUN) scripts.show_experiment results/experiments/quickstart

study: workflow ## Run the top_p/top_k experiment again and bring docs/top-p-top-k.md up to date
	@$(RUN) snakemake --cores $(CORES) --configfile config/experiments/top-p-top-k.yaml
	@$(RUN) scripts.write_study_page results/experiments/top-p-top-k docs/top-p-top-k.md

test: development ## Run the tests
	@$(RUN) pytest $(PYTEST_ARGS)

lint: development ## Check style, types and rules
	@status=0; \
	for check in "ruff check ." "ruff format --check ." "mypy" "snakefmt --check Snakefile rules" "snakemake --lint"; do \
		echo "$$check"; $(RUN) $$check || status=1; \
	done; exit $$status

lock: workflow ## Make the locks in envs/ from their sources
	@$(RUN) scripts.lock_environment

workflow:
	@scripts/setup.sh workflow

development:
	@scripts/setup.sh development
