"""Where a sandbox keeps what it knows: nowhere, or in a folder from which the next sandbox goes on.

The records in a folder are pickles, and who can write a pickle can run code in the process that reads it: open your own
folders only, never one that somebody gave you. The database is made with mode 0600, since records hold the addresses of
webhooks; the access token is never in it.
"""

from __future__ import annotations

import pickle
import shutil
import sqlite3
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from airflow_provider_osai.sandbox.records import DatasetRecord, ImageRecord, JobRecord, ModelRecord

__all__ = ["FolderRefused", "FolderStore", "Store"]

Record = DatasetRecord | ImageRecord | ModelRecord | JobRecord
R = TypeVar("R", DatasetRecord, ImageRecord, ModelRecord, JobRecord)

VERSION = 3
"""Rises when records change so that older ones cannot be read."""
LOCK_TIMEOUT = 1.0
"""Seconds that are left to a killed process to let go of the folder."""
SETUP = (
    "PRAGMA locking_mode = EXCLUSIVE",  # the folder is ours until the connection or the process ends
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = OFF",  # a process may be killed, a machine may not
    "CREATE TABLE IF NOT EXISTS record (kind TEXT, id TEXT, owner TEXT, data BLOB, PRIMARY KEY (kind, id))",
    "CREATE INDEX IF NOT EXISTS owned ON record (owner)",
)
KEEP = "INSERT INTO record VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET data = excluded.data"


class FolderRefused(Exception):
    """A folder cannot be used: another sandbox uses it, or what is in it cannot be read. The message says which."""


class Store:
    """Keeps no records. ``files`` is a temporary folder for images and models, removed by :meth:`close`."""

    def __init__(self) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="osai-sandbox-", ignore_cleanup_errors=True)
        self.files = Path(self._temporary.name)
        self._found: dict[type, list[tuple[str, Any]]] = {}

    def keep(self, *records: Record, owner: str = "") -> None:
        """Write records as they are now, new or not; *owner* is the id of the dataset that images belong to."""

    def drop(self, record: Record) -> None:
        """Remove a record, and those that it owns."""

    def clear(self) -> None:
        """Remove all records."""

    def load(self, kind: type[R]) -> list[tuple[str, R]]:
        """Return, once, the records that were found, each after its owner's id, in the order they were first kept."""
        return self._found.pop(kind, [])

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Keep all that is kept inside, or, if the process is killed inside, nothing of it."""
        yield

    def sweep(self, known: Collection[str]) -> None:
        """Remove what lies in ``files`` and is not called as one of *known*: a killed process may leave it behind."""

    def close(self) -> None:
        """Let go of the folder."""
        self._temporary.cleanup()


class FolderStore(Store):
    """Keeps records in a folder of the user, in one SQLite table; ``files`` is a folder inside.

    Each call has written when it returns, so that a killed process loses nothing; a machine that loses its power may.
    To be used under the state's lock.

    :param folder: made if it is missing; nobody else can use it until :meth:`close`.
    :raises FolderRefused: if another sandbox uses the folder, or its records cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder.resolve() / "sandbox.sqlite3"
        self.files = self._path.with_name("files")
        self.files.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.files.mkdir(mode=0o700, exist_ok=True)
        self._path.touch(mode=0o600)
        self._db = sqlite3.connect(self._path, timeout=LOCK_TIMEOUT, isolation_level=None, check_same_thread=False)
        try:
            self._found = self._open()
        except Exception as error:  # a pickle can fail in any way
            self._db.close()
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
                raise FolderRefused(f"another sandbox uses {folder}") from None
            msg = f"{self._path} cannot be read ({type(error).__name__}: {error}); give the sandbox a new folder"
            raise FolderRefused(msg) from error

    def _open(self) -> dict[type, list[tuple[str, Any]]]:
        for line in SETUP:
            self._db.execute(line)
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, VERSION):
            msg = "it was written by another version of the sandbox"
            raise ValueError(msg)
        self._db.execute(f"PRAGMA user_version = {VERSION}")
        found: dict[type, list[tuple[str, Any]]] = {}
        for owner, data in self._db.execute("SELECT owner, data FROM record ORDER BY rowid"):
            record = pickle.loads(data)  # noqa: S301 - the user's own, see above
            found.setdefault(type(record), []).append((owner, record))
        return found

    def keep(self, *records: Record, owner: str = "") -> None:
        """Write records as they are now."""
        for record in records:
            self._db.execute(KEEP, (type(record).__name__, record.id, owner, pickle.dumps(record)))

    def drop(self, record: Record) -> None:
        """Remove a record, and those that it owns."""
        with self.at_once():
            self._db.execute("DELETE FROM record WHERE kind = ? AND id = ?", (type(record).__name__, record.id))
            self._db.execute("DELETE FROM record WHERE owner = ?", (record.id,))

    def clear(self) -> None:
        """Remove all records."""
        self._db.execute("DELETE FROM record")

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Keep all or nothing of what is kept inside."""
        self._db.execute("BEGIN")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def sweep(self, known: Collection[str]) -> None:
        """Remove what no record knows of."""
        for path in self.files.iterdir():
            if path.name in known:
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the folder, and leave it as it is."""
        self._db.close()
