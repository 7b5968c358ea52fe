"""Find, create, replace and delete datasets, with their categories.

Plain functions over a blocking client. A dataset's name is not unique in OSAI, its id is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, TypedDict

from airflow_provider_osai.api.errors import OsaiArgumentError, OsaiRequestError, OsaiUnreachable
from airflow_provider_osai.api.models import Dataset
from airflow_provider_osai.api.requests import EMPTY_TEMPLATE_VALUES, DatasetRequest
from airflow_provider_osai.data.log_lines import join_limited, plural, quoted

if TYPE_CHECKING:
    from airflow_provider_osai.api.client import OsaiClient

__all__ = [
    "BUSY_TIMEOUT",
    "DeletedDataset",
    "EnsuredDataset",
    "IfExists",
    "IfMissing",
    "apply_if_exists",
    "create_category",
    "delete_dataset",
    "describe",
    "ensure_categories",
    "ensure_dataset",
    "find_by_name",
    "find_categories",
    "single",
    "validate_choice",
]

BUSY_TIMEOUT: Final = 600.0
"""Seconds to wait for a dataset that is in use."""
MAX_RETRY_DELAY: Final = 30.0
"""Maximum seconds between two attempts to delete it."""
IN_USE: Final = frozenset({409, 423})
"""Statuses by which OSAI may say that a dataset is locked by an upload or used by a job (assumed)."""
NOT_AN_ID: Final = ("{'", '{"', "[")
"""How a dict or a list that was rendered as text begins."""


def _no_log(_message: str) -> None: ...


class EnsuredDataset(TypedDict):
    """The result of :func:`ensure_dataset`. ``categories``: ids by name."""

    dataset_id: str
    name: str
    created: bool
    categories: dict[str, str]


class DeletedDataset(TypedDict):
    """The result of :func:`delete_dataset`. ``deleted``: whether this call deleted the dataset."""

    dataset_id: str | None
    deleted: bool


class IfExists(StrEnum):
    """What to do if a dataset with the name already exists."""

    REUSE = "reuse"
    FAIL = "fail"
    REPLACE = "replace"
    NEW = "new"


class IfMissing(StrEnum):
    """What to do if the dataset to delete does not exist."""

    IGNORE = "ignore"
    FAIL = "fail"


def validate_choice(argument: str, value: str, choices: tuple[str, ...]) -> str:
    """Return *value* if it is one of the choices.

    :raises OsaiArgumentError: otherwise, naming the *argument* and the choices.
    """
    if value not in choices:
        raise OsaiArgumentError(f"{argument} = {value!r}: choose {', '.join(choices[:-1])} or {choices[-1]}")
    return str(value)


def find_by_name(client: OsaiClient, name: str, *, required: bool = False) -> list[Dataset]:
    """Return the datasets with this name.

    :param required: raise OsaiContractError if the contract has no ``dataset.find``; by default, return none then.
    """
    if not required and "dataset.find" not in client.calls.contract:
        return []
    return [dataset for dataset in client.list_datasets(name) if dataset.name == name]


def single(name: str, datasets: list[Dataset]) -> Dataset | None:
    """Return the only one of *datasets*, or ``None`` if there is none.

    :raises OsaiArgumentError: if there are several.
    """
    if len(datasets) > 1:
        ids = ", ".join(dataset.id for dataset in datasets)
        msg = f"name = {name!r}: OSAI has {len(datasets)} datasets with this name ({ids}); use the id of one"
        raise OsaiArgumentError(msg)
    return datasets[0] if datasets else None


def apply_if_exists(
    client: OsaiClient,
    name: str,
    if_exists: str,
    *,
    source_id: str | None = None,
    timeout: float = BUSY_TIMEOUT,
    log: Callable[[str], object] = _no_log,
) -> None:
    """Apply *if_exists* before a dataset called *name* is created: ``new`` does nothing, else ``fail`` or ``replace``.

    :param source_id: the id of a dataset that is still needed, and never replaced.
    :param timeout: maximum seconds to wait while the dataset to replace is in use.
    :param log: called with messages for the log.
    :raises OsaiArgumentError: if the dataset exists and *if_exists* is ``fail``; if several datasets that might be
        replaced have the name; or if it is the *source_id*.
    """
    choice = validate_choice("if_exists", if_exists, (IfExists.NEW, IfExists.FAIL, IfExists.REPLACE))
    if choice == IfExists.NEW:
        return
    datasets = find_by_name(client, name, required=True)
    if datasets and choice == IfExists.FAIL:
        ids = ", ".join(dataset.id for dataset in datasets)
        raise OsaiArgumentError(f"name = {name!r}: the dataset already exists (id {ids}), and if_exists is 'fail'")
    existing = single(name, datasets)
    if existing is None:
        return
    if existing.id == source_id:
        raise OsaiArgumentError(f"name = {name!r}: this is dataset {existing.id} itself, which must not be replaced")
    delete_dataset(client, existing.id, timeout=timeout, log=lambda line: log(f"{line} (if_exists='replace')"))


def delete_dataset(
    client: OsaiClient,
    dataset_id: Any,
    if_missing: str = IfMissing.IGNORE,
    timeout: float = BUSY_TIMEOUT,
    log: Callable[[str], object] = _no_log,
) -> DeletedDataset:
    """Delete one dataset. Wait while an upload locks it or a job uses it.

    Return ``dataset_id`` and ``deleted``: whether this call deleted it.

    :param dataset_id: its id; what a template renders a missing XCom to counts as no dataset.
    :param timeout: maximum seconds to wait while it is in use.
    :param log: called with messages for the log.
    :raises OsaiArgumentError: if it does not exist and *if_missing* is ``fail``, or if *dataset_id* is not an id.
    :raises OsaiUnreachable: if it was in use for longer than *timeout*.
    """
    must_exist = validate_choice("if_missing", if_missing, (IfMissing.IGNORE, IfMissing.FAIL)) == IfMissing.FAIL
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout >= 0:
        raise OsaiArgumentError(f"timeout = {timeout!r}: a number of seconds, 0 or more, is needed")
    valid_id = _parse_id(dataset_id)
    if valid_id:
        can_read = "dataset.get" in client.calls.contract
        dataset = _read(client, valid_id) if can_read else None
        if (dataset or not can_read) and _delete_when_free(client, valid_id, float(timeout), log):
            log(f"Deleted {describe(dataset or Dataset(id=valid_id))}")
            return {"dataset_id": valid_id, "deleted": True}
    reason = f"OSAI has no dataset {valid_id}" if valid_id else "the id is empty; the upstream task returned none"
    if must_exist:
        raise OsaiArgumentError(f"dataset_id = {dataset_id!r}: {reason}, and if_missing is 'fail'")
    log(f"Nothing was deleted: {reason}")
    return {"dataset_id": valid_id, "deleted": False}


def describe(dataset: Dataset) -> str:
    """Return a dataset's id for the log, with its name and number of images if they are known."""
    name = f" {quoted(dataset.name)}" if dataset.name else ""
    images = "" if dataset.image_count is None else f" with {plural(dataset.image_count, 'image')}"
    return f"dataset {dataset.id}{name}{images}"


