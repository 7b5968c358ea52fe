"""The URL of a webhook. Every Airflow process imports this module, so it imports nothing."""

from __future__ import annotations

from typing import Final

__all__ = ["PREFIX", "WEBHOOK", "address"]

PREFIX: Final = "/osai"
"""URL prefix under which Airflow's API server mounts the webhook app."""
WEBHOOK: Final = "/webhook/"
"""Path of the webhook endpoint below the prefix; the token follows it."""


def address(base_url: str, text: str) -> str:
    """Return the webhook URL for a sealed token or probe.

    :param base_url: Airflow's URL, without a trailing slash.
    :param text: the sealed token or probe.
    """
    return f"{base_url}{PREFIX}{WEBHOOK}{text}"
