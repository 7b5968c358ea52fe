"""One module per API style, each with ``create_app(world)``; its docstring is the vendor's page of the API."""

from __future__ import annotations

from importlib import import_module

from starlette.applications import Starlette

from tests.gallery.world import World

__all__ = ["STYLES", "create_app"]

STYLES = (
    "accepted_location",
    "aspnet_envelope",
    "graph_objects",
    "multipart_parts",
    "nested_parents",
    "no_list_no_cancel",
    "paged_cursors",
    "paged_numbers",
    "plain_statuses",
    "put_patch_verbs",
    "signed_downloads",
    "text_answers",
    "two_flags",
)
"""The names of the modules."""


def create_app(style: str, world: World) -> Starlette:
    """Return the server of a style."""
    return import_module(f"{__name__}.{style}").create_app(world)
