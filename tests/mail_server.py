"""A mail server on this machine, in a thread, so that notifiers send real mail."""

from __future__ import annotations

import asyncio
import contextlib
import email
import email.policy
import socket
import threading

from aiosmtpd.smtp import SMTP, AuthResult


class MailServer:
    """Keeps what it receives.

    :param password: of every user; another one is rejected.
    """

    def __init__(self, password: str) -> None:
        self.received = []
        self._password = password.encode()
        self._listener = socket.create_server(("127.0.0.1", 0))

    @property
    def connection(self) -> dict[str, object]:
        """Airflow's connection to it."""
        return {
            "conn_type": "smtp",
            "host": "127.0.0.1",
            "port": self._listener.getsockname()[1],
            "login": "airflow",
            "password": self._password.decode(),
            "extra": {"disable_ssl": True, "disable_tls": True, "retry_limit": 1, "timeout": 30},
        }

    async def handle_DATA(self, server, session, envelope):  # noqa: N802 - aiosmtpd's name
        """Keep a mail, as aiosmtpd's handler."""
        self.received.append(email.message_from_bytes(envelope.content, policy=email.policy.default))
        return "250 OK"

    def _authenticate(self, server, session, envelope, mechanism, given):
        return AuthResult(success=given.password == self._password)

    @contextlib.contextmanager
    def running(self):
        """Accept mail."""
        loop = asyncio.new_event_loop()

        def protocol():
            return SMTP(self, hostname="localhost", loop=loop, authenticator=self._authenticate, auth_require_tls=False)

        server = loop.run_until_complete(loop.create_server(protocol, sock=self._listener))
        thread = threading.Thread(target=loop.run_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(server.close)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(10)
            loop.close()


def body(mail):
    """Return the text of a mail's only part."""
    (part,) = (part for part in mail.walk() if not part.is_multipart())
    return part.get_content()
