"""Parse the headers of a download: file size, name, digests and validator."""

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

from airflow_provider_osai.api.streaming import Stream

__all__ = ["DIGEST_BYTES", "FileHeaders", "file_name", "safe_name"]

DIGEST_BYTES: Final[Mapping[str, int]] = {"sha256": 32, "sha512": 64, "md5": 16}
"""Length in bytes of each supported digest, by its name in hashlib."""
MAX_NAME_BYTES: Final = 200
"""Maximum bytes of a file name; file systems allow 255, and suffixes are appended to the name."""
RESERVED_SUFFIXES: Final = (".part", ".part.json")
"""Suffixes of a partial file and its metadata, which a server may not choose."""


@dataclass(frozen=True, slots=True)
class FileHeaders:
    """The headers of a response that carries a file, or the rest of one.

    :param start: the body's offset in the file; ``None`` if ``Content-Range`` is missing or invalid.
    :param total: bytes of the complete file, if announced.
    :param validator: the value for ``If-Range``; ``None`` if the download cannot be resumed.
    :param digests: hexadecimal digests of the complete file, by their names in hashlib.
    :param name: the server's file name, sanitized.
    """

    start: int | None
    total: int | None
    validator: str | None
    digests: Mapping[str, str]
    name: str | None

    @classmethod
    def from_stream(cls, stream: Stream) -> FileHeaders:
        """Parse the headers of *stream*; an invalid header counts as missing."""
        headers = stream.headers
        # Of a partial response, Content-Digest and Content-MD5 cover only that part.
        content_digests = [headers.get("content-digest", "")] if stream.status == 200 else []
        digests = _digests([headers.get("digest", ""), headers.get("repr-digest", ""), *content_digests])
        start: int | None
        if stream.status == 200:
            start, total = 0, _number(headers.get("content-length", ""))
            if md5 := _hexadecimal("md5", headers.get("content-md5", "")):
                digests.setdefault("md5", md5)
        else:
            start, total = _content_range(headers.get("content-range", ""))
        return cls(start, total, _validator(headers), digests, file_name(headers.get("content-disposition", "")))


def file_name(disposition: str) -> str | None:
    """Return the sanitized file name of a ``Content-Disposition``, or ``None``."""
    message = Message()
    message["content-disposition"] = disposition
    try:
        return safe_name(message.get_filename() or "")
    except (LookupError, TypeError, ValueError):  # invalid header
        return None


def safe_name(text: str) -> str | None:
    """Return *text* as a safe file name without a path; ``None`` if no character remains, or its suffix is reserved.

    Removes control characters and leading dots, and shortens the name to :data:`MAX_NAME_BYTES`.
    """
    last = re.split(r"[/\\]", unicodedata.normalize("NFC", text))[-1]
    cleaned = "".join("_" if c in '<>:"|?*' else c for c in last if unicodedata.category(c)[0] != "C")
    name = cleaned.strip().lstrip(".").encode("utf-8", "ignore")[:MAX_NAME_BYTES].decode("utf-8", "ignore").strip()
    return None if not name or name.casefold().endswith(RESERVED_SUFFIXES) else name


def _validator(headers: Mapping[str, str]) -> str | None:
    """Return the value for ``If-Range``: an ETag or ``Last-Modified`` that is a strong validator (RFC 9110, 8.8)."""
    if headers.get("accept-ranges", "").strip().lower() == "none":
        return None
    etag = headers.get("etag", "").strip()
    if re.fullmatch(r'"[\x21\x23-\x7e]*"', etag):
        return etag
    modified = headers.get("last-modified", "").strip()
    try:
        is_strong = parsedate_to_datetime(headers["date"]) - parsedate_to_datetime(modified) >= timedelta(seconds=1)
    except (KeyError, LookupError, ArithmeticError, TypeError, ValueError):
        return None
    return modified if is_strong else None


def _content_range(text: str) -> tuple[int | None, int | None]:
    match = re.fullmatch(r"\s*bytes\s+(\d{1,18})-(\d{1,18})/(\d{1,18}|\*)\s*", text)
    if not match or int(match[2]) < int(match[1]):
        return None, None
    total = None if match[3] == "*" else int(match[3])
    # The range must extend to the end of the file.
    if total is not None and int(match[2]) != total - 1:
        return None, None
    return int(match[1]), total


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"\d{1,18}", text.strip(), re.ASCII) else None


def _digests(values: list[str]) -> dict[str, str]:
    """Parse ``sha-256=:...:`` (RFC 9530) and ``SHA-256=...`` (RFC 3230); later values win."""
    digests: dict[str, str] = {}
    for value in values:
        for name, encoded in re.findall(r"([\w-]+)=:?([A-Za-z0-9+/]+=*):?", value):
            algorithm = name.lower().replace("-", "")
            if digest := _hexadecimal(algorithm, encoded):
                digests[algorithm] = digest
    return digests


def _hexadecimal(algorithm: str, encoded: str) -> str | None:
    try:
        raw = base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw.hex() if len(raw) == DIGEST_BYTES.get(algorithm) else None
