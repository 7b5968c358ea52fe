"""Datasets as flows: make or reuse one with its categories."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from airflow_provider_osai.api.calls import Calls
from airflow_provider_osai.api.errors import OsaiArgumentError, OsaiUnreachable
from airflow_provider_osai.api.models import Category, Dataset
from airflow_provider_osai.api.requests import DatasetRequest
from airflow_provider_osai.data.existing import IfExists, chosen, make_way, named, the_one
from airflow_provider_osai.jobs.flow import Flow

__all__ = ["ensure_categories", "ensure_dataset", "find_categories"]


def ensure_dataset(
    calls: Calls, name: str, categories: Sequence[str] = (), if_exists: str = IfExists.REUSE
) -> Flow[dict[str, Any]]:
    """Make the dataset *name* with *categories*, or do with the one that is there what *if_exists* says.

    Without the assumed operation ``dataset.find``, ``reuse`` makes a new dataset each time.

    :raises OsaiArgumentError: if *if_exists* is unknown, if it is ``fail`` and the dataset is there, or if several
        datasets have the name and one of them must be chosen.
    :raises OsaiContractError: if it is ``fail`` or ``replace`` and the API cannot find datasets, or cannot delete them.
    :raises OsaiUnreachable: if the one to replace was in use for ten minutes.
    """
    rule = chosen("if_exists", if_exists, tuple(IfExists))
    if isinstance(categories, str) or not all(isinstance(c, str) and c.strip() for c in categories):
        raise OsaiArgumentError(f"categories = {categories!r}: a list of names is needed")
    name = DatasetRequest(name=name).name  # refuses a bad one before anything is sent
    found = None
    if rule == IfExists.REUSE:
        found = the_one(name, (yield from named(calls, name)))
    else:
        yield from make_way(calls, name, rule)
    dataset = found or (yield from _made(calls, name, is_new=rule == IfExists.NEW))
    ids = yield from ensure_categories(calls, dataset.id, categories)
    return {"dataset_id": dataset.id, "name": name, "created": found is None, "categories": ids}


def _made(calls: Calls, name: str, *, is_new: bool) -> Flow[Dataset]:
    """Make a dataset; after an answer that leaves it open whether it was made, look rather than make a second one."""
    older = (yield from named(calls, name)) if is_new else []
    try:
        dataset: Dataset = yield calls.create_dataset(name)
    except OsaiUnreachable as error:
        there = (yield from named(calls, name)) if error.sent else []
        made = [one for one in there if one.id not in {old.id for old in older}]
        if len(made) != 1:
            raise
        return made[0]
    return dataset


def find_categories(calls: Calls, dataset_id: str) -> Flow[dict[str, str]]:
    """Return the id of each of the dataset's categories by name; none if the API cannot list them."""
    if "category.list" not in calls.contract:
        return {}
    there: list[Category] = yield calls.list_categories(dataset_id)
    return {category.name: category.id for category in there if category.name}


def ensure_categories(calls: Calls, dataset_id: str, names: Iterable[str]) -> Flow[dict[str, str]]:
    """Make those of the categories that the dataset lacks, and return the id of each by name."""
    wanted = list(dict.fromkeys(names))
    ids = (yield from find_categories(calls, dataset_id)) if wanted else {}
    for name in wanted:
        if name not in ids:
            made: Category = yield calls.create_category(dataset_id, name)
            ids[name] = made.id
    return {name: ids[name] for name in wanted}
