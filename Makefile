# make demo    train, simulate, price and export a selective network on event-camera digits
# make test    the whole test suite
# make bench   time of a training step, simulation and loading beside others, to build/bench (an hour; ROUNDS=3: half;
#              DATA=FOLDER: loading from FOLDER/NMNIST and FOLDER/speech/SHD instead of digits made on the spot)
# make check   lint, format, types, import contracts
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# constraints.txt holds the exact tested versions.
PIP    := PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install --quiet --constraint constraints.txt

# The libraries that `make bench` compares with, in environments of their own: Brian2 needs an older numpy.
PEERS  := build/peers
ROUNDS ?= 9
SIMULATORS := build/simulators
PEER_PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 $(PEERS)/bin/python -m pip install --quiet --constraint tests/bench/peers.txt
SIMULATOR_PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 $(SIMULATORS)/bin/python -m pip install --quiet --constraint tests/bench/simulators.txt

.PHONY: demo test bench check format clean

demo: $(VENV)/demo.stamp
	$(BIN)/suspike demo

# Two processes; the tests of a file stay together, as they share what is slow to make.
test: $(VENV)/dev.stamp
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

# A peer that cannot be installed is named and left out, and tried again next time.
# OPENBLAS_*: these two would hold numpy to an older processor's kernels.
bench: $(VENV)/dev.stamp
	-$(MAKE) --no-print-directory --keep-going $(PEERS)/peers.stamp $(SIMULATORS)/simulators.stamp
	env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE $(BIN)/python tests/bench/train_step.py $(ROUNDS)
	env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE $(BIN)/python tests/bench/gates_and_steps.py $(ROUNDS)
	env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE $(BIN)/python tests/bench/sequence.py $(ROUNDS)
	env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE $(BIN)/python tests/bench/simulate.py $(ROUNDS)
	env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE $(BIN)/python tests/bench/simulate_recurrent.py $(ROUNDS)
	env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE $(BIN)/python tests/bench/cross_check.py
	env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE $(BIN)/python tests/bench/efficiency.py
	env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE $(BIN)/python tests/bench/loading.py $(ROUNDS) $(DATA)

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

# What they import comes first: their own requirements are not met (see peers.txt).
$(PEERS)/peers.stamp: tests/bench/peers.txt
	$(PYTHON) -m venv $(PEERS)
	failed=; \
	$(PEER_PIP) torch numpy nir nirtorch loguru pbr matplotlib tqdm packaging || failed="torch"; \
	$(PEER_PIP) jax flax optax grain jax-tqdm || failed="$$failed jax"; \
	for peer in snntorch spikingjelly norse sinabs spyx torchvision; do \
	  $(PEER_PIP) --no-deps $$peer || failed="$$failed $$peer"; \
	done; \
	if [ -n "$$failed" ]; then echo "not installed: $$failed; make bench goes on without"; exit 1; fi
	touch $@

$(SIMULATORS)/simulators.stamp: tests/bench/simulators.txt
	$(PYTHON) -m venv $(SIMULATORS)
	failed=; \
	$(SIMULATOR_PIP) brian2 setuptools || failed="brian2"; \
	$(SIMULATOR_PIP) nest-simulator || failed="$$failed nest"; \
	if [ -n "$$failed" ]; then echo "not installed: $$failed; make bench goes on without"; exit 1; fi
	touch $@

clean:
	rm -rf $(VENV) build dist
