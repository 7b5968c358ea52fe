"""The TLS server that all sides poll, in a separate process, and its controller in the measuring process.

It serves the provider's contract, dbt Cloud's API (``GET /api/v2/accounts/1/runs/<id>/``), and a resource for a generic
HTTP sensor (``GET /generic/<id>``: 404 until the job has ended). It does as little as possible, so that the clients
dominate the measurement: responses are precomputed, and requests are not validated.

It also accepts trainings, by the contract's request or ``POST /generic``, which returns the id as text. Such a job ends
by itself, some seconds after its first poll: so each wait is a real one, however late a busy machine begins it.

Run the server with ``python -m benchmarks.service CERTIFICATE JOBS SECONDS``.
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
from airflow_provider_osai.api.wire_format import encode_response

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

    :param jobs: the number of jobs; all are running until :meth:`end`.
    :param seconds: seconds from the first poll of a submitted job to its end.
    """

    def __init__(self, jobs: int, seconds: float = 5.0) -> None:
        self._jobs = jobs
        self._seconds = seconds
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
        # The server exits when its standard input is closed, so it cannot outlive this process.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.service", str(certificate), str(self._jobs), str(self._seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
        )
        line = cast("Any", self._process.stdout).readline()
        if not line:
            self.__exit__(None, None, None)
            raise RuntimeError("The server of the benchmark did not start; its error is above")
        self.port = json.loads(line)["port"]
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
        """Environment variables for a client's process: the server's certificate and the Airflow connections."""
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
        """Return the totals so far, and the number of jobs ``seen`` (polled) since :meth:`forget`.

        Totals: ``requests``, ``looks`` (polled jobs; one request may poll many), ``sign_ins``, ``handshakes``,
        ``submitted``.
        """
        return cast("dict[str, int]", self._control("counts"))

    def forget(self) -> None:
        """Reset the number of jobs ``seen``."""
        self._control("forget")

    def end(self, job_ids: list[str]) -> None:
        """Let these jobs succeed now."""
        self._control("end", job_ids)

    def restart(self) -> None:
        """Let all jobs run again."""
        self._control("restart")

    def cpu(self) -> float:
        """Return the CPU seconds that the server has used."""
        times = psutil.Process(cast("Any", self._process).pid).cpu_times()
        return float(times.user + times.system)

    def _control(self, verb: str, document: object = None) -> Any:
        return cast("Any", self._http).post(f"/control/{verb}", json=document).raise_for_status().json()


class _Jobs:
    """The server's state: the ended jobs, and counters of requests."""

    def __init__(self, jobs: int, seconds: float) -> None:
        self._seconds = seconds
        self._unpolled: set[bytes] = set()
        ids = [str(number).encode() for number in range(1, jobs + 1)]
        self._running = {job: _job_text(job, "running", 0.42) for job in ids}
        self._succeeded = {job: _job_text(job, "succeeded", 1.0) for job in ids}
        self._ended: set[bytes] = set()
        self._seen: set[bytes] = set()
        self._jwt = jwt.encode({"iat": _BEGAN, "exp": _BEGAN + 86_400}, os.urandom(32), "HS256").encode()
        self.requests = self.looks = self.sign_ins = self.handshakes = self.submitted = 0

    def answer(self, method: bytes, url: bytes, body: bytes) -> tuple[int, bytes]:
        """Return the status and body of the response to a request."""
        path, _, query = url.partition(b"?")
        if path.startswith(b"/control/"):
            return 200, json.dumps(self._control(path.rpartition(b"/")[2], body)).encode()
        self.requests += 1
        if path == _SIGN_IN:
            self.sign_ins += 1
            return 200, self._jwt
        if method == b"POST" and path in (_JOBS, _GENERIC):
            job = self._submit(json.loads(body))
            return 200, job if path == _GENERIC else self._running[job]
        if path.endswith(b"/Cancel"):
            return 200, self._cancel(path.split(b"/")[-2])
        if path == _JOBS:
            return 200, self._list(query)
        parent, _, job = path.rstrip(b"/").rpartition(b"/")
        return self._one(parent, job) if job in self._running else (400, b'{"message": "there is no such job"}')

    def _submit(self, request: dict[str, Any]) -> bytes:
        job = str(len(self._running) + 1).encode()
        key = request.get("reference")
        self._running[job] = _job_text(job, "running", 0.42, key)
        self._succeeded[job] = _job_text(job, "succeeded", 1.0, key)
        self._unpolled.add(job)
        self.submitted += 1
        return job

    def _cancel(self, job: bytes) -> bytes:
        self._succeeded[job] = self._running[job].replace(b'"running"', b'"cancelled"')
        self._ended.add(job)
        return self._succeeded[job]

    def _see(self, jobs: list[bytes]) -> None:
        self._seen.update(jobs)
        self.looks += len(jobs)
        if first := self._unpolled.intersection(jobs):
            self._unpolled -= first
            asyncio.get_running_loop().call_later(self._seconds, self._ended.update, first)

    def _one(self, parent: bytes, job: bytes) -> tuple[int, bytes]:
        self._see([job])
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
        self._see(known)
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
            "submitted": self.submitted,
            "seen": len(self._seen),
        }


class _Connection(asyncio.Protocol):
    """HTTP/1.1 with keep-alive, with a parser in C."""

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
        status, text = self._jobs.answer(self._parser.get_method(), self._url, self._body)
        kind = b"text/plain" if self._url == _SIGN_IN else b"application/json"
        head = b"HTTP/1.1 %d X\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n" % (status, kind, len(text))
        self._transport.write(head + text)
        if not self._parser.should_keep_alive():
            self._transport.close()


def _job_text(job: bytes, status: str, progress: float, key: str | None = None) -> bytes:
    """Return a job of a typical size, about 250 bytes.

    :param key: its idempotency key; ``None``: one made up of its id.
    """
    fields = {
        "id": job.decode(), "status": status, "reference": key or f"osai-{job.decode():0>32}", "progress": progress,
        "createdAt": "2026-01-01T00:00:00Z", "startedAt": "2026-01-01T00:00:05Z",
        "message": "Epoch 42 of 100", "modelType": "classification", "name": f"nightly-{job.decode()}",
    }  # fmt: skip
    return json.dumps(encode_response(ENDPOINTS["training.get"], fields).document).encode()


async def _serve(certificate: str, jobs: int, seconds: float) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    loop = asyncio.get_running_loop()
    known = _Jobs(jobs, seconds)
    # 5,000 sensors may connect at the same time.
    server = await loop.create_server(lambda: _Connection(known), HOST, 0, ssl=context, backlog=8192)
    sys.stdout.write(json.dumps({"port": server.sockets[0].getsockname()[1]}) + "\n")
    sys.stdout.flush()
    await loop.run_in_executor(None, sys.stdin.read)


def main(certificate: str, jobs: int, seconds: float) -> None:
    """Serve until the standard input is closed."""
    try:
        from uvloop import run  # not available on every system
    except ImportError:
        from asyncio import run  # type: ignore[assignment]  # its options differ, which are not used
    run(_serve(certificate, jobs, seconds))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
