"""The converter from assets to OpenLineage datasets, without the optional dependency."""

from __future__ import annotations

import subprocess
import sys

WITHOUT = """
import sys
sys.modules["openlineage"] = None
from airflow.providers_manager import ProvidersManager
print(sorted(ProvidersManager().asset_to_openlineage_converters))
"""


def test_converter_can_be_imported_without_the_openlineage_extra():
    """Airflow imports the converter for each Dag with assets, and prints a traceback if the import fails."""
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True)
    assert "'osai'" in done.stdout
    assert "airflow_provider_osai" not in done.stdout + done.stderr
