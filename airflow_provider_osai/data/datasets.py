"""Datasets as flows: make or reuse one with its categories."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any

from airflow_provider_osai.api.calls import Calls
from airflow_provider_osai.api.errors import OsaiArgumentError, OsaiUnreachable
from airflow_provider_osai.api.models import Category, Dataset
from airflow_provider_osai.jobs.flow import Flow

__all__ = ["IfExists", "ensure_categories", "ensure_dataset", "find_categories"]


class IfExists(StrEnum):
    """What to do when a dataset of that name is already there."""

    REUSE = "reuse"
    FAIL = "fail"


def ensure_dataset(
    calls: Calls, name: str, categories: Sequence[str] = (), if_exists: str = IfExists.REUSE
) -> Flow[dict[str, Any]]:
    """Make the dataset *name* with *categories*, or take the one that is there.

    Without the assumed operation ``dataset.find``, a new dataset is made each time.

    :raises OsaiArgumentError: if *if_exists* is unknown, if it is ``fail`` and the dataset is there, or if several
        datasets have the name and none can be chosen.
    """
    if if_exists not in frozenset(IfExists):
        raise OsaiArgumentError(f"if_exists = {if_exists!r}: choose {' or '.join(IfExists)}")
    if isinstance(categories, str) or not all(isinstance(c, str) and c.strip() for c in categories):
        raise OsaiArgumentError(f"categories = {categories!r}: a list of names is needed")
    making = calls.create_dataset(name)  # refuses a bad name before anything is sent
    found = yield from _named(calls, name)
    if found and if_exists == IfExists.FAIL:
        raise OsaiArgumentError(
            f"name = {name!r}: OSAI already has this dataset (id {found.id}), and if_exists is 'fail'"
        )
    dataset = found
    if dataset is None:
        try:
            dataset = yield making
        except OsaiUnreachable as error:
            # It may have been made all the same: look, rather than make a second one.
            dataset = (yield from _named(calls, name)) if error.sent else None
            if dataset is None:
                raise
    ids = yield from ensure_categories(calls, dataset.id, categories)
    return {"dataset_id": dataset.id, "name": name, "created": found is None, "categories": ids}


def _named(calls: Calls, name: str) -> Flow[Dataset | None]:
    if "dataset.find" not in calls.contract:
        return None
    answer: list[Dataset] = yield calls.find_datasets(name)
    same = [dataset for dataset in answer if dataset.name == name]
    if len(same) > 1:
        ids = ", ".join(dataset.id for dataset in same)
        raise OsaiArgumentError(
            f"name = {name!r}: OSAI has {len(same)} datasets of this name ({ids}); use the id of one"
        )
    return same[0] if same else None


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
