"""Run a sandbox: uvicorn in a thread, listening on the loopback address only."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import threading
from typing import Any, Self, cast

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from airflow_provider_osai.api.contract import Contract
from airflow_provider_osai.sandbox.app import TRANSPORT, create_app
from airflow_provider_osai.sandbox.control import Control
from airflow_provider_osai.sandbox.state import SandboxState

__all__ = ["Sandbox"]

HOST = "127.0.0.1"

_socket_log = logging.getLogger(f"{__name__}.websocket")
_socket_log.setLevel(logging.WARNING)


class Sandbox:
    """A running local OSAI, as a context manager.

    :param port: the port to listen on; 0 picks a free one.
    :param contract: the endpoints and names to serve; default: the default contract.
    :param base_path: the path of the API, without a trailing slash; may be empty.
    :param state: its state; default: created from *options*, and closed with the sandbox.
    :param options: as for :class:`~airflow_provider_osai.sandbox.state.SandboxState`.
    """

    def __init__(
        self,
        port: int = 0,
        *,
        contract: Contract | None = None,
        base_path: str = "/api",
        state: SandboxState | None = None,
        **options: Any,
    ) -> None:
        self._port = port
        self._base_path = base_path
        self._owns_state = state is None
        if state is None and contract is not None and contract.has_number_ids:
            options.setdefault("new_id", _number)
        self.state: SandboxState = SandboxState(**options) if state is None else state
        self.app = create_app(self.state, contract=contract, base_path=base_path)
        self.control: Control = self.app.state.control
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def portal_url(self) -> str:
        """The address of the portal, without a trailing slash."""
        return f"http://{HOST}:{self._port}"

    @property
    def base_url(self) -> str:
        """The address of the API, for a connection's ``base_url``."""
        return f"{self.portal_url}{self._base_path}"

    @property
    def access_token(self) -> str:
        """The access token, for a connection's password."""
        return self.state.access_token

    def start(self) -> Self:
        """Start listening; return when the server is ready. A sandbox can be started once only.

        :raises OSError: if the port is in use.
        """
        try:
            listener = socket.create_server((HOST, self._port))
        except OSError:
            self.stop()
            raise
        self._port = listener.getsockname()[1]
        config = uvicorn.Config(
            self.app, http=_Protocol, ws=_SocketProtocol, log_config=None, access_log=False, timeout_graceful_shutdown=1
        )
        self._server = _Server(config)
        self._thread = threading.Thread(
            target=self._server.run, args=([listener],), name=f"osai-sandbox-{self._port}", daemon=True
        )
        self._thread.start()
        self._server.ready.wait(10.0)
        return self

    def stop(self) -> None:
        """Stop the server and its jobs, and delete the stored files unless they are in a user's folder."""
        if self._server and self._thread:
            self._server.should_exit = True
            self._thread.join(10.0)
            self._server = None
            self._thread = None
        if self._owns_state:
            self.state.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()


def _number() -> str:
    """Return an id that is a number, and exact in JSON."""
    return str(secrets.randbelow(9 * 10**14) + 10**14)


class _Server(uvicorn.Server):
    """A uvicorn server that sets ``ready`` when it has started."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


class _Protocol(H11Protocol):
    """Exposes the connection's transport to the app, so that faults can drop the connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast("asyncio.Transport", transport))
        app = self.app

        async def with_transport(scope: Any, receive: Any, send: Any) -> None:
            scope[TRANSPORT] = transport
            await app(scope, receive, send)

        self.app = with_transport


class _SocketProtocol(WebSocketsSansIOProtocol):
    """Logs warnings and errors only: uvicorn would log the address of a WebSocket, which has a token."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.logger = self.conn.logger = _socket_log
        self.conn.debug = False
