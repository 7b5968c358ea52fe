"""One of many flows that wait on the same event loop."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

from airflow_provider_osai.api.calls import Call
from airflow_provider_osai.jobs.flow import Flow, Sleep

__all__ = ["Waiter"]


class Waiter:
    """One flow, what it wants next, and who is told of its end."""

    __slots__ = ("_context", "_flow", "end", "slack", "step")

    def __init__(self, flow: Flow[Any]) -> None:
        self._flow = flow
        self._context = contextvars.copy_context()
        self.end: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.step: Call[Any] | Sleep | None = None
        self.slack = 0.0

    def move(self, answer: Any) -> None:
        """Give the flow what it asked for, or throw it, and take its next wish."""
        self.step = None
        if self.end.done():
            return
        try:
            if isinstance(answer, Exception):
                # The same error may go to many flows; each would hang its own frames and errors on it.
                answer.__traceback__ = answer.__context__ = None
                self.step = self._context.run(self._flow.throw, answer)
            else:
                self.step = self._context.run(self._flow.send, answer)
        except StopIteration as end:
            self.end.set_result(end.value)
        except Exception as error:  # noqa: BLE001 - the caller's to handle
            self.end.set_exception(error)
