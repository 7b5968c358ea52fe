"""What Airflow asks a provider: its connection form, links and modules."""

from __future__ import annotations

from typing import Any

__all__ = ["get_provider_info"]

_EXTRA = "Rebinds operations that our contract only assumes, as JSON. Empty: the contract's own table."


def get_provider_info() -> dict[str, Any]:
    """Return the provider's description; Airflow calls this through the entry point ``apache_airflow_provider``."""
    return {
        "package-name": "airflow-provider-osai",
        "name": "OSAI",
        "description": "Airflow for OSAI (ONESTEP AI): upload data, train, convert and use computer-vision models.",
        "integrations": [
            {"integration-name": "OSAI", "external-doc-url": "https://docs.onestepai.com/", "tags": ["service"]}
        ],
        "hooks": [{"integration-name": "OSAI", "python-modules": ["airflow_provider_osai.hooks.osai"]}],
        "operators": [
            {
                "integration-name": "OSAI",
                "python-modules": [
                    "airflow_provider_osai.operators.conversion",
                    "airflow_provider_osai.operators.dataset",
                    "airflow_provider_osai.operators.device",
                    "airflow_provider_osai.operators.gate",
                    "airflow_provider_osai.operators.orphans",
                    "airflow_provider_osai.operators.prediction",
                    "airflow_provider_osai.operators.training",
                ],
            }
        ],
        "sensors": [{"integration-name": "OSAI", "python-modules": ["airflow_provider_osai.sensors.job"]}],
        "triggers": [
            {
                "integration-name": "OSAI",
                "python-modules": ["airflow_provider_osai.triggers.events", "airflow_provider_osai.triggers.job"],
            }
        ],
        "plugins": [{"name": "osai", "plugin-class": "airflow_provider_osai.plugins.osai.OsaiPlugin"}],
        "asset-uris": [
            {
                "schemes": ["osai"],
                "handler": "airflow_provider_osai.assets.uris.sanitize",
                "factory": "airflow_provider_osai.assets.uris.make",
                "to_openlineage_converter": "airflow_provider_osai.lineage.naming.from_asset",
            }
        ],
        "config": {
            "osai": {
                "description": "Settings of the OSAI provider.",
                "options": {
                    "webhook_poll_interval": {
                        "description": "Seconds between two looks at a job whose webhook is awaited: the safety net.",
                        "version_added": None,
                        "type": "float",
                        "example": None,
                        "default": "600",
                    }
                },
            }
        },
        "extra-links": ["airflow_provider_osai.links.portal.OsaiPortalLink"],
        "connection-types": [
            {
                "connection-type": "osai",
                "hook-class-name": "airflow_provider_osai.hooks.osai.OsaiHook",
                "hook-name": "OSAI",
                "ui-field-behaviour": {
                    "hidden-fields": ["host", "port", "login", "schema"],
                    "relabeling": {"password": "Access token"},
                    "placeholders": {"password": "made in OSAI under Settings"},
                },
                "conn-fields": {
                    "region": {
                        "label": "Region",
                        "description": "Where your OSAI account lives.",
                        "schema": {"type": ["string", "null"], "enum": ["eu", "us"], "default": "eu"},
                    },
                    "base_url": {
                        "label": "Base URL",
                        "description": "Overrides the region. https, or http on this machine only.",
                        "schema": {"type": ["string", "null"], "format": "url"},
                    },
                    "timeout": {
                        "label": "Timeout (s)",
                        "description": "Seconds that one HTTP exchange may stand still. Default 30.",
                        "schema": {"type": ["number", "null"], "minimum": 0, "maximum": 3600},
                    },
                    "contract": {
                        "label": "Contract",
                        "description": _EXTRA,
                        "schema": {"type": ["string", "null"], "format": "multiline"},
                    },
                    "deployment": {
                        "label": "Deployment",
                        "description": "Tells this Airflow's jobs from those of a copy of it on the same OSAI account.",
                        "schema": {"type": ["string", "null"], "maxLength": 100},
                    },
                    "webhook_base_url": {
                        "label": "Webhook base URL",
                        "description": "Where OSAI reaches this Airflow, to tell it at once that a job has ended.",
                        "schema": {"type": ["string", "null"], "format": "url"},
                    },
                    "webhook_secret": {
                        "label": "Webhook secret",
                        "description": "Signs webhook addresses; 16 characters or more. Two, with a space, rotate.",
                        "schema": {"type": ["string", "null"], "format": "password"},
                    },
                },
            }
        ],
    }
