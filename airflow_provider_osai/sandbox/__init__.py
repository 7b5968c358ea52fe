"""The sandbox: a local OSAI, a real HTTP server that trains small models and supports fault injection.

This package serves the contract. It imports neither Airflow nor the client, only the contract and models of ``api``.
"""

from airflow_provider_osai.sandbox.app import create_app
from airflow_provider_osai.sandbox.server import Sandbox
from airflow_provider_osai.sandbox.state import SandboxState

__all__ = ["Sandbox", "SandboxState", "create_app"]
