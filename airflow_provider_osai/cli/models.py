"""``osai-airflow models``: list champions, print one, or roll back, with the promotion log in Airflow's database."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from airflow_provider_osai.api.errors import OsaiContractError, OsaiRequestError
from airflow_provider_osai.cli.output import CommandError, confirm, redirect_stdout, write_json, write_note
from airflow_provider_osai.cli.session import airflow_database, connected
from airflow_provider_osai.cli.tables import write_table

# The imports of promotions are local: it imports Airflow's models, which configure the database.

__all__ = ["run"]

MAX_METRICS = 4
"""Maximum metrics of a champion in the table."""


def run(options: argparse.Namespace) -> int:
    """Run a subcommand; return the exit code."""
    commands: dict[str, Callable[[argparse.Namespace], int]] = {
        "champion": _champion,
        "list": _list,
        "rollback": _rollback,
    }
    return commands[options.command](options)


def _list(options: argparse.Namespace) -> int:
    with redirect_stdout(enabled=True), airflow_database():
        from airflow_provider_osai.cli.promotions import promotion_logs

        logs = promotion_logs()
    if options.json:
        write_json({"models": [log.fields() for log in logs]})
        return 0
    rows = []
    for log in logs:
        champion = log.champion
        metrics = list(champion.metrics.items())[:MAX_METRICS] if champion else []
        rows.append(
            (
                log.name,
                champion.model_id if champion else None,
                champion.at.isoformat(timespec="seconds") if champion else None,
                ", ".join(f"{name} {value}" for name, value in metrics),
                ", ".join(log.dag_ids),
                log.uri,
            )
        )
    write_table(("NAME", "CHAMPION", "SINCE", "METRICS", "DAGS", "ASSET"), rows)
    return 0


def _champion(options: argparse.Namespace) -> int:
    with redirect_stdout(enabled=True), airflow_database():
        from airflow_provider_osai.cli.promotions import promotion_logs

        log = _named(options.name, promotion_logs())
    if log.champion is None:
        raise CommandError(f"{log.uri}: no model has been promoted yet. Run a Dag with its gate.")
    if options.json:
        write_json(log.fields())
    else:
        sys.stdout.write(f"{log.champion.model_id}\n")
    return 0


def _rollback(options: argparse.Namespace) -> int:
    with redirect_stdout(enabled=True), airflow_database():
        from airflow_provider_osai.cli.promotions import promotion_logs, roll_back

        log = _named(options.name, promotion_logs())
    champion = log.champion
    if champion is None:
        raise CommandError(f"{log.uri}: no model has been promoted yet, so there is nothing to roll back.")
    target = log.previous() if options.to is None else log.promoted(options.to)
    if target is None and options.to is None:
        raise CommandError(
            f"{log.uri}: there is no champion before model {champion.model_id}. Name the model with --to."
        )
    if target is None:
        known = ", ".join(log.promoted_ids()) or "none"
        raise CommandError(f"{log.uri}: model {options.to!r} was never its champion. Choose one of these: {known}.")
    done = {"name": log.name, "uri": log.uri, "from": champion.model_id, "to": target.model_id}
    if target.model_id == champion.model_id:
        write_note(f"Model {target.model_id} is the champion of {log.uri} already; nothing was changed.")
        if options.json:
            write_json({**done, "changed": False})
        return 0
    if options.conn_id:
        _require_model(target.model_id, options.conn_id)
    question = (
        f"Roll back {log.uri} from model {champion.model_id} to model {target.model_id}? Airflow creates an event of "
        "the asset, which starts the Dags that are scheduled on it."
    )
    if not confirm(question, yes=options.yes):
        raise CommandError("Nothing was changed.")
    with redirect_stdout(enabled=True), airflow_database():
        roll_back(log, target, options.reason)
    if options.json:
        write_json({**done, "changed": True})
    else:
        sys.stdout.write(f"{log.uri}: rolled back from model {champion.model_id} to model {target.model_id}\n")
    return 0


def _named(name: str, logs: Sequence[Any]) -> Any:
    """Return the log of a model by its name or its asset's URI.

    :raises CommandError: if there is none, or there are several.
    """
    found = [log for log in logs if name in (log.uri, log.name, log.asset_name)]
    if len(found) == 1:
        return found[0]
    if found:
        uris = ", ".join(log.uri for log in found)
        raise CommandError(f"{len(found)} assets are called {name!r}: {uris}. Use the URI.")
    names = sorted({log.name for log in logs})
    matches = difflib.get_close_matches(name, names, n=1)
    hint = f"Did you mean {matches[0]!r}?" if matches else "'osai-airflow models list' lists the models."
    raise CommandError(f"No gate of this Airflow has a champion called {name!r}. {hint}")


def _require_model(model_id: str, osai_conn_id: str) -> None:
    """Check that OSAI has the model.

    :raises CommandError: if it has not, or if that cannot be found out.
    """
    with redirect_stdout(enabled=True), connected(osai_conn_id) as client:
        try:
            client.get_model(model_id)
        except OsaiRequestError as error:
            if not error.is_not_found:
                raise
            raise CommandError(
                f"OSAI has no model {model_id} ({error.status}), by connection {osai_conn_id}. Choose another model "
                "with --to, or leave out --conn-id to roll back without this check."
            ) from error
        except OsaiContractError as error:
            raise CommandError(f"{error}. Leave out --conn-id to roll back without this check.") from error
