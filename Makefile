# Each target sees to its own environment: on a fresh clone, `make demo` alone is enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check $(addprefix --constraint ,$(LOCK))
TORCH := torch>=2.9,<2.14
DATA ?= hippocampus_mr
MINUTES ?= 3
INPUTS ?= 10000
# a file of exact versions to install, such as constraints.txt; without one, the newest that pyproject.toml allows
LOCK ?=
# a process a core, of one thread each; the tests of one file stay together, since they share what they train
PARALLEL ?= -n logical --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help venv demo test pacs-test label-test wheel-test check format docs bench fuzz lock

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-10s %s\n", $$1, $$2}'

venv: $(STAMP) ## create .venv with the package (editable) and every extra

demo: $(STAMP) ## segment both hippocampi of a real MR volume
	$(BIN)/medsegdiff demo

test: $(STAMP) ## run the tests, but for the long ones, which `make check` runs too
	$(BIN)/python -m pytest $(PARALLEL) -m "not long"

pacs-test: $(STAMP) ## from a real Orthanc server and back to it; says how to install one
	$(BIN)/python -m pytest tests/pacs --need-orthanc

label-test: $(STAMP) ## Slicer's calls to a MONAI Label server, in an environment of its own: minutes
	$(BIN)/python -m pytest tests/integrations --label-env build/label_env

wheel-test: $(STAMP) ## build the wheel, install it without extras, and try it: minutes
	$(BIN)/python -m pytest tests/packaging --wheel-env build/wheel_env

check: $(STAMP) ## lint, types, import levels, doctests, tests: what CI runs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_import_levels.py
	$(BIN)/python -m pytest $(PARALLEL) --doctest-modules medsegdiff tests

docs: $(STAMP) ## the documentation as a site, in build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(STAMP) ## compare with other methods: DATA=hippocampus_mr MINUTES=3 (of training each)
	$(BIN)/python -m benchmarks.accuracy --data $(DATA) --minutes $(MINUTES)

fuzz: $(STAMP) ## damaged files, descriptions, bundles and answers, INPUTS=10000 of them
	$(BIN)/python -m tests.fuzz --inputs $(INPUTS)

lock: $(STAMP) ## write the versions that are installed here into constraints.txt
	{ sed -n 1p constraints.txt; $(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' | sort -f; } > build.txt
	mv build.txt constraints.txt

format: $(STAMP) ## let ruff sort the imports and lay out the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "medsegdiff needs Python 3.11 to 3.13; say which by: make PYTHON=python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || { echo "creating $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "installing medsegdiff and its libraries into $(VENV) (a few minutes the first time)"
	$(PIP) "$(TORCH)"
	$(PIP) -e ".[all,dev]"
	@touch $@
