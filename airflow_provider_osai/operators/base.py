"""The base classes of all operators: connection, assets, mapping, and which errors fail a task without retries."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections import ChainMap
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Final

from airflow.providers.common.compat.sdk import AirflowFailException, BaseOperator
from airflow.sdk.definitions.mappedoperator import OperatorPartial

from airflow_provider_osai.api.errors import OsaiArgumentError, OsaiError
from airflow_provider_osai.assets.events import create_asset_events
from airflow_provider_osai.hooks.osai import OsaiHook
from airflow_provider_osai.observability import metrics
from airflow_provider_osai.operators._callbacks import MappedCallbacks
from airflow_provider_osai.operators._outputs import push_outputs

if TYPE_CHECKING:
    from datetime import datetime

    from airflow.sdk import Context
    from airflow.sdk.definitions.mappedoperator import MappedOperator

    from airflow_provider_osai.api.client import OsaiClient

__all__ = [
    "OsaiClientOperator",
    "OsaiOperator",
    "OsaiPartial",
    "fail_without_retry",
    "started_at",
]

ASSET_IN_PARTIAL: Final = "an asset must be known when the Dag is parsed; pass it to partial(), not to expand()"
CALLBACK_IN_PARTIAL: Final = "Airflow would store its source in the database; pass it to partial(), not to expand()"


@contextmanager
def fail_without_retry() -> Iterator[None]:
    """Convert errors that no retry can fix to AirflowFailException, which fails the task whatever its ``retries``."""
    try:
        yield
    except OsaiError as error:
        metrics.count_error(error)
        if error.retryable:
            raise
        raise AirflowFailException(f"{type(error).__name__}: {error}") from error


def started_at(context: Context) -> float:
    """Return when this try of the task started, in seconds since the epoch. A deferral does not change it."""
    started: datetime | None = context["ti"].start_date
    return started.timestamp() if started else time.time()


class OsaiPartial(OperatorPartial):
    """The result of ``partial()``. Its ``expand()`` rejects arguments that must be equal for all mapped instances."""

    __slots__ = ()  # so that the class of an OperatorPartial can be changed to this one

    def expand(self, **mapped_kwargs: Any) -> MappedOperator:
        """Map the operator over lists of values.

        :raises OsaiArgumentError: if an argument cannot be mapped.
        """
        self._refuse_unmappable(mapped_kwargs)
        return super().expand(**mapped_kwargs)

    def expand_kwargs(self, kwargs: Any, *, strict: bool = True) -> MappedOperator:
        """Map the operator over sets of arguments; those in an XCom are checked when the task runs.

        :raises OsaiArgumentError: if an argument cannot be mapped.
        """
        sets = kwargs if isinstance(kwargs, Sequence) else ()
        self._refuse_unmappable(name for each in sets if isinstance(each, Mapping) for name in each)
        return super().expand_kwargs(kwargs, strict=strict)

    def _refuse_unmappable(self, mapped: Iterable[str]) -> None:
        operator: Any = self.operator_class
        reasons = {
            **dict.fromkeys(operator.fixed_arguments, "its value is fixed"),
            **dict.fromkeys(operator.asset_arguments, ASSET_IN_PARTIAL),
            **dict.fromkeys(operator.callback_arguments, CALLBACK_IN_PARTIAL),
        }
        for name in mapped:
            if reason := reasons.get(name):
                self._expand_called = True  # otherwise Airflow also warns that the task was never mapped
                raise OsaiArgumentError(f"{operator.__name__} cannot be mapped over {name}: {reason}")


class OsaiOperator(BaseOperator):
    """Base of all OSAI operators.

    Airflow reads the scheduling arguments, inlets and outlets of a mapped task from the result of ``partial()``, before
    there are instances. So a subclass declares what it adds to them, and ``__init__`` and ``partial()`` both add it.

    :param osai_conn_id: the connection's id.
    :param multiple_outputs: which keys of the returned dict become XComs of their own, so that another task can use
        ``task.output["model_id"]``. ``None`` (default): those that the Dag refers to in this way, or in a template with
        ``xcom_pull``; references in Python code are not seen. ``True``: all. ``False``: none.
    """

    template_fields: Sequence[str] = ("osai_conn_id",)
    ui_color = "#d9f2ec"
    task_defaults: ClassVar[Mapping[str, Any]] = {}
    """Defaults of BaseOperator's arguments, such as ``retries``. They override ``default_args``."""
    fixed_arguments: ClassVar[Mapping[str, Any]] = {}
    """Arguments of a base class with a fixed value; passing them is an error."""
    asset_arguments: ClassVar[Mapping[str, Sequence[str]]] = {}
    """Arguments that are an asset, each with where it is added: ``inlets``, ``outlets`` or both."""
    callback_arguments: ClassVar[Collection[str]] = ()
    """Arguments that are callbacks. They are not in the serialized Dag, and cannot be mapped."""

    def __init__(
        self, *, osai_conn_id: str = OsaiHook.default_conn_name, multiple_outputs: bool | None = None, **kwargs: Any
    ) -> None:
        super().__init__(multiple_outputs=multiple_outputs is not False, **{**self.task_defaults, **kwargs})
        self.osai_conn_id = osai_conn_id
        self.requested_outputs: bool | None = multiple_outputs

    @classmethod
    def partial(cls, **kwargs: Any) -> OperatorPartial:
        """Return the operator with the arguments that are the same for all mapped instances."""
        if refused := sorted(cls.fixed_arguments.keys() & kwargs.keys()):
            raise TypeError(f"{cls.__name__}.partial() got unexpected arguments: {', '.join(refused)}")
        made = super().partial(**{**cls.task_defaults, **kwargs})
        made.__class__ = OsaiPartial  # not a copy: Airflow warns about a partial that is never expanded
        parents = [parent for parent in (made.kwargs["task_group"], made.kwargs["dag"]) if parent is not None]
        defaults = [kwargs.get("default_args"), *(parent.default_args for parent in parents)]
        given = ChainMap(made.kwargs, *filter(None, defaults))
        made.kwargs.update({where: _as_list(made.kwargs[where]) for where in ("inlets", "outlets")})
        assets = {name: given[name] for name in cls.asset_arguments if given.get(name) is not None}
        made.kwargs.update(assets)
        for name, asset in assets.items():
            for where in cls.asset_arguments[name]:
                made.kwargs[where] = _including(made.kwargs[where], name, asset)
        given_callbacks = [name for name in cls.callback_arguments if made.kwargs.get(name) is not None]
        made.kwargs.update({name: MappedCallbacks(made.kwargs[name]) for name in given_callbacks})
        return made

    def _add_assets(self) -> None:
        """Add the assets among the arguments to inlets and outlets; called after they are assigned."""
        for name, lists in self.asset_arguments.items():
            if (asset := getattr(self, name)) is not None:
                for where in lists:
                    setattr(self, where, _including(getattr(self, where), name, asset))

    def _must_read_assets(self, context: Context) -> None:
        """Check that Airflow knew the asset arguments before this task ran; otherwise it hides their events.

        :raises OsaiArgumentError: if one of them is not among the task's inlets.
        """
        for name in self.asset_arguments:
            if (asset := getattr(self, name)) is None:
                continue
            events = context["inlet_events"]
            try:
                events[asset]
            except (KeyError, TypeError) as error:
                raise OsaiArgumentError(
                    f"{name} = {asset!r}: it is not among the task's inlets. {ASSET_IN_PARTIAL}"
                ) from error

    @cached_property
    def hook(self) -> OsaiHook:
        """The hook of this task's connection."""
        return OsaiHook(self.osai_conn_id)


