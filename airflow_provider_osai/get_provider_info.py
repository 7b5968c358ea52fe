"""The provider metadata that Airflow reads: modules, connection form, plugins, asset URIs, configuration and links."""

from __future__ import annotations

from typing import Any

from airflow_provider_osai import __version__

__all__ = ["get_provider_info"]

_CONTRACT = "Overrides of assumed OSAI endpoints: JSON or YAML, or the absolute path of a file. Empty: the defaults."


def get_provider_info() -> dict[str, Any]:
    """Return the provider metadata. Airflow calls this through the entry point ``apache_airflow_provider``.

    The keys are those of Airflow's ``provider_info.schema.json``, and ``versions`` for the Astronomer Registry. Paths
    of guides and logo start at the repository's root, as in Airflow's own providers.
    """
    return {
        "package-name": "airflow-provider-osai",
        "name": "OSAI",
        "description": "OSAI (ONESTEP AI) for Airflow: upload data; train, convert and use computer-vision models.",
        "versions": [__version__],
        "integrations": [
            {
                "integration-name": "OSAI",
                "external-doc-url": "https://docs.onestepai.com/",
                "how-to-guide": [
                    "/docs/connection.md",
                    "/docs/reference/operators.md",
                    "/docs/reference/sensors-triggers.md",
                    "/docs/reference/assets-hook.md",
                ],
                "logo": "/docs/integration-logos/osai.svg",
                "tags": ["ai", "machine-learning", "service"],
            }
        ],
        "hooks": [{"integration-name": "OSAI", "python-modules": ["airflow_provider_osai.hooks.osai"]}],
        "operators": [
            {
                "integration-name": "OSAI",
                "python-modules": [
                    "airflow_provider_osai.operators.batch",
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
                "python-modules": [
                    "airflow_provider_osai.triggers.batch",
                    "airflow_provider_osai.triggers.events",
                    "airflow_provider_osai.triggers.job",
                ],
            }
        ],
        "cli": ["airflow_provider_osai.cli.airflow_commands.get_osai_cli_commands"],
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
                        "description": "Seconds between polls of a job with a webhook, in case no webhook arrives.",
                        "version_added": "0.1.0",
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
                    "placeholders": {"password": "create it in OSAI under Settings"},
                },
                "conn-fields": {
                    "region": {
                        "label": "Region",
                        "description": "The region of your OSAI account.",
                        "schema": {"type": ["string", "null"], "enum": ["eu", "us"], "default": "eu"},
                    },
                    "base_url": {
                        "label": "Base URL",
                        "description": "Overrides the region. Must be https, or http on localhost.",
                        "schema": {"type": ["string", "null"], "format": "url"},
                    },
                    "timeout": {
                        "label": "Timeout (s)",
                        "description": "Connect and read timeout in seconds. Default: 30.",
                        "schema": {"type": ["number", "null"], "minimum": 0, "maximum": 3600},
                    },
                    "contract": {
                        "label": "Contract",
                        "description": _CONTRACT,
                        "schema": {"type": ["string", "null"], "format": "multiline"},
                    },
                    "deployment": {
                        "label": "Deployment",
                        "description": "Separates this Airflow's jobs from those of a copy on the same OSAI account.",
                        "schema": {"type": ["string", "null"], "maxLength": 100},
                    },
                    "webhook_base_url": {
                        "label": "Webhook base URL",
                        "description": "URL at which OSAI reaches this Airflow, to notify it when a job has ended.",
                        "schema": {"type": ["string", "null"], "format": "url"},
                    },
                    "webhook_secret": {
                        "label": "Webhook secret",
                        "description": "Signs webhook URLs; at least 16 characters. To rotate: new secret, space, old.",
                        "schema": {"type": ["string", "null"], "format": "password"},
                    },
                },
            }
        ],
    }
