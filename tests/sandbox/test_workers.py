"""The threads behind a queue."""

from __future__ import annotations

import threading

from airflow_provider_osai.sandbox.workers import Pool


def test_pool_works_on_as_many_things_at_once_as_it_has_threads():
    """Two threads meet at the barrier; a third thing waits its turn."""
    meeting, done = threading.Barrier(2, timeout=10), []

    def handle(thing: int) -> None:
        if thing < 2:
            meeting.wait()
        done.append(thing)

    pool = Pool(2, handle, "test")
    for thing in range(3):
        pool.put(thing)
    pool.close()
    assert sorted(done) == [0, 1, 2]


def test_pool_goes_on_after_something_that_could_not_be_handled(caplog):
    """One bad thing does not cost a thread."""
    done = []
    pool = Pool(1, lambda thing: done.append(1 // thing), "test")
    pool.put(0)
    pool.put(1)
    pool.close()
    assert done == [1]
    assert "could not handle" in caplog.text
