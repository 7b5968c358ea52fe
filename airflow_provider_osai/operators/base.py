"""What all operators share: how a flow is run on a worker, and which errors end a task for good."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections import ChainMap
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

from airflow.providers.common.compat.sdk import AirflowFailException, BaseOperator
from airflow.sdk.definitions.mappedoperator import OperatorPartial

from airflow_provider_osai.api.errors import OsaiArgumentError, OsaiError
from airflow_provider_osai.assets.events import announce
from airflow_provider_osai.assets.freshness import DATA_DIGEST, skip_unless_new
from airflow_provider_osai.hooks.osai import OsaiHook
from airflow_provider_osai.jobs.flow import Flow, run

if TYPE_CHECKING:
    from datetime import datetime

    from airflow.sdk import Asset, Context
    from airflow.sdk.definitions.mappedoperator import MappedOperator

    from airflow_provider_osai.api.calls import Calls
    from airflow_provider_osai.api.client import OsaiClient

__all__ = [
    "OsaiFlowOperator",
    "OsaiOperator",
    "OsaiPartial",
    "OsaiTransferOperator",
    "Transfer",
    "no_vain_retries",
    "started_at",
]

ONE_FOR_ALL: Final = "an asset has to be known when the Dag is parsed, so give it in partial(), not in expand()"


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


class OsaiPartial(OperatorPartial):
    """What ``partial()`` returns. Its ``expand()`` refuses arguments that are the same for all mapped instances."""

    __slots__ = ()  # so that an OperatorPartial can become one

    def expand(self, **mapped_kwargs: Any) -> MappedOperator:
        """Map the operator over lists of values.

        :raises OsaiArgumentError: if an argument cannot be mapped.
        """
        self._refuse_unmappable(mapped_kwargs)
        return super().expand(**mapped_kwargs)

    def expand_kwargs(self, kwargs: Any, *, strict: bool = True) -> MappedOperator:
        """Map the operator over sets of arguments. Those in an XCom are checked when the task runs.

        :raises OsaiArgumentError: if an argument cannot be mapped.
        """
        sets = kwargs if isinstance(kwargs, Sequence) else ()
        self._refuse_unmappable(name for each in sets if isinstance(each, Mapping) for name in each)
        return super().expand_kwargs(kwargs, strict=strict)

    def _refuse_unmappable(self, mapped: Iterable[str]) -> None:
        operator: Any = self.operator_class
        for name in mapped:
            if name in operator.fixed_arguments or name in operator.asset_arguments:
                self._expand_called = True  # else Airflow warns that the task was never mapped, on top of the error
                reason = ONE_FOR_ALL if name in operator.asset_arguments else "it has one value only"
                raise OsaiArgumentError(f"{operator.__name__} cannot be mapped over {name}: {reason}")


class OsaiOperator(BaseOperator):
    """Has a connection to OSAI.

    Of a mapped task, Airflow reads scheduling arguments, inlets and outlets from what ``partial()`` returns; its
    instances come too late. So a subclass declares what it adds to them, and ``__init__`` and ``partial()`` both do.

    :param osai_conn_id: the connection's id.
    :param multiple_outputs: whether each key of the returned dict is an XCom of its own, so that a later task can take
        ``task.output["model_id"]``.
    """

    template_fields: Sequence[str] = ("osai_conn_id",)
    ui_color = "#d9f2ec"
    task_defaults: ClassVar[Mapping[str, Any]] = {}
    """Defaults of Airflow's own arguments, such as ``retries``. They win over ``default_args``."""
    fixed_arguments: ClassVar[Mapping[str, Any]] = {}
    """Arguments of a base class that have one value only, and are refused."""
    asset_arguments: ClassVar[Mapping[str, Sequence[str]]] = {}
    """Arguments that are an asset, each with what it is added to: ``inlets``, ``outlets`` or both."""

    def __init__(
        self, *, osai_conn_id: str = OsaiHook.default_conn_name, multiple_outputs: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(multiple_outputs=multiple_outputs, **{**self.task_defaults, **kwargs})
        self.osai_conn_id = osai_conn_id

    @classmethod
    def partial(cls, **kwargs: Any) -> OperatorPartial:
        """Return the operator with the arguments that are the same for all mapped instances."""
        if refused := sorted(cls.fixed_arguments.keys() & kwargs.keys()):
            raise TypeError(f"{cls.__name__}.partial() got unexpected arguments: {', '.join(refused)}")
        made = super().partial(**{**cls.task_defaults, **kwargs})
        made.__class__ = OsaiPartial  # not a copy: Airflow warns of a partial that is dropped
        parents = [parent for parent in (made.kwargs["task_group"], made.kwargs["dag"]) if parent is not None]
        defaults = [kwargs.get("default_args"), *(parent.default_args for parent in parents)]
        given = ChainMap(made.kwargs, *filter(None, defaults))
        made.kwargs.update({where: _as_list(made.kwargs[where]) for where in ("inlets", "outlets")})
        assets = {name: given[name] for name in cls.asset_arguments if given.get(name) is not None}
        made.kwargs.update(assets)
        for name, asset in assets.items():
            for where in cls.asset_arguments[name]:
                made.kwargs[where] = _including(made.kwargs[where], name, asset)
        return made

    def _add_assets(self) -> None:
        """Add the assets among the arguments to the inlets and outlets; called when they are set."""
        for name, lists in self.asset_arguments.items():
            if (asset := getattr(self, name)) is not None:
                for where in lists:
                    setattr(self, where, _including(getattr(self, where), name, asset))

    def _must_read_assets(self, context: Context) -> None:
        """Refuse an asset that Airflow did not know before this task ran: it does not hand out its events.

        :raises OsaiArgumentError: if there is one.
        """
        for name in self.asset_arguments:
            if (asset := getattr(self, name)) is None:
                continue
            events = context["inlet_events"]
            try:
                events[asset]
            except (KeyError, TypeError) as error:
                raise OsaiArgumentError(
                    f"{name} = {asset!r}: it is not among the task's inlets. {ONE_FOR_ALL}"
                ) from error

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

    asset_arguments: ClassVar[Mapping[str, Sequence[str]]] = {"trained": ("inlets",)}
    _transfer: Transfer | None = None
    _is_killed = False

    def __init__(self, *, trained: Asset | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.trained = trained
        self._add_assets()

    @abstractmethod
    def build_transfer(self, client: OsaiClient, context: Context) -> Transfer:
        """Return what this operator does; raise OsaiArgumentError on a bad value, before anything is sent."""

    def execute(self, context: Context) -> dict[str, Any]:
        """Run the transfer; see the class."""
        with no_vain_retries(), self.hook.get_conn() as client:
            self._must_read_assets(context)
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


def _including(assets: Any, name: str, asset: Any) -> list[Any]:
    """Return a task's inlets or outlets with the asset of an argument among them, once.

    :raises OsaiArgumentError: if the asset is known at run time only: an XCom, or an argument of a mapped task group.
    """
    if hasattr(asset, "iter_references"):
        raise OsaiArgumentError(f"{name} = {asset!r}: an asset has to be known when the Dag is parsed, not at run time")
    several = _as_list(assets)
    return several if asset in several else [*several, asset]


def _as_list(assets: Any) -> list[Any]:
    """Return a task's inlets or outlets, which may be one or none, as BaseOperator keeps them."""
    if not assets:
        return []
    return list(assets) if isinstance(assets, Collection) else [assets]
