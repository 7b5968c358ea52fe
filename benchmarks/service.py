"""The one TLS server that all sides ask, in a process of its own, and its face in the measuring process.

It answers in the words of the provider's contract, as dbt Cloud does (``GET /api/v2/accounts/1/runs/<id>/``), and as
something that a generic HTTP sensor waits for (``GET /generic/<id>``: 404 until it is there). It does as little as it
can, so that the clients are what is measured: answers are made beforehand, nothing is checked.

Run as a module it is the server: ``python -m benchmarks.service CERTIFICATE JOBS``.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import httptools
import httpx
import jwt
import psutil
import trustme

from airflow_provider_osai.api.contract import ENDPOINTS

__all__ = ["Service"]

HOST = "127.0.0.1"
API = "/api"
ACCESS_TOKEN = "benchmark-access-token"
_SIGN_IN = (API + ENDPOINTS["auth.sign_in"].path).encode()
_JOBS = (API + ENDPOINTS["training.list"].path).encode()
_RUNS = b"/api/v2/accounts/1/runs"
_GENERIC = b"/generic"
_BEGAN = time.time()


class Service:
    """A running server for jobs ``1`` to *jobs*, as a context manager.

    :param jobs: how many jobs there are; all run until :meth:`end` is told otherwise.
    """

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._folder = tempfile.TemporaryDirectory(prefix="osai-bench-")
        self.authority = Path(self._folder.name) / "ca.pem"
        self.port = 0
        self._process: subprocess.Popen[str] | None = None
        self._http: httpx.Client | None = None

    def __enter__(self) -> Self:
        certificate = self.authority.with_name("server.pem")
        ca = trustme.CA()
        ca.cert_pem.write_to_path(str(self.authority))
        ca.issue_cert(HOST, "localhost").private_key_and_cert_chain_pem.write_to_path(str(certificate))
        # The server ends when its input does, so it cannot outlive this process.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.service", str(certificate), str(self._jobs)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
        )
        self.port = json.loads(cast("Any", self._process.stdout).readline())["port"]
        context = ssl.create_default_context(cafile=str(self.authority))
        self._http = httpx.Client(base_url=self.url, verify=context, trust_env=False, timeout=60.0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._http:
            self._http.close()
        if self._process:
            self._process.communicate()
        self._folder.cleanup()

    @property
    def url(self) -> str:
        """The server's address, without a path."""
        return f"https://{HOST}:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What a client's process needs in its environment to trust the server and to know its connections."""
        osai = {"conn_type": "osai", "password": ACCESS_TOKEN}
        base = {"base_url": self.url + API}
        connections = {
            "bench_http": {"conn_type": "http", "host": self.url},
            "bench_dbt": {
                "conn_type": "dbt_cloud", "host": f"{HOST}:{self.port}", "login": "1", "password": ACCESS_TOKEN,
            },
            "bench_osai": {**osai, "extra": base},
            "bench_single": {**osai, "extra": {**base, "contract": {"training.list": None}}},
        }  # fmt: skip
        env = {f"AIRFLOW_CONN_{name.upper()}": json.dumps(fields) for name, fields in connections.items()}
        return {**env, "SSL_CERT_FILE": str(self.authority)}

    def counts(self) -> dict[str, int]:
        """Return what there was so far, and the number of jobs ``seen`` since :meth:`forget`.

        ``requests``, ``looks`` (jobs asked for, of which a request may hold many), ``sign_ins``, ``handshakes``.
        """
        return cast("dict[str, int]", self._control("counts"))

    def forget(self) -> None:
        """Forget which jobs were asked for."""
        self._control("forget")

    def end(self, job_ids: list[str]) -> None:
        """Let these jobs succeed, now."""
        self._control("end", job_ids)

    def restart(self) -> None:
        """Let all jobs run again."""
        self._control("restart")

    def cpu(self) -> float:
        """Return the seconds of CPU that the server has used."""
        times = psutil.Process(cast("Any", self._process).pid).cpu_times()
        return float(times.user + times.system)

    def _control(self, verb: str, document: object = None) -> Any:
        return cast("Any", self._http).post(f"/control/{verb}", json=document).raise_for_status().json()


