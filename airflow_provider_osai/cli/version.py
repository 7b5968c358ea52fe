"""``osai-airflow version``: the versions of this package and of what it uses, without importing any of it."""

from __future__ import annotations

import argparse
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from airflow_provider_osai import __version__
from airflow_provider_osai.cli.output import write_json

__all__ = ["run"]

PACKAGES: Final = ("apache-airflow", "httpx", "pydantic")


def run(options: argparse.Namespace) -> int:
    """Print the versions."""
    versions = {
        "airflow-provider-osai": __version__,
        **{name: _installed(name) for name in PACKAGES},
        "python": platform.python_version(),
        # Contract documents have no version of their own: each is checked against the rules of the installed package.
        "contract_document": __version__,
    }
    if options.json:
        write_json(versions)
    else:
        names = {"contract_document": "contract documents"}
        width = max(map(len, versions))
        lines = [f"{names.get(name, name):<{width}}  {value or 'not installed'}\n" for name, value in versions.items()]
        sys.stdout.write("".join(lines))
    return 0


def _installed(name: str) -> str | None:
    """Return the version of an installed distribution; ``None`` if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None
