# raysk in .venv. `make tune` goes from images to a leaderboard; `make check` must pass before a commit.

PYTHON ?= $(shell python3.11 -c 'import sys; print(sys.executable)' 2>/dev/null || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help install install-test tune lint test check soak wheel

help:
	@echo 'make install   install raysk and its pinned dependencies into $(VENV)'
	@echo 'make tune      install, then run raysk tune --space supcon on drawn lesions'
	@echo 'make test      install the test extra, then run the test suite'
	@echo 'make check     run ruff, mypy and the test suite'
	@echo 'make soak      run the long tests, or those that SOAK names'
	@echo 'make wheel     build the wheel in dist/'

$(VENV)/pyvenv.cfg:
	$(PYTHON) -m venv $(VENV)

# torch is installed first and alone: pip takes the build for this machine, and the other packages reuse it.
$(VENV)/torch.stamp: constraints.txt $(VENV)/pyvenv.cfg
	$(PIP) install "$$(grep '^torch==' constraints.txt)" --constraint constraints.txt
	@touch $@

$(VENV)/raysk.stamp: pyproject.toml constraints.txt $(VENV)/torch.stamp
	$(PIP) install --editable . --constraint constraints.txt
	@touch $@

$(VENV)/test.stamp: $(VENV)/raysk.stamp
	$(PIP) install --editable '.[test]' --constraint constraints.txt
	@touch $@

install: $(VENV)/raysk.stamp

install-test: $(VENV)/test.stamp

tune: install
	$(BIN)/raysk tune --space supcon

lint: install-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# One process for the tests that start Ray, and one for the others; one thread each, since the networks of the tests
# are too small for more.
test: install-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not soak' --numprocesses 2 --durations 25

check: lint test

soak: install-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m soak --timeout 3600 $(SOAK)

wheel: install-test
	$(BIN)/python -m build --wheel --no-isolation
