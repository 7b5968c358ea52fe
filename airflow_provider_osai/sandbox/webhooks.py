"""Tells a job's webhook that the job has ended (docs.onestepai.com/api; the payload is assumed)."""

from __future__ import annotations

import http.client
import json
import logging
import ssl
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from airflow_provider_osai.sandbox.records import JobRecord
from airflow_provider_osai.sandbox.workers import Pool

__all__ = ["Webhooks"]

THREADS = 8
"""Webhooks on their way at the same time."""
TRIES = 3
TIMEOUT = 5.0
PAUSE = 0.2
"""Seconds before the second try; twice as long before the third."""

log = logging.getLogger(__name__)


class Webhooks:
    """Sends webhooks on threads of its own.

    :param word: returns the status word that the payload carries.
    :param copies: returns how often a job's webhook is sent.
    """

    def __init__(self, word: Callable[[JobRecord], str], copies: Callable[[JobRecord], int]) -> None:
        self._word, self._copies = word, copies
        self._closed = threading.Event()
        self._pool: Pool[tuple[str, dict[str, Any]]] = Pool(THREADS, self._send, "osai-webhook")

    def job_ended(self, job: JobRecord) -> None:
        """Queue the job's webhook, if it has one."""
        if job.webhook_url:
            payload = {"id": job.id, "kind": job.kind.value, "status": self._word(job)}
            for _ in range(self._copies(job)):
                self._pool.put((job.webhook_url, payload))

    def close(self) -> None:
        """Give up what has not been sent, and stop."""
        self._closed.set()
        self._pool.close()

    def _send(self, message: tuple[str, dict[str, Any]]) -> None:
        url, payload = message
        for attempt in range(TRIES):
            if self._closed.is_set() or (attempt and self._closed.wait(PAUSE * 2 ** (attempt - 1))):
                return
            try:
                if 200 <= _post(url, payload) < 300:
                    return
            except (OSError, http.client.HTTPException):
                pass  # tried again, or told below; the address may hold a token, so nobody quotes it
        log.warning("the webhook of %s job %s was not taken in %s tries", payload["kind"], payload["id"], TRIES)


def _post(url: str, payload: dict[str, Any]) -> int:
    """Send one webhook and return the status. With the standard library: it logs no address and follows no redirect."""
    parts = urlsplit(url)
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        unverified = ssl._create_unverified_context()  # noqa: S323 - it never leaves this machine
        connection = http.client.HTTPSConnection(parts.netloc, timeout=TIMEOUT, context=unverified)
    else:
        connection = http.client.HTTPConnection(parts.netloc, timeout=TIMEOUT)
    try:
        target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        connection.request("POST", target, json.dumps(payload), {"Content-Type": "application/json"})
        return connection.getresponse().status
    finally:
        connection.close()
