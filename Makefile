# Needs only Python 3.11 to 3.13 and make.
# AIRFLOW=3.1 or 3.2 installs the newest patch of that Airflow, in a separate virtual environment, instead of the newest Airflow.
PYTHON ?= python3
VENV ?= .venv$(AIRFLOW:%=-airflow%)
CONSTRAINTS := constraints$(AIRFLOW:%=-airflow%).txt
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# What is tested: the package with all extras. Lint, documentation and packaging need only the newest Airflow.
EXTRAS := mlflow,openlineage,quality,sandbox
GROUP := $(if $(AIRFLOW),test,dev)

# Tests to run on the built wheel, in a folder without the sources: by default all that use Airflow, and one end-to-end test.
SUITE ?= tests/airflow tests/assets tests/lineage tests/testing tests/e2e/test_first_flight.py
AWAY = .wheel/airflow$(or $(AIRFLOW),3.3)-$(shell $(PYTHON) -c 'import sys; print("python%d.%d" % sys.version_info[:2])')

.PHONY: demo quick test lint hooks unit browser wheel dist chaos bench docs clean

demo: $(READY)  ## run the retraining Dag end to end (Airflow + sandbox); KEEP=1 keeps Airflow running
	@$(BIN)/osai-airflow demo $(if $(KEEP),--keep)

quick: $(READY)  ## lint, and the fast tests that need no Airflow and no browser (half a minute)
	$(BIN)/ruff check .
	$(BIN)/pytest -q -n 2 --dist worksteal -p no:cacheprovider -m "not slow" tests/api tests/data tests/jobs tests/promotion

test: lint unit  ## lint, types and all tests

lint: $(READY)  ## what pre-commit runs on all files: format, types, spelling, workflows, links
	$(BIN)/pre-commit run --all-files

hooks: $(READY)  ## let Git run the lint of what a commit changes
	$(BIN)/pre-commit install

unit: $(READY) browser
	$(BIN)/pytest -n 3 --dist loadfile --durations 25

browser:  ## install Chromium with apt-get if it is missing; browser tests need it
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || \
	  { echo "No Chromium found; installing it with apt-get, for tests/browser"; apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium >/dev/null; }

wheel:  ## run SUITE on the built wheel, with PYTHON and AIRFLOW; our use of anything deprecated is an error
	@rm -rf $(AWAY)
	@$(PYTHON) -m venv $(AWAY)/.venv
	@$(AWAY)/.venv/bin/python -m pip install --quiet --disable-pip-version-check uv
	@$(AWAY)/.venv/bin/uv build --quiet --wheel --out-dir $(AWAY)
	@$(AWAY)/.venv/bin/uv pip install --quiet --python $(AWAY)/.venv/bin/python --constraint $(CONSTRAINTS) \
	  --group test "airflow-provider-osai[$(EXTRAS)] @ file://$$(ls $(CURDIR)/$(AWAY)/*.whl)"
	@cp -r tests example_dags docs pyproject.toml README.md $(AWAY)
	@cd $(AWAY) && .venv/bin/python -m pytest --version && .venv/bin/python -m pytest -c tests/wheel.ini --rootdir . -q -n 2 --dist loadfile $(SUITE)

dist: $(READY)  ## build and check wheel and sdist in dist/; TAG=v<version> also compares the tag and writes release-notes.md
	rm -rf dist
	$(BIN)/python -m hatchling build -d dist
	$(BIN)/twine check --strict dist/*
	$(BIN)/check-wheel-contents dist
	$(if $(TAG),$(BIN)/python .ci/release_notes.py "$$TAG" > release-notes.md)

chaos: $(READY)  ## kill processes, inject faults, and count duplicated, lost and leaked jobs; MATRICES selects some
	@$(BIN)/python -m tests.chaos $(MATRICES)

bench: $(READY)  ## measure waiting, whole jobs, import time, resuming and uploads, compared with other providers (about an hour, on an idle machine)
	$(BIN)/python -m benchmarks.deferred_jobs --jobs 5000 --interval 10 --peer http
	$(BIN)/python -m benchmarks.deferred_jobs --jobs 10000 --interval 10 --peer none
	$(BIN)/python -m benchmarks.scaling
	$(BIN)/python -m benchmarks.import_time
	$(BIN)/python -m benchmarks.triggerer
	$(BIN)/python -m benchmarks.job_cost
	$(BIN)/python -m benchmarks.webhook_latency
	$(BIN)/python -m benchmarks.upload
	$(BIN)/python -m benchmarks.contract_document
	$(BIN)/python -m benchmarks.learning
	$(BIN)/python -m benchmarks.pages
	$(BIN)/python -m benchmarks.data_quality

$(READY): pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11, 3.12 or 3.13 is needed" if not (3, 11) <= sys.version_info < (3, 14) else 0)'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint $(CONSTRAINTS) --group $(GROUP) --editable '.[$(EXTRAS)]'
	@touch $@

clean:
	rm -rf .venv* .pytest_cache .mypy_cache .ruff_cache .hypothesis .wheel dist release-notes.md

docs: $(READY)  ## build the documentation in site/; warnings are errors
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
