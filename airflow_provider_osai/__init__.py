"""Airflow provider for OSAI (ONESTEP AI): datasets, training, conversion and prediction as Dag steps.

Allowed here: the provider's entry point. Everything else has its own subpackage.
"""

__version__ = "0.2.0.dev0"
"""The version of this package, as in its metadata."""
