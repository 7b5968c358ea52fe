"""Send webhooks when jobs end (docs.onestepai.com/api; the payload is assumed)."""

from __future__ import annotations

import http.client
import json
import logging
import ssl
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from airflow_provider_osai.sandbox.models import JobRecord
from airflow_provider_osai.sandbox.thread_pool import Pool

__all__ = ["Webhooks"]

THREADS = 8
"""Maximum number of concurrent webhooks."""
TRIES = 3
TIMEOUT = 5.0
BACKOFF = 0.2
"""Seconds before the second try; doubled for the third."""

log = logging.getLogger(__name__)


class Webhooks:
    """Sends webhooks on worker threads.

    :param status: returns the status word for the payload.
    :param copies: returns how many times a job's webhook is sent.
    """

    def __init__(self, status: Callable[[JobRecord], str], copies: Callable[[JobRecord], int]) -> None:
        self._status = status
        self._copies = copies
        self._closed = threading.Event()
        self._pool: Pool[tuple[str, dict[str, Any]]] = Pool(THREADS, self._send, "osai-webhook")

    def job_ended(self, job: JobRecord) -> None:
        """Queue the job's webhook, if it has one."""
        if job.webhook_url:
            payload = {"id": job.id, "kind": job.kind.value, "status": self._status(job)}
            for _ in range(self._copies(job)):
                self._pool.put((job.webhook_url, payload))

    def close(self) -> None:
        """Drop pending webhooks, and stop the threads."""
        self._closed.set()
        self._pool.close()

    def _send(self, message: tuple[str, dict[str, Any]]) -> None:
        url, payload = message
        for attempt in range(TRIES):
            if self._closed.is_set() or (attempt and self._closed.wait(BACKOFF * 2 ** (attempt - 1))):
                return
            try:
                if 200 <= _post(url, payload) < 300:
                    return
            except (OSError, http.client.HTTPException):
                pass  # retried, or logged below without the address, which may contain a token
        log.warning("Webhook of %s job %s failed %s times; giving up", payload["kind"], payload["id"], TRIES)


def _post(url: str, payload: dict[str, Any]) -> int:
    """Send one webhook and return the response status.

    Uses http.client, which does not log the address and does not follow redirects.
    """
    parts = urlsplit(url)
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        unverified = ssl._create_unverified_context()  # noqa: S323 - loopback only
        connection = http.client.HTTPSConnection(parts.netloc, timeout=TIMEOUT, context=unverified)
    else:
        connection = http.client.HTTPConnection(parts.netloc, timeout=TIMEOUT)
    try:
        target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        connection.request("POST", target, json.dumps(payload), {"Content-Type": "application/json"})
        return connection.getresponse().status
    finally:
        connection.close()
