"""What stands in the log of a wait."""

from __future__ import annotations

import logging

from airflow_provider_osai.jobs.report import Reporter
from tests.jobs.conftest import job


def test_changes_are_told_at_once_and_sameness_every_ten_minutes(caplog):
    """Never a line per look."""
    now = [1000.0]
    log = logging.getLogger("test.report")
    report = Reporter(log, since=1000.0, clock=lambda: now[0])
    with caplog.at_level("INFO", "test.report"):
        for second in range(0, 3600, 10):
            now[0] = 1000.0 + second
            report(job("running" if second >= 100 else "queued", progress=0.25), 10.0)
    assert len(caplog.messages) == 2 + 5
    assert caplog.messages[1] == (
        "OSAI training job 7 is running: 100 s since submission, progress 25%, next look in 10 s"
    )


def test_an_unknown_word_is_warned_of_once_with_the_remedy(caplog):
    """The user can bind it."""
    report = Reporter(logging.getLogger("test.report"), since=0.0)
    for _ in range(3):
        report(job("Wird geprüft"), 10.0)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert "'Wird geprüft'" in warnings[0]
    assert "states" in warnings[0]
