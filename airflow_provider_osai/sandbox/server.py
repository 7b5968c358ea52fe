"""A sandbox that runs: uvicorn in a thread, on this machine only."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any, Self, cast

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from airflow_provider_osai.api.contract import Contract
from airflow_provider_osai.sandbox.app import TRANSPORT, create_app
from airflow_provider_osai.sandbox.control import Control
from airflow_provider_osai.sandbox.state import SandboxState

__all__ = ["Sandbox"]

HOST = "127.0.0.1"


class Sandbox:
    """A running local OSAI, as a context manager.

    :param port: where it listens; 0 takes a free port.
    :param contract: the words that it speaks; the defaults if left out.
    :param state: what it knows; made from *options* if left out, and then closed with the sandbox.
    :param options: as for :class:`~airflow_provider_osai.sandbox.state.SandboxState`.
    """

    def __init__(
        self, port: int = 0, *, contract: Contract | None = None, state: SandboxState | None = None, **options: Any
    ) -> None:
        self._port, self._own = port, state is None
        self.state: SandboxState = SandboxState(**options) if state is None else state
        self.app = create_app(self.state, contract=contract)
        self.control: Control = self.app.state.control
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def portal_url(self) -> str:
        """The address of the portal, without a slash at its end."""
        return f"http://{HOST}:{self._port}"

    @property
    def base_url(self) -> str:
        """The address of the API, for a connection's ``base_url``."""
        return f"{self.portal_url}/api"

    @property
    def access_token(self) -> str:
        """The token that signs in, for a connection's password."""
        return self.state.access_token

    def start(self) -> Self:
        """Listen and return when requests are answered. A sandbox starts once.

        :raises OSError: if the port is taken.
        """
        try:
            listener = socket.create_server((HOST, self._port))
        except OSError:
            self.stop()
            raise
        self._port = listener.getsockname()[1]
        config = uvicorn.Config(
            self.app, http=_Protocol, ws="none", log_config=None, access_log=False, timeout_graceful_shutdown=1
        )
        self._server = _Server(config)
        self._thread = threading.Thread(
            target=self._server.run, args=([listener],), name=f"osai-sandbox-{self._port}", daemon=True
        )
        self._thread.start()
        self._server.ready.wait(10.0)
        return self

    def stop(self) -> None:
        """Stop listening, end the jobs and remove what was stored, unless that is in a folder of the user."""
        if self._server and self._thread:
            self._server.should_exit = True
            self._thread.join(10.0)
            self._server = self._thread = None
        if self._own:
            self.state.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()


class _Server(uvicorn.Server):
    """Says when it is ready."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


class _Protocol(H11Protocol):
    """Shows the app the connection's transport, so that it can drop the connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast("asyncio.Transport", transport))
        app = self.app

        async def with_transport(scope: Any, receive: Any, send: Any) -> None:
            scope[TRANSPORT] = transport
            await app(scope, receive, send)

        self.app = with_transport
