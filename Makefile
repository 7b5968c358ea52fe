# Nothing but Python 3.11+ and make is needed; each Python has a virtual environment of its own.
# AIRFLOW=3.1 or 3.2 takes the newest patch of that Airflow, in an environment of its own, rather than the newest of all.
PYTHON ?= python3
VENV ?= .venv$(AIRFLOW:%=-airflow%)
CONSTRAINTS := constraints$(AIRFLOW:%=-airflow%).txt
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# What runs on the built wheel, in a folder without the sources: by default what touches Airflow, and a whole Airflow.
SUITE ?= tests/airflow tests/assets tests/lineage tests/testing tests/e2e/test_first_flight.py
AWAY = .wheel/airflow$(or $(AIRFLOW),3.3)-$(shell $(PYTHON) -c 'import sys; print("python%d.%d" % sys.version_info[:2])')

.PHONY: demo test lint unit browser wheel chaos bench docs clean

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

wheel:  ## SUITE on the built wheel, with PYTHON and AIRFLOW; what is deprecated is an error where we use it
	@rm -rf $(AWAY)
	@$(PYTHON) -m venv $(AWAY)/.venv
	@$(AWAY)/.venv/bin/python -m pip install --quiet --disable-pip-version-check uv
	@$(AWAY)/.venv/bin/uv build --quiet --wheel --out-dir $(AWAY)
	@$(AWAY)/.venv/bin/uv pip install --quiet --python $(AWAY)/.venv/bin/python --constraint $(CONSTRAINTS) \
	  "airflow-provider-osai[dev] @ file://$$(ls $(CURDIR)/$(AWAY)/*.whl)"
	@cp -r tests example_dags docs pyproject.toml README.md $(AWAY)
	@cd $(AWAY) && .venv/bin/python -m pytest --version && .venv/bin/python -m pytest -c tests/wheel.ini --rootdir . -q -n 2 --dist loadfile $(SUITE)

chaos: $(READY)  ## kill whatever can be killed, break every call, and count what is doubled, lost or left running; MATRICES: some of it
	@$(BIN)/python -m tests.chaos $(MATRICES)

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
	rm -rf .venv* .pytest_cache .mypy_cache .ruff_cache .hypothesis .wheel dist

docs: $(READY)  ## the documentation site, in site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
