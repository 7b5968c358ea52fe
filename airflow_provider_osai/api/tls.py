"""The TLS context of a client, and what else is to be made before an event loop may use one."""

from __future__ import annotations

import importlib
import ssl
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from airflow_provider_osai.api.settings import OsaiSettings

__all__ = ["prepare", "ssl_context"]


def ssl_context(settings: OsaiSettings) -> ssl.SSLContext | bool:
    """Return the TLS context for the settings' address; plain http on loopback needs none."""
    return httpx.create_ssl_context() if settings.base_url.startswith("https:") else False


def prepare(settings: OsaiSettings) -> ssl.SSLContext | bool:
    """Do what would hold an event loop: build the TLS context, and import what reads a JWT."""
    importlib.import_module("jwt")
    return ssl_context(settings)
