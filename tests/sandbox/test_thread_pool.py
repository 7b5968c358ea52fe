"""The worker threads of a queue."""

from __future__ import annotations

import threading

from airflow_provider_osai.sandbox.thread_pool import Pool


def test_pool_handles_one_item_per_thread_concurrently():
    """Two threads meet at the barrier; the third item waits."""
    meeting, done = threading.Barrier(2, timeout=10), []

    def handle(item: int) -> None:
        if item < 2:
            meeting.wait()
        done.append(item)

    pool = Pool(2, handle, "test")
    for item in range(3):
        pool.put(item)
    pool.close()
    assert sorted(done) == [0, 1, 2]


def test_pool_continues_after_an_exception(caplog):
    done = []
    pool = Pool(1, lambda item: done.append(1 // item), "test")
    pool.put(0)
    pool.put(1)
    pool.close()
    assert done == [1]
    assert "Unexpected error" in caplog.text
