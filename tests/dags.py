"""Dags as Airflow parses them, wherever this Airflow keeps the parser."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

__all__ = ["parse"]

PARSER = "airflow.dag_processing.dagbag"
PARSER_OF_3_1 = "airflow.models.dagbag"


def parse(folder: Path) -> Any:
    """Return the ``DagBag`` of a folder; nothing in it may fail."""
    bag = import_module(PARSER if find_spec(PARSER) else PARSER_OF_3_1).DagBag(folder)
    assert not bag.import_errors, bag.import_errors
    return bag
