# Two commands matter: `make run` and `make test`. Both set up what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MONGO_TEST := .venv-mongo-test

.PHONY: run test mongo-test setup setup-dev lint format types bench bench-anomaly soak lambda image-check sbom licences lock clean

run: setup
	@$(BIN)/spendscope up

# A process more than cores (tests/turns.py); in one, as `-s` needs: make test ARGS=-n0
test: setup-dev
	@scripts/system-packages
	@scripts/node-packages
	@$(MAKE) --silent $(MONGO_TEST)/.installed || echo "MongoDB's tests will be skipped unless a server is here"
	$(BIN)/python -m pytest -n auto --dist worksteal $(ARGS)

# The MongoDB adapter's contract, on a server of its own environment: GPL, for these tests only.
mongo-test: setup-dev $(MONGO_TEST)/.installed
	$(BIN)/python -m pytest tests/adapters/test_mongodb.py $(ARGS)

setup: $(VENV)/.installed
setup-dev: $(VENV)/.installed-dev

$(VENV)/.installed: requirements.lock requirements-uv.lock scripts/environment scripts/command
	@PYTHON="$(PYTHON)" scripts/environment $(VENV) requirements.lock
	@scripts/command $(VENV)
	@touch $@

$(VENV)/.installed-dev: requirements-dev.lock requirements-uv.lock scripts/environment scripts/command
	@PYTHON="$(PYTHON)" scripts/environment $(VENV) requirements-dev.lock
	@scripts/command $(VENV)
	@touch $@ $(VENV)/.installed

$(MONGO_TEST)/.installed: requirements-mongo-test.lock requirements-uv.lock scripts/environment
	@PYTHON="$(PYTHON)" PIP_RETRIES=1 PIP_TIMEOUT=10 scripts/environment $(MONGO_TEST) requirements-mongo-test.lock
	@touch $@

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
	$(BIN)/python -m pytest tests/workers/test_soak.py tests/test_last_truth.py tests/faults --soak 50 -q -s

# Follows the Dockerfile in a clean root, without Docker, and runs what comes out; needs root, debootstrap and some minutes.
image-check: setup-dev
	$(BIN)/python -m pytest tests/ship/test_image.py --image -q -s $(ARGS)

sbom: setup-dev
	$(BIN)/python scripts/sbom dist/sbom.json

licences: setup-dev
	scripts/licences > docs/licences.md.new && mv docs/licences.md.new docs/licences.md

lambda: setup
	@$(BIN)/python scripts/collector_zip.py dist/collector.zip

lock:
	uv pip compile -q requirements.in --generate-hashes --no-emit-index-url --universal --python-version 3.11 -o requirements.lock
	uv pip compile -q requirements-dev.in -c requirements.lock --generate-hashes --no-emit-index-url --universal --python-version 3.11 -o requirements-dev.lock
	uv pip compile -q requirements-mongo-test.in --generate-hashes --no-emit-index-url --universal --python-version 3.11 -o requirements-mongo-test.lock
	uv pip compile -q requirements-uv.in --generate-hashes --no-emit-index-url --universal --python-version 3.11 -o requirements-uv.lock

clean:
	rm -rf $(VENV) $(MONGO_TEST) .mypy_cache .ruff_cache .pytest_cache .hypothesis
