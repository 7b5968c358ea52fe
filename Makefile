# Nothing but Python 3.11+ and make is needed; each Python has a virtual environment of its own.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint unit chaos clean

demo: $(READY)  ## fly the retraining Dag in a whole Airflow against the sandbox; KEEP=1 leaves Airflow up
	@$(BIN)/osai-airflow demo $(if $(KEEP),--keep)

test: lint unit  ## everything that must hold

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy airflow_provider_osai tests/typing/surface.py

unit: $(READY)
	$(BIN)/pytest -n 2 --dist loadfile

chaos: $(READY)  ## kill tasks at every step, break every call, and count what is doubled, lost or left running
	$(BIN)/python -m tests.chaos.crash
	$(BIN)/python -m tests.chaos.faults

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11, 3.12 or 3.13 is needed" if not (3, 11) <= sys.version_info < (3, 14) else 0)'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis dist