def ensure_dataset(
    client: OsaiClient,
    name: str,
    categories: Sequence[str] = (),
    if_exists: str = IfExists.REUSE,
    log: Callable[[str], object] = _no_log,
) -> EnsuredDataset:
    """Create the dataset *name* with *categories*, or apply *if_exists* to the existing one.

    Return ``dataset_id``, ``name``, ``created`` and ``categories``. Without the assumed operation ``dataset.find``,
    ``reuse`` creates a new dataset each time.

    :param log: called with messages for the log.
    :raises OsaiArgumentError: if *if_exists* is unknown; if it is ``fail`` and the dataset exists; or if several
        datasets have the name and one of them must be chosen.
    :raises OsaiContractError: if *if_exists* is ``fail`` or ``replace`` and the contract has no operation to find or
        delete datasets.
    :raises OsaiUnreachable: if the dataset to replace was in use for ten minutes.
    """
    choice = validate_choice("if_exists", if_exists, tuple(IfExists))
    if isinstance(categories, str) or not all(isinstance(c, str) and c.strip() for c in categories):
        raise OsaiArgumentError(f"categories = {categories!r}: a list of names is needed")
    name = DatasetRequest(name=name).name  # an invalid name is refused before anything is sent
    existing = None
    if choice == IfExists.REUSE:
        existing = single(name, find_by_name(client, name))
    else:
        apply_if_exists(client, name, choice, log=log)
    dataset = existing or _create(client, name, may_be_another=choice == IfExists.NEW)
    done = f"{'Reused' if existing else 'Created'} {describe(dataset.model_copy(update={'name': name}))}"
    created: list[str] = []
    try:
        ids = ensure_categories(client, dataset.id, categories, created.append)
    except Exception:
        log(
            f"{done}; created {len(created):,} of its categories before the error: {join_limited(map(quoted, created))}"
        )
        raise
    log(f"{done}; {_category_summary(list(ids), created)}")
    return {"dataset_id": dataset.id, "name": name, "created": existing is None, "categories": ids}


