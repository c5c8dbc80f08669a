# make demo    train, simulate, price and export a selective network on event-camera digits
# make test    the whole test suite
# make bench   time of a training step beside snnTorch, to build/bench
# make check   lint, format, types, import contracts
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# constraints.txt holds the exact tested versions.
PIP    := PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install --quiet --constraint constraints.txt

.PHONY: demo test bench check format clean

demo: $(VENV)/demo.stamp
	$(BIN)/suspike demo

test: $(VENV)/dev.stamp
	$(BIN)/python -m pytest

# these two would hold numpy to an older processor's kernels
bench: $(VENV)/dev.stamp
	env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE $(BIN)/python tests/bench/train_step.py

check: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/dev.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("suspike needs Python 3.11 or newer, got %d.%d: make PYTHON=..." % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[datasets,train,export,plot]'
	touch $@

# Norse needs torchvision only for its demo tasks, and torchvision does not import beside a CPU build of torch:
# norse comes without its dependencies (pip check then reports it: expected).
$(VENV)/dev.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[dev]'
	$(PIP) --no-deps norse
	touch $@ $(VENV)/demo.stamp

clean:
	rm -rf $(VENV) build dist
