"""What the headers of a download say: how long the file is, what it is called, and how to know it again."""

from __future__ import annotations

import base64
import binascii
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import Final

from airflow_provider_osai.api.pieces import Stream

__all__ = ["DIGEST_BYTES", "Head", "file_name", "safe_name"]

DIGEST_BYTES: Final[Mapping[str, int]] = {"sha256": 32, "sha512": 64, "md5": 16}
"""The digests that are checked, by their names in hashlib, with their length."""
LONGEST_NAME: Final = 200
"""Bytes of a file's name; file systems take 255, and ours get endings."""
OURS: Final = (".part", ".json")
"""Endings that a server may not choose."""


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of an answer that is a file or its rest.

    :param start: where in the file the body begins; ``None`` if the server does not say it as it should.
    :param total: bytes of the whole file, if they are announced.
    :param validator: by what the file is known again, if it can be resumed.
    :param digests: of the whole file, as hexadecimal numbers, by hashlib's names.
    :param name: what the server calls the file, made safe.
    """

    start: int | None
    total: int | None
    validator: str | None
    digests: Mapping[str, str]
    name: str | None

    @classmethod
    def of(cls, stream: Stream) -> Head:
        """Read the headers of *stream*; what does not parse counts as not there."""
        headers = stream.headers
        # A part's own digests (Content-Digest, Content-MD5) tell nothing of the whole.
        own = [headers.get("content-digest", "")] if stream.status == 200 else []
        digests = _digests([headers.get("digest", ""), headers.get("repr-digest", ""), *own])
        start: int | None
        if stream.status == 200:
            start, total = 0, _number(headers.get("content-length", ""))
            if md5 := _hexadecimal("md5", headers.get("content-md5", "")):
                digests.setdefault("md5", md5)
        else:
            start, total = _content_range(headers.get("content-range", ""))
        return cls(start, total, _validator(headers), digests, file_name(headers.get("content-disposition", "")))


def file_name(disposition: str) -> str | None:
    """Return the file's name of a ``Content-Disposition``, made safe; ``None`` if nothing is left of it."""
    message = Message()
    message["content-disposition"] = disposition
    try:
        return safe_name(message.get_filename() or "")
    except (LookupError, TypeError, ValueError):  # whatever the email package makes of a bad one
        return None


def safe_name(text: str) -> str | None:
    """Return *text* as the name of one file in one folder; ``None`` if nothing is left of it.

    No path, no control characters, no beginning with a dot, not too long.
    """
    last = re.split(r"[/\\]", unicodedata.normalize("NFC", text))[-1]
    kept = "".join("_" if c in '<>:"|?*' else c for c in last if unicodedata.category(c)[0] != "C")
    name = kept.strip().lstrip(".").encode("utf-8", "ignore")[:LONGEST_NAME].decode("utf-8", "ignore").strip()
    return None if not name or name.casefold().endswith(OURS[0]) or name.casefold().endswith("".join(OURS)) else name


def _validator(headers: Mapping[str, str]) -> str | None:
    """Return what ``If-Range`` takes: a strong ETag, or a date that is old enough to be one (RFC 9110, 8.8)."""
    if headers.get("accept-ranges", "").strip().lower() == "none":
        return None
    etag = headers.get("etag", "").strip()
    if re.fullmatch(r'"[\x21\x23-\x7e]*"', etag):
        return etag
    modified = headers.get("last-modified", "").strip()
    try:
        settled = parsedate_to_datetime(headers["date"]) - parsedate_to_datetime(modified) >= timedelta(seconds=1)
    except (KeyError, LookupError, ArithmeticError, TypeError, ValueError):
        return None
    return modified if settled else None


def _content_range(text: str) -> tuple[int | None, int | None]:
    found = re.fullmatch(r"\s*bytes\s+(\d{1,18})-(\d{1,18})/(\d{1,18}|\*)\s*", text)
    if not found or int(found[2]) < int(found[1]):
        return None, None
    total = None if found[3] == "*" else int(found[3])
    # One that ends before the file does is no rest of it.
    return (None, None) if total is not None and int(found[2]) != total - 1 else (int(found[1]), total)


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"\d{1,18}", text.strip(), re.ASCII) else None


def _digests(values: list[str]) -> dict[str, str]:
    """Read ``sha-256=:...:`` (RFC 9530) and ``SHA-256=...`` (RFC 3230); later values win."""
    found: dict[str, str] = {}
    for value in values:
        for name, packed in re.findall(r"([\w-]+)=:?([A-Za-z0-9+/]+=*):?", value):
            algorithm = name.lower().replace("-", "")
            if digest := _hexadecimal(algorithm, packed):
                found[algorithm] = digest
    return found


def _hexadecimal(algorithm: str, packed: str) -> str | None:
    try:
        raw = base64.b64decode(packed.strip(), validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw.hex() if len(raw) == DIGEST_BYTES.get(algorithm) else None
