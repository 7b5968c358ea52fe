"""The styles of API that are recorded, and the canaries that a recording holds."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["CANARIES", "RECORDINGS", "STYLES", "Style", "load"]

DOCUMENTS = Path(__file__).parents[1] / "gallery" / "documents"
RECORDINGS = Path(__file__).parent / "recordings"
CANARIES = {
    "access_token": "canary-2b7e151628aed2a6-access-token",
    "email": "canary.person@example.com",
    "user_name": "Canary Person",
}
"""Secrets that are the same in all recordings; the others are made by the sandbox."""


@dataclass(frozen=True)
class Style:
    """A style of API.

    :param name: the name of its folder of recordings.
    :param document: the name of the gallery's contract document; ``None``: the default contract.
    :param query: options of the portal's page.
    :param stories: what is recorded.
    """

    name: str
    document: str | None = None
    query: str = ""
    stories: tuple[str, ...] = ("success", "failure", "cancel")

    @property
    def contract(self) -> Path | None:
        """The path of the contract document."""
        return DOCUMENTS / f"{self.document}.yaml" if self.document else None

    @property
    def folder(self) -> Path:
        """The folder of its recordings."""
        return RECORDINGS / self.name


STYLES = {
    style.name: style
    for style in (
        Style("default"),
        Style("default-push", query="&push=1"),
        Style("accepted_location", "accepted_location"),
        Style("aspnet_envelope", "aspnet_envelope"),
        Style("aspnet_envelope-cookies", "aspnet_envelope", "&cookies=1"),
        Style("aspnet_envelope-push", "aspnet_envelope", "&push=1"),
        Style("graph_objects", "graph_objects"),
        Style("multipart_parts", "multipart_parts"),
        Style("nested_parents", "nested_parents"),
        Style("no_list_no_cancel", "no_list_no_cancel", stories=("success", "failure")),
        Style("paged_cursors", "paged_cursors"),
        Style("paged_numbers", "paged_numbers"),
        Style("plain_statuses", "plain_statuses"),
        Style("put_patch_verbs", "put_patch_verbs"),
        Style("signed_downloads", "signed_downloads"),
        Style("text_answers", "text_answers"),
        Style("two_flags", "two_flags"),
    )
}


def load(path: Path) -> dict[str, Any]:
    """Return a recording, which may be compressed."""
    if path.exists():
        return json.loads(path.read_text())
    return json.loads(gzip.decompress(path.with_name(f"{path.name}.gz").read_bytes()))