def find_categories(client: OsaiClient, dataset_id: str) -> dict[str, str]:
    """Return the ids of the dataset's categories by name; empty if the contract has no ``category.list``.

    Where the contract has no ``category.create``, a category is only a name: see :func:`create_category`.
    """
    if "category.list" not in client.calls.contract:
        return {}
    categories = client.list_categories(dataset_id)
    return {category.name: category.id for category in categories if category.name}


def create_category(client: OsaiClient, dataset_id: str, name: str) -> str:
    """Create a category and return its id: its name, where the contract has no ``category.create``."""
    if "category.create" not in client.calls.contract:
        return name
    return client.create_category(dataset_id, name).id


def ensure_categories(
    client: OsaiClient, dataset_id: str, names: Iterable[str], on_created: Callable[[str], object] = _no_log
) -> dict[str, str]:
    """Create the categories that the dataset lacks, and return the ids of all *names*.

    :param on_created: called with the name of each category that was created.
    """
    unique = list(dict.fromkeys(names))
    ids = find_categories(client, dataset_id) if unique else {}
    for name in unique:
        if name not in ids:
            ids[name] = create_category(client, dataset_id, name)
            on_created(name)
    return {name: ids[name] for name in unique}


def _parse_id(value: Any) -> str | None:
    """Return the id; ``None`` if it is empty.

    :raises OsaiArgumentError: if it is not an id, such as a rendered list.
    """
    text = "" if value is None else str(value).strip()
    if isinstance(value, (bool, float)) or not isinstance(value, (str, int, type(None))) or text.startswith(NOT_AN_ID):
        raise OsaiArgumentError(f"dataset_id = {value!r}: the id of one dataset is needed")
    return None if text in EMPTY_TEMPLATE_VALUES else text


def _read(client: OsaiClient, dataset_id: str) -> Dataset | None:
    try:
        return client.get_dataset(dataset_id)
    except OsaiRequestError as error:
        if not error.is_not_found:
            raise
        return None


def _delete_when_free(client: OsaiClient, dataset_id: str, timeout: float, log: Callable[[str], object]) -> bool:
    """Delete a dataset as soon as it is no longer in use; return whether it existed."""
    waited = 0.0
    pause = 1.0
    is_logged = False
    while True:
        try:
            client.delete_dataset(dataset_id)
        except OsaiRequestError as error:
            if error.is_not_found:
                # If it could be read before, it was deleted just now: most likely by the first attempt of this call.
                return "dataset.get" in client.calls.contract
            if error.status not in IN_USE:
                raise
            reason = error.text
        except OsaiUnreachable as error:
            if not error.is_busy:
                raise
            reason = str(error)
        else:
            return True
        if waited >= timeout:
            msg = f"Dataset {dataset_id} is still in use by an upload or a job after {waited:.0f} s. OSAI: {reason}"
            raise OsaiUnreachable(msg, may_have_been_processed=False, status=409)
        if not is_logged:
            log(f"Dataset {dataset_id} is in use, waiting for up to {timeout:.0f} s. OSAI: {reason}")
            is_logged = True
        pause = min(pause, timeout - waited)
        waited += pause
        client.sleep(pause)
        pause = min(2 * pause, MAX_RETRY_DELAY)


def _create(client: OsaiClient, name: str, *, may_be_another: bool) -> Dataset:
    """Create a dataset; if the response leaves open whether it was created, find it instead of creating a second one.

    :param may_be_another: whether others may already have the name.
    """
    earlier = {dataset.id for dataset in find_by_name(client, name)} if may_be_another else set()
    try:
        return client.create_dataset(name)
    except OsaiUnreachable as error:
        datasets = find_by_name(client, name) if error.may_have_been_processed else []
        created = [dataset for dataset in datasets if dataset.id not in earlier]
        if len(created) != 1:
            raise
        return created[0]


def _category_summary(categories: Sequence[str], created: Sequence[str]) -> str:
    if not categories:
        return "no categories requested"
    counts = f"{len(created):,} created, {len(categories) - len(created):,} existing"
    return f"{plural(len(categories), 'category', 'categories')} ({counts}): {join_limited(map(quoted, categories))}"