class _Jobs:
    """What the server knows: which jobs have ended, and who asked for what."""

    def __init__(self, jobs: int) -> None:
        ids = [str(number).encode() for number in range(1, jobs + 1)]
        self._running = {job: _job_text(job, "running", 0.42) for job in ids}
        self._succeeded = {job: _job_text(job, "succeeded", 1.0) for job in ids}
        self._ended: set[bytes] = set()
        self._seen: set[bytes] = set()
        self._jwt = jwt.encode({"iat": _BEGAN, "exp": _BEGAN + 86_400}, os.urandom(32), "HS256").encode()
        self.requests = self.looks = self.sign_ins = self.handshakes = 0

    def answer(self, url: bytes, body: bytes) -> tuple[int, bytes]:
        """Return status and body for what is asked at *url*."""
        path, _, query = url.partition(b"?")
        if path.startswith(b"/control/"):
            return 200, json.dumps(self._control(path.rpartition(b"/")[2], body)).encode()
        self.requests += 1
        if path == _SIGN_IN:
            self.sign_ins += 1
            return 200, self._jwt
        if path == _JOBS:
            return 200, self._list(query)
        parent, _, job = path.rstrip(b"/").rpartition(b"/")
        return self._one(parent, job) if job in self._running else (400, b'{"message": "there is no such job"}')

    def _one(self, parent: bytes, job: bytes) -> tuple[int, bytes]:
        self._seen.add(job)
        self.looks += 1
        if parent == _JOBS:
            return 200, self._text(job)
        if parent == _RUNS:
            return 200, b'{"data": {"id": %b, "status": %d}}' % (job, 10 if job in self._ended else 3)
        done = parent == _GENERIC and job in self._ended
        return (200, b'{"status": "done"}') if done else (404, b'{"status": "not yet"}')

    def _list(self, query: bytes) -> bytes:
        name, _, value = query.partition(b"=")
        ids = value.replace(b"%2C", b",").split(b",") if name == b"ids" else []
        known = [job for job in ids if job in self._running]
        self._seen.update(known)
        self.looks += len(known)
        return b"[%b]" % b",".join(map(self._text, known))

    def _text(self, job: bytes) -> bytes:
        return (self._succeeded if job in self._ended else self._running)[job]

    def _control(self, verb: bytes, body: bytes) -> object:
        if verb == b"end":
            self._ended.update(job.encode() for job in json.loads(body))
        elif verb == b"restart":
            self._ended.clear()
        elif verb == b"forget":
            self._seen.clear()
        return {
            "requests": self.requests,
            "looks": self.looks,
            "sign_ins": self.sign_ins,
            "handshakes": self.handshakes,
            "seen": len(self._seen),
        }


class _Connection(asyncio.Protocol):
    """HTTP/1.1 with keep-alive, by a parser in C."""

    def __init__(self, jobs: _Jobs) -> None:
        self._jobs = jobs
        self._parser = httptools.HttpRequestParser(self)
        self._url = self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._jobs.handshakes += 1

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._url = self._body = b""

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        status, text = self._jobs.answer(self._url, self._body)
        kind = b"text/plain" if self._url == _SIGN_IN else b"application/json"
        head = b"HTTP/1.1 %d X\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n" % (status, kind, len(text))
        self._transport.write(head + text)
        if not self._parser.should_keep_alive():
            self._transport.close()


def _job_text(job: bytes, status: str, progress: float) -> bytes:
    """Return a job as a training API might describe it: about 250 bytes."""
    fields = {
        "id": job.decode(), "status": status, "reference": f"osai-{job.decode():0>32}", "progress": progress,
        "createdAt": "2026-01-01T00:00:00Z", "startedAt": "2026-01-01T00:00:05Z",
        "message": "Epoch 42 of 100", "modelType": "classification", "name": f"nightly-{job.decode()}",
    }  # fmt: skip
    return json.dumps(ENDPOINTS["training.get"].write(fields)).encode()


async def _serve(certificate: str, jobs: int) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    loop = asyncio.get_running_loop()
    known = _Jobs(jobs)
    # Sensors of 5,000 tasks may all connect in the same moment.
    server = await loop.create_server(lambda: _Connection(known), HOST, 0, ssl=context, backlog=8192)
    sys.stdout.write(json.dumps({"port": server.sockets[0].getsockname()[1]}) + "\n")
    sys.stdout.flush()
    await loop.run_in_executor(None, sys.stdin.read)


def main(certificate: str, jobs: int) -> None:
    """Serve until the input ends."""
    try:
        from uvloop import run  # noqa: PLC0415 - is not for every system
    except ImportError:
        from asyncio import run  # noqa: PLC0415
    run(_serve(certificate, jobs))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
