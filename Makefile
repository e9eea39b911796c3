# make check: what must hold for every change (also run by .ci/run). make check-all: the long tests too.
PY ?= .venv/bin/python

check: lint
	$(PY) -m pytest -n 2

check-all: lint
	$(PY) -m pytest -n 2 -m "slow or not slow"

lint:
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

.PHONY: check check-all lint
