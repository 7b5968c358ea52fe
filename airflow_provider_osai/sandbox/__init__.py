"""A local OSAI: a real HTTP server that trains real small models, and can be told to misbehave.

May live here: anything that serves the contract. May not: Airflow, the client, anything else of this package.
"""

from airflow_provider_osai.sandbox.app import create_app
from airflow_provider_osai.sandbox.server import Sandbox
from airflow_provider_osai.sandbox.state import SandboxState

__all__ = ["Sandbox", "SandboxState", "create_app"]
