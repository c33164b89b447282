# What a newcomer runs. Needs Python 3.11 or newer with venv, pip and make, and nothing else.
PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check

.PHONY: demo test check lint clean

demo: $(VENV)/.server  ## Three clients and a server train a digit classifier; results in runs/demo/.
	$(VENV)/bin/python scripts/demo $(ARGS)

test: $(VENV)/.dev  ## Every check and every test, with coverage.
	scripts/check

lint: $(VENV)/.dev  ## The checks without the tests.
	scripts/lint

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "PEMN needs Python 3.11 or newer, got " + sys.version)'
	$(PYTHON) -m venv $(VENV)

# Pinned: constraints.txt says which version of everything.
$(VENV)/.server: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install --quiet --constraint constraints.txt --editable '.[server]'
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@ $(VENV)/.server

clean:
	rm -rf $(VENV) runs build dist
