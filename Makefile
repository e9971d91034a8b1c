# make serve   sets everything up and starts the gateway
# make test    sets up the training and test packages too, and runs lint, types and tests
# make test-e2e  a real browser and a real Prometheus on real gateways; minutes
# make observe starts a gateway, Prometheus with the alerts, and traffic, and says where to look
# make test-faults  kills the memory's writer and the gateway 50 times each, and opens 10,000
#                   connections; about ten minutes
# make soak    ten minutes of mixed traffic and faults: nothing may be lost, leak or grow
# make test-vllm  installs vLLM's CPU build beside it and runs the engine tests on it
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: serve observe setup setup-dev test test-e2e test-faults test-vllm soak lint lock clean

serve: setup
	$(BIN)/kiki serve

observe: setup .venv/.debian
	$(BIN)/python -m gateway.observing run

setup: .venv/.packages .venv/.models

setup-dev: .venv/.dev setup

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "kiki needs Python 3.11 or newer; name it with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/.packages: requirements/serve.txt pyproject.toml | .venv/bin/python
	@echo "Installing the packages (about a minute)"
	$(PIP) -r requirements/serve.txt
	$(PIP) --no-deps --editable .
	@touch $@

# The model files go to the settings' models_dir; a clone beside this one finds them there.
.venv/.models: .venv/.packages kiki/assets.py routing/mpnet.py $(wildcard adapters/forms/*.py) \
    $(wildcard adapters/shipped/*/*)
	$(BIN)/kiki models pull
	@touch $@

.venv/.dev: requirements/dev.txt | .venv/.packages
	@echo "Installing the training and test packages (a few minutes)"
	$(PIP) torch==2.13.0 --constraint requirements/dev.txt
	$(PIP) -r requirements/dev.txt
	$(BIN)/kiki models pull --with-sources
	@touch $@ .venv/.models

# Without root the tests that need promtool or systemd-analyze are skipped, and say so.
.venv/.debian: scripts/debian-tools | .venv/bin/python
	scripts/debian-tools prometheus systemd || [ $$? -eq 2 ]
	@touch $@

test: setup-dev .venv/.debian lint
	$(BIN)/python -m pytest --ignore=tests/e2e

# KIKI_TEST_SCREENSHOTS=docs takes the pictures of docs/console.md anew.
test-e2e: setup-dev
	scripts/debian-tools prometheus chromium
	$(BIN)/python -m pytest tests/e2e

# vLLM's CPU build in an environment of its own: minutes to install, 2.5 GB. One server at a time.
test-vllm: setup-dev
	PYTHON=$(PYTHON) scripts/setup-vllm
	TEST_VLLM=1 $(BIN)/python -m pytest tests/contract -k vllm
	TEST_VLLM=1 $(BIN)/python -m pytest tests/adapters/engines/vllm/test_real.py

# A process is killed (kill -9) at a random moment, 50 times; make test does it 3 times.
test-faults: setup-dev
	KIKI_TEST_ROUNDS=50 $(BIN)/python -m pytest tests/memory/test_memory_faults.py \
	  tests/memory/test_disk_faults.py tests/gateway/test_process.py -k "kill or disk or damaged"
	KIKI_TEST_CONNECTIONS=10000 $(BIN)/python -m pytest tests/gateway/test_connections.py \
	  tests/gateway/test_upstream_faults.py tests/gateway/test_clock.py

# Mixed traffic, callers who leave, a server that fails: KIKI_SOAK_S seconds of it; make test has 10.
soak: setup-dev
	env -u KIKI_SOAK_S KIKI_TEST_SOAK_S=$${KIKI_SOAK_S:-600} $(BIN)/python -m pytest -s \
	  tests/gateway/test_soak.py

lint: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy kiki gateway routing adapters memory negotiator antibias tests

# Resolve the pinned dependencies again; torch's own stand in torch-needs.in.
lock: .venv/.dev
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url \
	  --custom-compile-command "make lock" pyproject.toml -o requirements/serve.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url \
	  --custom-compile-command "make lock" --override requirements/torch.in \
	  --extra train --extra dev pyproject.toml requirements/torch-needs.in -o requirements/dev.txt

clean:
	rm -rf .venv .venv-vllm
