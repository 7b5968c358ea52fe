"""Persistence of the sandbox's records: in memory only, or in a folder that a later sandbox can continue with.

The records in a folder are pickles, and unpickling can run arbitrary code: open your own folders only, never one from
an untrusted source. The database has mode 0600, since records contain webhook addresses; it never contains the access
token.
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

from airflow_provider_osai.sandbox.models import DatasetRecord, ImageRecord, JobRecord, ModelRecord

__all__ = ["FolderError", "FolderStore", "Store"]

Record = DatasetRecord | ImageRecord | ModelRecord | JobRecord
R = TypeVar("R", DatasetRecord, ImageRecord, ModelRecord, JobRecord)

VERSION = 5
"""Increased when a change of the records makes older ones unreadable."""
LOCK_TIMEOUT = 1.0
"""Seconds to wait for a killed process to release the folder."""
SETUP = (
    "PRAGMA locking_mode = EXCLUSIVE",  # held until the connection is closed or the process ends
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = OFF",  # survives a killed process, but not a power failure
    "CREATE TABLE IF NOT EXISTS record (kind TEXT, id TEXT, owner TEXT, data BLOB, PRIMARY KEY (kind, id))",
    "CREATE INDEX IF NOT EXISTS owned ON record (owner)",
)
UPSERT = "INSERT INTO record VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET data = excluded.data"


class FolderError(Exception):
    """A folder cannot be used: another sandbox uses it, it is not writable, or its records cannot be read."""


class Store:
    """Stores no records. ``files`` is a temporary folder for images and models, removed by :meth:`close`."""

    def __init__(self) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="osai-sandbox-", ignore_cleanup_errors=True)
        self.files = Path(self._temporary.name)
        self._loaded: dict[type, list[tuple[str, Any]]] = {}

    def save(self, *records: Record, owner: str = "") -> None:
        """Insert or update records; *owner* is the id of the dataset that images belong to."""

    def delete(self, record: Record) -> None:
        """Delete a record, and the records that it owns."""

    def clear(self) -> None:
        """Delete all records."""

    def load(self, kind: type[R]) -> list[tuple[str, R]]:
        """Return the stored records of a type with their owners' ids, oldest first. A second call returns none."""
        return self._loaded.pop(kind, [])

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make all writes inside atomic, even if the process is killed."""
        yield

    def remove_unknown_files(self, known: Collection[str]) -> None:
        """Delete files and folders in ``files`` whose name is not in *known*, which a killed process may leave."""

    def close(self) -> None:
        """Release the folder."""
        self._temporary.cleanup()


class FolderStore(Store):
    """Stores records in a user's folder, in one SQLite table; ``files`` is a folder inside.

    Every call writes before it returns, so a killed process loses nothing; a power failure may lose records. Requires
    the state's lock.

    :param folder: created if it does not exist; locked for other sandboxes until :meth:`close`.
    :raises FolderError: if another sandbox uses the folder, it is not writable, or its records cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder.resolve() / "sandbox.sqlite3"
        self.files = self._path.with_name("files")
        try:
            self.files.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.files.mkdir(mode=0o700, exist_ok=True)
            self._path.touch(mode=0o600)
            self._db = sqlite3.connect(self._path, timeout=LOCK_TIMEOUT, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            if isinstance(error, FileExistsError) and not Path(folder).is_dir():
                raise FolderError(f"{folder} is a file; choose a folder, or a new name") from None
            reason = getattr(error, "strerror", None) or str(error)
            raise FolderError(f"Cannot use {folder} as the sandbox's folder: {reason}") from error
        try:
            self._loaded = self._open()
        except Exception as error:  # unpickling can raise anything
            self._db.close()
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
                raise FolderError(f"Another sandbox uses {folder}; stop it, or use another folder") from None
            msg = f"Cannot read {self._path} ({type(error).__name__}: {error}); use a new folder"
            raise FolderError(msg) from error

    def _open(self) -> dict[type, list[tuple[str, Any]]]:
        for statement in SETUP:
            self._db.execute(statement)
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, VERSION):
            msg = "it was written by another version of the sandbox"
            raise ValueError(msg)
        self._db.execute(f"PRAGMA user_version = {VERSION}")
        records: dict[type, list[tuple[str, Any]]] = {}
        for owner, data in self._db.execute("SELECT owner, data FROM record ORDER BY rowid"):
            record = pickle.loads(data)  # noqa: S301 - the user's own data, see the module's docstring
            records.setdefault(type(record), []).append((owner, record))
        return records

    def save(self, *records: Record, owner: str = "") -> None:
        """Insert or update records."""
        for record in records:
            self._db.execute(UPSERT, (type(record).__name__, record.id, owner, pickle.dumps(record)))

    def delete(self, record: Record) -> None:
        """Delete a record, and the records that it owns."""
        with self.transaction():
            self._db.execute("DELETE FROM record WHERE kind = ? AND id = ?", (type(record).__name__, record.id))
            self._db.execute("DELETE FROM record WHERE owner = ?", (record.id,))

    def clear(self) -> None:
        """Delete all records."""
        self._db.execute("DELETE FROM record")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit all writes inside, or roll them back."""
        self._db.execute("BEGIN")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def remove_unknown_files(self, known: Collection[str]) -> None:
        """Delete files and folders that belong to no record."""
        for path in self.files.iterdir():
            if path.name in known:
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Release the folder; its contents stay."""
        self._db.close()
