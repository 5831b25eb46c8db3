# Two commands need nothing but Python 3.11+ and a package index:  make demo  and  make test.
# Both make their own .venv with pip and constraints.txt first; that is skipped while it is up to date.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
DATA ?=
WORKERS ?= 2
BIN := .venv/bin
READY := .venv/.ready

.PHONY: help demo test lint types contracts unit format docs clean

help:
	@echo "make demo              a synthetic log: teacher, plain student, DE, RRD, DE-RRD, a table and report.html"
	@echo "make demo DATA=path    the same on a log of yours; a run file (*.toml) is run by recdistill distill"
	@echo "make test              lint, format, types, import contracts, tests: what CI runs"

demo: $(READY)
ifeq ($(suffix $(DATA)),.toml)
	$(BIN)/recdistill distill "$(DATA)"
else
	$(BIN)/recdistill demo $(if $(DATA),--data "$(DATA)")
endif

test: lint types contracts unit

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/pyright

contracts: $(READY)
	$(BIN)/lint-imports

unit: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) --dist loadfile

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY)
	$(BIN)/zensical build

clean:
	rm -rf .venv site

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer with venv is needed: make PYTHON=/path/to/python3.11"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $(READY)
