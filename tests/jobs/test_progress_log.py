"""The log lines of a wait."""

from __future__ import annotations

import logging

from airflow_provider_osai.jobs.polling import PollLogger, log_job_message
from tests.jobs.conftest import job


def test_a_status_change_is_logged_at_once_and_an_unchanged_status_every_ten_minutes(caplog):
    """Not every poll."""
    now = [1000.0]
    log = logging.getLogger("test.report")
    log_poll = PollLogger(log, since=1000.0, clock=lambda: now[0])
    with caplog.at_level("INFO", "test.report"):
        for second in range(0, 3600, 10):
            now[0] = 1000.0 + second
            log_poll(job("running" if second >= 100 else "queued", progress=0.25), 10.0)
    assert len(caplog.messages) == 2 + 5
    assert caplog.messages[1] == (
        "OSAI training job 7 is running: 100 s since submission, progress 25%, next poll in 10 s"
    )


def test_an_unknown_status_is_warned_about_once_with_the_remedy(caplog):
    log_poll = PollLogger(logging.getLogger("test.report"), since=0.0)
    for _ in range(3):
        log_poll(job("Wird geprüft"), 10.0)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert "'Wird geprüft'" in warnings[0]
    assert "states" in warnings[0]


def test_a_simulated_job_is_marked_in_each_line(caplog):
    with caplog.at_level("INFO", "test.report"):
        PollLogger(logging.getLogger("test.report"), since=0.0)(job("running", simulated=True), 10.0)
    assert "is running (simulated): " in caplog.messages[0]


def test_a_jobs_message_is_logged_on_one_line_and_a_simulated_job_is_a_warning(caplog):
    """A message must not be able to forge log lines."""
    log = logging.getLogger("test.report")
    with caplog.at_level("INFO", "test.report"):
        log_job_message(log, job("succeeded", message="ignored:\nframework"))
        log_job_message(log, job("succeeded"))
        log_job_message(log, job("succeeded", message="made\x1b[0m up", simulated=True))
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"]
    assert caplog.messages[0] == "Message of OSAI training job 7: ignored: framework"
    assert "simulated" in caplog.messages[1]
    assert caplog.messages[1].isprintable()
