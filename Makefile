# Two commands: `make study` and `make test`. Each sets up .venv first, from python3 >= 3.11.
PYTHON ?= python3
WORKDIR ?= runs/mnist_to_digits
VENV := .venv
BIN := $(VENV)/bin

.PHONY: study test clean

study: $(VENV)/study
	$(BIN)/python -m experiments.study --config=configs/mnist_to_digits.py --workdir=$(WORKDIR)

test: $(VENV)/test
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -n 2

$(VENV)/study: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("tlx needs Python 3.11 to 3.13, got %s: make PYTHON=python3.13 ..." % sys.version.split()[0] if not (3, 11) <= sys.version_info[:2] <= (3, 13) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

$(VENV)/test: $(VENV)/study
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
