"""The connection form for Airflow 3.1, which does not read it from the provider metadata as newer versions do."""

from __future__ import annotations

from typing import Any

from airflow_provider_osai.get_provider_info import get_provider_info

__all__ = ["field_behaviour", "form_widgets"]


def form_widgets() -> dict[str, Any]:
    """Return a form field for each extra field in the provider metadata."""
    # Airflow has these modules, or replaces them with stubs while it calls this.
    from wtforms import IntegerField, PasswordField, StringField
    from wtforms.validators import Optional, any_of

    widgets = {}
    for name, field in _connection_type()["conn-fields"].items():
        schema = field["schema"]
        field_class = PasswordField if schema.get("format") == "password" else StringField
        field_class = IntegerField if "number" in schema["type"] else field_class
        validators = [Optional(), *([any_of(schema["enum"])] if "enum" in schema else [])]
        widgets[name] = field_class(
            field["label"], validators, description=field["description"], default=schema.get("default")
        )
    return widgets


def field_behaviour() -> dict[str, Any]:
    """Return the behaviour of the standard fields in the provider metadata, with the underscore keys of Airflow 3.1."""
    return {name.replace("-", "_"): value for name, value in _connection_type()["ui-field-behaviour"].items()}


def _connection_type() -> dict[str, Any]:
    connection_type: dict[str, Any] = get_provider_info()["connection-types"][0]
    return connection_type
