# Two commands matter: `make run` and `make test`. Both set up what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test setup setup-dev lint format types bench bench-anomaly soak lock clean

run: setup
	@$(BIN)/spendscope up

test: setup-dev
	@scripts/system-packages
	$(BIN)/python -m pytest $(ARGS)

setup: $(VENV)/.installed
setup-dev: $(VENV)/.installed-dev

$(VENV)/.installed: requirements.lock scripts/environment
	@PYTHON="$(PYTHON)" scripts/environment $(VENV) requirements.lock
	@touch $@

$(VENV)/.installed-dev: requirements-dev.lock scripts/environment
	@PYTHON="$(PYTHON)" scripts/environment $(VENV) requirements-dev.lock
	@touch $@ $(VENV)/.installed

lint: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: setup-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: setup-dev
	$(BIN)/mypy

bench: setup-dev
	$(BIN)/python -m bench $(ARGS)

bench-anomaly: setup-dev
	$(BIN)/python -m bench.anomaly

soak: setup-dev
	$(BIN)/python -m pytest tests/workers/test_soak.py --soak 50 -q

lock:
	uv pip compile -q requirements.in --generate-hashes --no-emit-index-url --universal --python-version 3.11 -o requirements.lock
	uv pip compile -q requirements-dev.in -c requirements.lock --generate-hashes --no-emit-index-url --universal --python-version 3.11 -o requirements-dev.lock

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
