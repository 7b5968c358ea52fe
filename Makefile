# Nothing but Python 3.11+ and make is needed; each Python has a virtual environment of its own.
# AIRFLOW=3.1 or 3.2 takes the newest patch of that Airflow, in an environment of its own, rather than the newest of all.
PYTHON ?= python3
VENV ?= .venv$(AIRFLOW:%=-airflow%)
CONSTRAINTS := constraints$(AIRFLOW:%=-airflow%).txt
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint unit browser chaos bench docs clean

demo: $(READY)  ## fly the retraining Dag in a whole Airflow against the sandbox; KEEP=1 leaves Airflow up
	@$(BIN)/osai-airflow demo $(if $(KEEP),--keep)

test: lint unit  ## everything that must hold

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy airflow_provider_osai tests/typing/surface.py

unit: $(READY) browser
	$(BIN)/pytest -n 2 --dist loadfile

browser:  ## what the tests of pages need
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || \
	  { apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium >/dev/null; }

chaos: $(READY)  ## kill whatever can be killed, break every call, and count what is doubled, lost or left running
	@$(BIN)/python -m tests.chaos

bench: $(READY)  ## what waiting, importing and resuming cost, beside other providers (about an hour, on an idle machine)
	$(BIN)/python -m benchmarks.deferred_jobs --jobs 5000 --interval 10 --peer http
	$(BIN)/python -m benchmarks.deferred_jobs --jobs 10000 --interval 10 --peer none
	$(BIN)/python -m benchmarks.growth
	$(BIN)/python -m benchmarks.import_time
	$(BIN)/python -m benchmarks.triggerer
	$(BIN)/python -m benchmarks.webhook_latency
	$(BIN)/python -m benchmarks.upload

$(READY): pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11, 3.12 or 3.13 is needed" if not (3, 11) <= sys.version_info < (3, 14) else 0)'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint $(CONSTRAINTS) --editable '.[dev]'
	@touch $@

clean:
	rm -rf .venv* .pytest_cache .mypy_cache .ruff_cache .hypothesis dist

docs: $(READY)  ## the documentation site, in site/
	@$(BIN)/mkdocs build --quiet