class OsaiClientOperator(OsaiOperator):
    """Base of operators that do all their work on the worker, with one client, and submit no job."""

    is_killed = False
    """Whether Airflow has asked this task to end."""

    @abstractmethod
    def run_with_client(self, client: OsaiClient) -> Mapping[str, Any]:
        """Do the work, and return the task's result.

        :raises OsaiArgumentError: on an invalid value.
        """

    def execute(self, context: Context) -> dict[str, Any]:
        """Do the work; see the class."""
        with fail_without_retry(), self.hook.get_conn() as client:
            result = dict(self.run_with_client(client))
        create_asset_events(self, context, result, client.settings.asset_region)
        return push_outputs(self, context, result)

    def on_kill(self) -> None:
        """Set the flag that long work checks. Signal-safe."""
        self.is_killed = True


def _including(assets: Any, name: str, asset: Any) -> list[Any]:
    """Return a task's inlets or outlets with the asset of an argument added, unless it is there.

    :raises OsaiArgumentError: if the asset is only known at run time: an XCom, or an argument of a mapped task group.
    """
    if hasattr(asset, "iter_references"):
        raise OsaiArgumentError(f"{name} = {asset!r}: the asset must be known when the Dag is parsed, not at run time")
    several = _as_list(assets)
    return several if asset in several else [*several, asset]


def _as_list(assets: Any) -> list[Any]:
    """Return inlets or outlets, which may be one or none, as the list that BaseOperator keeps."""
    if not assets:
        return []
    return list(assets) if isinstance(assets, Collection) else [assets]
