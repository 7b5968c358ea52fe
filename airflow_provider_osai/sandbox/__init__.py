"""The sandbox: a local OSAI, a real HTTP server that trains small models and supports fault injection.

This package serves the contract. It imports neither Airflow nor the client, only the contract and models of ``api``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_osai.sandbox.app import create_app
    from airflow_provider_osai.sandbox.server import Sandbox
    from airflow_provider_osai.sandbox.state import SandboxState

__all__ = ["Sandbox", "SandboxState", "create_app"]

_MODULES = {"Sandbox": "server", "SandboxState": "state", "create_app": "app"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is used: the options of the command need none of them."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
