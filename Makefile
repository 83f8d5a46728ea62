# The two commands of the README are `make demo` and `make test`. Each makes its
# own virtual environment; `make help` lists the rest.

PYTHON ?= python3
# Another Django than the newest that the interpreter takes: make test DJANGO=5.2
DJANGO ?=
VENV ?= .venv$(if $(DJANGO),-django$(DJANGO))
ARGS ?=
# How many processes run the tests: more than cores, for most tests wait. `make test
# ARGS=-n0` runs them in one.
WORKERS ?= 4
RUN = $(VENV)/bin/

.DEFAULT_GOAL := help
.PHONY: help demo test again ceph npm drills servers lint format bench docs clean

help: ## List these targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

demo: $(VENV)/.demo ## Run the example site, kill servers, show what became of files and rows
	@$(RUN)python examples/photos/demo.py $(ARGS)

test: $(VENV)/.test ## Run the whole suite; `make test ARGS="-k journal"` for a part
	@$(RUN)python tools/pure_coverage.py
	$(RUN)python -m pytest -n $(WORKERS) $(ARGS)

again: $(VENV)/.test ## The suite on a second Django: without long drills, and what looks from outside
	$(RUN)python -m pytest -n $(WORKERS) -m "not (drill or sites or ceph or npm or drills)" $(ARGS)

ceph: $(VENV)/.test ## Run what the suite asks of object stores on Ceph; `tools/servers.sh ceph` installs it
	$(RUN)python -m pytest -n 2 -m ceph $(ARGS)

npm: $(VENV)/.test ## Publish front ends from npm, and open them in a browser; needs Node, and the network
	$(RUN)python -m pytest -m npm $(ARGS)

drills: $(VENV)/.test ## Break the servers of a whole site under load, one after the other
	$(RUN)python -m pytest -n 0 -m drills $(ARGS)

servers: ## Install the distribution's web servers that the live tests use
	@tools/servers.sh

lint: $(VENV)/.lint ## Check style, types and the arrows of imports
	$(RUN)ruff check .
	$(RUN)ruff format --check .
	$(RUN)mypy
	$(RUN)lint-imports

format: $(VENV)/.lint ## Put the code into the agreed form
	$(RUN)ruff format .
	$(RUN)ruff check --fix .

bench: $(VENV)/.bench ## Measure ours and the peers' side by side
	$(RUN)python -m benchmarks $(ARGS)

docs: $(VENV)/.docs ## Build the documentation, warnings are errors
	$(RUN)sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo "Open docs/_build/html/index.html"

clean: ## Remove the virtual environments and what was built
	rm -rf .venv* docs/_build dist examples/photos/var

$(VENV)/bin/python:
	@PYTHON="$(PYTHON)" tools/venv.sh $(VENV)

# A stamp for each purpose: set up again only when pyproject.toml has changed.
$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	@tools/install.sh $(VENV) demo "$(DJANGO)"
$(VENV)/.test: pyproject.toml | $(VENV)/bin/python
	@tools/install.sh $(VENV) test "$(DJANGO)"
$(VENV)/.lint: pyproject.toml | $(VENV)/bin/python
	@tools/install.sh $(VENV) lint "$(DJANGO)"
$(VENV)/.bench: pyproject.toml | $(VENV)/bin/python
	@tools/install.sh $(VENV) bench "$(DJANGO)"
$(VENV)/.docs: pyproject.toml | $(VENV)/bin/python
	@tools/install.sh $(VENV) docs "$(DJANGO)"
