"""What all operators share: how a flow is run on a worker, and which errors end a task for good."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from airflow.providers.common.compat.sdk import AirflowFailException, BaseOperator

from airflow_provider_osai.api.errors import OsaiError
from airflow_provider_osai.assets.events import announce
from airflow_provider_osai.assets.freshness import DATA_DIGEST, skip_unless_new
from airflow_provider_osai.hooks.osai import OsaiHook
from airflow_provider_osai.jobs.flow import Flow, run

if TYPE_CHECKING:
    from datetime import datetime

    from airflow.sdk import Asset, Context

    from airflow_provider_osai.api.calls import Calls
    from airflow_provider_osai.api.client import OsaiClient

__all__ = ["OsaiFlowOperator", "OsaiOperator", "OsaiTransferOperator", "Transfer", "no_vain_retries", "started_at"]


@contextmanager
def no_vain_retries() -> Iterator[None]:
    """Let errors that no retry can mend end the task at once, whatever its ``retries``."""
    try:
        yield
    except OsaiError as error:
        if error.retryable:
            raise
        raise AirflowFailException(f"{type(error).__name__}: {error}") from error


def started_at(context: Context) -> float:
    """Return when this try of the task started, in seconds since the epoch; a deferral does not change it."""
    started: datetime | None = context["ti"].start_date
    return started.timestamp() if started else time.time()


class OsaiOperator(BaseOperator):
    """Has a connection to OSAI.

    :param osai_conn_id: the connection's id.
    :param multiple_outputs: whether each key of the returned dict is an XCom of its own, so that a later task can take
        ``task.output["model_id"]``.
    """

    template_fields: Sequence[str] = ("osai_conn_id",)
    ui_color = "#d9f2ec"

    def __init__(
        self, *, osai_conn_id: str = OsaiHook.default_conn_name, multiple_outputs: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(multiple_outputs=multiple_outputs, **kwargs)
        self.osai_conn_id = osai_conn_id

    @cached_property
    def hook(self) -> OsaiHook:
        """The hook of this task's connection."""
        return OsaiHook(self.osai_conn_id)


class OsaiFlowOperator(OsaiOperator):
    """Runs one flow against OSAI, on the worker from start to end, and returns its value."""

    is_killed = False
    """Whether Airflow has told this task to end."""

    @abstractmethod
    def build_flow(self, calls: Calls) -> Flow[dict[str, Any]]:
        """Return what this operator does; raise OsaiArgumentError on a bad value."""

    def execute(self, context: Context) -> dict[str, Any]:
        """Run the flow; see the class."""
        with no_vain_retries(), self.hook.get_conn() as client:
            told = run(self.build_flow(client.calls), client.send)
        announce(self, context, told)
        return told

    def on_kill(self) -> None:
        """Let a flow that asks see that it shall end; it may run in a signal handler."""
        self.is_killed = True


class Transfer(Protocol):
    """Something that moves bytes."""

    def run(self) -> dict[str, Any]:
        """Do it, and return what the task hands on; ``digest`` tells what was moved from other data."""

    def stop(self) -> None:
        """Have it end soon and in order; called from a signal's handler."""


class OsaiTransferOperator(OsaiOperator):
    """Moves many bytes on the worker; a kill ends that in order.

    :param trained: an asset that a training has among its ``outlets``: if its last event tells of the same data, this
        task is skipped in the end, and so is what follows.
    """

    _transfer: Transfer | None = None
    _is_killed = False

    def __init__(self, *, trained: Asset | None = None, **kwargs: Any) -> None:
        super().__init__(inlets=[*(kwargs.pop("inlets", None) or ()), *filter(None, [trained])], **kwargs)
        self.trained = trained

    @abstractmethod
    def build_transfer(self, client: OsaiClient, context: Context) -> Transfer:
        """Return what this operator does; raise OsaiArgumentError on a bad value, before anything is sent."""

    def execute(self, context: Context) -> dict[str, Any]:
        """Run the transfer; see the class."""
        with no_vain_retries(), self.hook.get_conn() as client:
            self._transfer = self.build_transfer(client, context)
            if self._is_killed:
                self._transfer.stop()
            return self._hand_on(context, self._transfer.run())

    def _hand_on(self, context: Context, told: dict[str, Any]) -> dict[str, Any]:
        """Return what the task hands on, and say it in the events of its assets, unless nothing is new."""
        if self.trained is not None:
            skip_unless_new(told["digest"], self.trained, context)
        announce(self, context, {**told, DATA_DIGEST: told["digest"]})
        return told

    def on_kill(self) -> None:
        """Have the transfer end in order; a retry goes on with what is left."""
        self._is_killed = True
        if self._transfer is not None:
            self._transfer.stop()
