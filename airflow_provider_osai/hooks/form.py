"""The connection's form for Airflow 3.1, which does not read it from the provider's description as newer ones do."""

from __future__ import annotations

from typing import Any

from airflow_provider_osai.get_provider_info import get_provider_info

__all__ = ["field_behaviour", "form_widgets"]


def form_widgets() -> dict[str, Any]:
    """Return a form field for each extra field of the description."""
    # Airflow has these, or stands in for them while it asks.
    from wtforms import IntegerField, PasswordField, StringField  # noqa: PLC0415
    from wtforms.validators import Optional, any_of  # noqa: PLC0415

    widgets = {}
    for name, field in _connection_type()["conn-fields"].items():
        schema = field["schema"]
        kind = PasswordField if schema.get("format") == "password" else StringField
        kind = IntegerField if "number" in schema["type"] else kind
        rules = [Optional(), *([any_of(schema["enum"])] if "enum" in schema else [])]
        widgets[name] = kind(field["label"], rules, description=field["description"], default=schema.get("default"))
    return widgets


def field_behaviour() -> dict[str, Any]:
    """Return what the description says of the standard fields, under the keys of old."""
    return {name.replace("-", "_"): value for name, value in _connection_type()["ui-field-behaviour"].items()}


def _connection_type() -> dict[str, Any]:
    connection_type: dict[str, Any] = get_provider_info()["connection-types"][0]
    return connection_type
