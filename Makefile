# `make study`, `make findings`, `make test`, and `make check`, which is a fast part of the latter. Each sets up a virtual environment first: .venv from
# python3, which has to be 3.11 to 3.13; with PYTHON=python3.13 one of that version's own, .venv-3.13.
PYTHON ?= python3
WORKDIR ?= runs/mnist_to_digits

# pyenv runs its python3.13 only for who asks for 3.13.
ifneq (,$(filter python3.%,$(PYTHON)))
export PYENV_VERSION := $(PYTHON:python%=%)
endif
VERSION := $(shell PYENV_VERSION=$(PYENV_VERSION) $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
VENV := .venv$(if $(filter python3,$(PYTHON)),,-$(VERSION))
BIN := $(VENV)/bin

# What `make check` leaves out: every backbone, config and added weight once more, whole studies, other numbers of devices.
SLOW := tests/test_configs.py tests/peft $(addprefix tests/backbones/test_,contract.py gradients.py parity_text.py) \
  $(addprefix tests/study/test_,run.py processes.py weights.py trust.py evaluation.py levels.py extend.py values.py texts.py \
  use.py form.py growth.py) $(addprefix tests/train/test_,devices.py prefix.py stream.py)

.PHONY: study findings test check clean

study: $(VENV)/study-$(VERSION)
	$(BIN)/python -m experiments.study --config=configs/mnist_to_digits.py --workdir=$(WORKDIR)

findings: $(VENV)/study-$(VERSION)
	$(BIN)/python -m experiments.findings --workdir=runs/findings

test: $(VENV)/test-$(VERSION)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -n 2

check: $(VENV)/test-$(VERSION)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -n 2 $(addprefix --ignore=,$(SLOW))

$(VENV)/study-$(VERSION): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("tlx needs Python 3.11 to 3.13, got %s: make PYTHON=python3.13 ..." % sys.version.split()[0] if not (3, 11) <= sys.version_info[:2] <= (3, 13) else 0)'
	test "$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')" = $(VERSION) || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

$(VENV)/test-$(VERSION): $(VENV)/study-$(VERSION)
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

clean:
	rm -rf .venv .venv-3.* build *.egg-info
