"""The promotion logs in Airflow's database: the events of champion assets, read and written as Airflow's API does.

Airflow has no public Python API for asset events outside of tasks, so this uses what its own REST API uses: the models
of assets and ``AssetManager.register_asset_change``, which also starts the Dags that are scheduled on the asset.
``tests/cli/test_models.py`` runs it with each supported version of Airflow.
"""

from __future__ import annotations

import getpass
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from airflow.assets.manager import asset_manager
from airflow.models.asset import AssetModel
from airflow.models.log import Log
from airflow.utils.session import create_session
from sqlalchemy import select

from airflow_provider_osai.assets.uris import SCHEME
from airflow_provider_osai.cli.output import CommandError
from airflow_provider_osai.plugins.pages.models import HistoryEntry, history
from airflow_provider_osai.plugins.pages.queries import AssetRecord, EventRecord, gate_tasks, model_events

__all__ = ["PromotionLog", "promotion_logs", "roll_back"]

AUDIT_EVENT: Final = "osai_models_rollback"
"""The event's name in Airflow's audit log."""
EFFECTIVE: Final = ("promoted", "rolled back", "set by hand")
"""Outcomes of events that change the champion."""


@dataclass(frozen=True, slots=True)
class PromotionLog:
    """The promotions of a model.

    :param asset_id: the asset's id in Airflow's database.
    :param uri: the asset's URI.
    :param asset_name: the asset's name in Airflow.
    :param dag_ids: the Dags whose gates promote it now.
    :param entries: what changed the champion, or was meant to, oldest first.
    """

    asset_id: int
    uri: str
    asset_name: str
    dag_ids: Sequence[str]
    entries: Sequence[HistoryEntry]

    @property
    def name(self) -> str:
        """The last part of the URI."""
        return self.uri.rpartition("/")[2]

    @property
    def champion(self) -> HistoryEntry | None:
        """What made the current champion the champion; ``None`` if there is no champion."""
        return next((entry for entry in self.entries if entry.is_champion), None)

    def previous(self) -> HistoryEntry | None:
        """Return the champion before the current one; ``None`` if there was none.

        A champion that was rolled back does not count, so repeated rollbacks go further back.
        """
        stack: list[HistoryEntry] = []
        for entry in self.entries:
            if entry.outcome not in EFFECTIVE:
                continue
            ids = [each.model_id for each in stack]
            if stack and ids[-1] == entry.model_id:
                stack[-1] = entry
            elif entry.outcome == "rolled back" and entry.model_id in ids:
                del stack[len(ids) - 1 - ids[::-1].index(entry.model_id) + 1 :]
            else:
                stack.append(entry)
        return stack[-2] if len(stack) > 1 else None

    def promoted(self, model_id: str) -> HistoryEntry | None:
        """Return the latest entry of a model that was promoted; ``None`` if it never was."""
        return next((entry for entry in reversed(self.entries) if entry.model_id == model_id), None)

    def promoted_ids(self) -> list[str]:
        """Return the ids of the models that were promoted, the latest first."""
        return list(dict.fromkeys(entry.model_id for entry in reversed(self.entries)))

    def fields(self) -> dict[str, Any]:
        """Return the model and its champion as plain JSON."""
        champion = self.champion
        source = champion.source if champion else None
        return {
            "name": self.name,
            "uri": self.uri,
            "asset_id": self.asset_id,
            "dag_ids": list(self.dag_ids),
            "champion": champion
            and {
                "model_id": champion.model_id,
                "metrics": dict(champion.metrics),
                "measured_on": champion.extra.get("measured_on"),
                "since": champion.at.isoformat(),
                "outcome": champion.outcome,
                "task": source
                and {
                    "dag_id": source.dag_id,
                    "run_id": source.run_id,
                    "task_id": source.task_id,
                    "map_index": source.map_index,
                },
            },
        }


def promotion_logs() -> list[PromotionLog]:
    """Return the logs of all champion assets, by their URIs: those of gates, and those that a gate promoted before."""
    dag_ids: dict[int, set[str]] = {}
    for dag_id, gate in gate_tasks():
        dag_ids.setdefault(gate.asset_id, set()).add(dag_id)
    assets = _model_assets()
    events = model_events([asset.id for asset in assets])
    return [
        PromotionLog(asset.id, asset.uri, asset.name, sorted(dag_ids.get(asset.id, ())), history(events[asset.id], ()))
        for asset in assets
        if asset.id in dag_ids or any(_is_promotion(event) for event in events[asset.id])
    ]


def roll_back(log: PromotionLog, target: HistoryEntry, reason: str | None) -> None:
    """Create the event that makes an earlier champion the champion again, and an entry in Airflow's audit log.

    Like an event that is created by hand, it always counts. It carries the metrics of the model's promotion, so that
    the next gate can compare with them.

    :param log: the promotions as they were read. If the champion has changed since, nothing is written.
    :raises CommandError: if the champion or the asset has changed in the meantime.
    """
    champion = log.champion
    now = next((each for each in promotion_logs() if each.asset_id == log.asset_id), None)
    if now is None or champion is None or now.champion is None or now.champion.model_id != champion.model_id:
        name = now.champion.model_id if now and now.champion else "none"
        raise CommandError(f"{log.uri}: the champion has changed in the meantime, to {name}. Run the command again.")
    user = _user()
    rollback = {"replaces": champion.model_id, "by": user, "with": "osai-airflow models rollback", "reason": reason}
    with create_session() as session:
        asset = session.scalar(select(AssetModel).where(AssetModel.id == log.asset_id))
        extra = {**target.extra, "rollback": rollback}
        if asset is None or asset_manager.register_asset_change(asset=asset, extra=extra, session=session) is None:
            raise CommandError(f"{log.uri}: the asset has been deleted in the meantime; nothing was changed.")
        details = json.dumps({"uri": log.uri, "model_id": target.model_id, **rollback})
        session.add(Log(event=AUDIT_EVENT, owner=user, extra=details))


def _model_assets() -> list[AssetRecord]:
    query = select(AssetModel.id, AssetModel.uri, AssetModel.name).where(AssetModel.uri.like(f"{SCHEME}://%/models/%"))
    with create_session() as session:
        return [AssetRecord(*row) for row in session.execute(query.order_by(AssetModel.uri))]


def _is_promotion(event: EventRecord) -> bool:
    """Return whether a gate created the event, as its decision shows."""
    return isinstance(event.extra.get("decision"), dict)


def _user() -> str:
    """Return the name of this process's user in the operating system."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without an entry, as in some containers; OSError since Python 3.13
        return "unknown"
