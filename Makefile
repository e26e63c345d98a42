# The habits of this project. `make run` and `make test` need nothing but Python 3.10 or newer: the first call brings up
# a virtual environment. ARGS goes through, as in `make run ARGS="--preset seed"`.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=

.PHONY: run test lint bench clean

run: $(VENV)/ready
	$(VENV)/bin/python -m lth_sparse.run $(ARGS)

test: $(VENV)/ready
	$(VENV)/bin/python -m pytest $(ARGS)

lint: $(VENV)/ready
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

bench: $(VENV)/ready
	$(VENV)/bin/python -m pytest bench/ --benchmark-only $(ARGS)

# Requirements first: with them in place, setup.py can build csrc/ against the very torch that will load it.
$(VENV)/ready: requirements.txt requirements-dev.txt setup.py pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet -r requirements.txt -r requirements-dev.txt
	$(VENV)/bin/python -m pip install --quiet --no-build-isolation -e .
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
