"""Replace Airflow's configured metadata database with a SQLite file, for one test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

__all__ = ["metadata_db", "migrated_db"]

CONNECT_ARGS: Final[dict[str, Any]] = {}
"""Connect arguments for SQLite; Airflow imports them by name, and may add to them."""
DATABASE_DEFAULTS: Final = {
    "sql_alchemy_engine_args": "{}",
    "sql_alchemy_connect_args": f"{__name__}.CONNECT_ARGS",
    "sql_alchemy_connect_args_async": f"{__name__}.CONNECT_ARGS",
}
"""Values for options that may be set for another kind of database."""
REPLACED_ATTRIBUTES: Final = (
    *("SQL_ALCHEMY_CONN", "SQL_ALCHEMY_CONN_ASYNC"),
    *("engine", "Session", "NonScopedSession", "async_engine", "AsyncSession"),
)
"""Attributes of ``airflow.settings`` that depend on the database."""


def migrated_db(folder: Path) -> Path:
    """Create a migrated_db database in *folder*, to be copied by tests. Airflow's configured database is not used.

    :raises pytest.UsageError: if Airflow's models are already configured for MySQL or for a database schema.
    """
    path = folder / "airflow.db"
    with metadata_db(path):
        # Not at the top: Airflow reads its configuration when it is first imported.
        from airflow.models.base import COLLATION_ARGS, Base
        from airflow.utils.db import initdb

        if Base.metadata.schema or COLLATION_ARGS:
            msg = (
                "osai_sandbox uses a SQLite database, but Airflow is configured for MySQL or a database schema. Run"
                " pytest with AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=sqlite:////tmp/unused.db, without [database]"
                " sql_alchemy_schema and sql_engine_collation_for_ids"
            )
            raise pytest.UsageError(msg)
        initdb()
    return path


@contextmanager
def metadata_db(path: Path, template: Path | None = None) -> Iterator[None]:
    """Make Airflow use the SQLite file *path* as metadata database, in this process and its subprocesses.

    At the end, the configured database and its open sessions are restored.

    :param template: a migrated_db database to copy to *path* first.
    """
    # Not at the top, and before any change: importing Airflow configures its database.
    from airflow import settings
    from airflow.configuration import conf

    if template is not None:
        shutil.copyfile(template, path)
    database = {"sql_alchemy_conn": f"sqlite:///{path}", "sql_alchemy_conn_async": f"sqlite+aiosqlite:///{path}"}
    database |= {option: value for option, value in DATABASE_DEFAULTS.items() if conf.has_option("database", option)}
    with pytest.MonkeyPatch.context() as patch:
        for option, value in database.items():
            patch.setenv(f"AIRFLOW__DATABASE__{option.upper()}", value)
        for name in REPLACED_ATTRIBUTES:
            patch.setattr(settings, name, database.get(name.lower()), raising=False)
        settings.configure_orm()
        try:
            yield
        finally:
            if settings.Session is not None:
                settings.Session.remove()
            for engine in (settings.engine, getattr(settings.async_engine, "sync_engine", None)):
                if engine is not None:
                    engine.dispose()
