# The two commands a newcomer needs are `make up` and `make test`.
# Debian's Python: the unprivileged services must be able to run it.
PYTHON ?= /usr/bin/python3
VENV := .venv
PY := $(VENV)/bin/python

.PHONY: docs up down purge test test-packages bench-packages lint stubs lock bench packages compose-image compose-test crowd-test many-test

$(VENV)/.runtime: requirements.txt
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || (apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv >/dev/null)
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@echo "==> Installing the Python packages of requirements.txt into $(VENV)"
	@$(PY) -m pip install -qq --disable-pip-version-check --no-deps --require-hashes -r requirements.txt
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.runtime
	@echo "==> Installing the Python packages of requirements-dev.txt, for tests"
	@$(PY) -m pip install -qq --disable-pip-version-check --no-deps --require-hashes -r requirements-dev.txt
	@touch $@

stubs: $(VENV)/.runtime
	@$(PY) tools/gen_protos.py 2>/dev/null

packages: $(VENV)/.runtime
	@$(PY) -c 'from deploy.host import ensure_packages; ensure_packages()'

docs: $(VENV)/.runtime
	@$(PY) -m core.configkeys.render > docs/config-keys.md
	@$(PY) -m gateway.lxd.extensions > docs/api-extensions.md

up: packages stubs
	@$(PY) -m deploy.up

down: $(VENV)/.runtime
	@$(PY) -m deploy.down

purge: $(VENV)/.runtime
	@$(PY) -m deploy.purge

test-packages: packages
	@$(PY) -c 'from deploy.host import ensure_packages, wanted_packages as wanted; ensure_packages(wanted("packages-test.txt"), units=["prometheus.service", "docker-registry.service"])'

test: test-packages stubs $(VENV)/.dev
	@$(PY) -m tools.lanes

many-test: test-packages stubs $(VENV)/.dev
	@PODIUM_MANY=1000 $(PY) -m pytest -s tests/faults/test_many.py

crowd-test: test-packages stubs $(VENV)/.dev
	@PODIUM_CROWD=200 PODIUM_PLUGS=200 $(PY) -m pytest -s tests/faults/test_crowd.py tests/faults/test_network_killed.py

lint: stubs $(VENV)/.dev
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy core services gateway deploy cli tools
	$(VENV)/bin/lint-imports
	$(VENV)/bin/buf lint

bench-packages: packages
	@$(PY) -c 'from deploy.host import ensure_packages, wanted_packages as wanted; ensure_packages(wanted("packages-bench.txt"), units=["lxd.service", "lxd.socket"])'

bench: bench-packages stubs $(VENV)/.dev
	@$(PY) -m bench

lock:
	uv pip compile -q --generate-hashes --no-emit-index-url requirements.in -o requirements.txt
	uv pip compile -q --generate-hashes --no-emit-index-url requirements-dev.in -o requirements-dev.txt

compose-image: packages stubs
	@$(PY) -m deploy.compose.image

compose-test: packages stubs
	@$(PY) -m deploy.compose.test
