"""Waiting for room at OSAI: what is logged and reported of a submission that is refused, and the error at the end."""

from __future__ import annotations

import pytest

from airflow_provider_osai.api.errors import OsaiAuthError, OsaiBusy, OsaiUnreachable
from airflow_provider_osai.api.requests import TrainingRequest
from airflow_provider_osai.jobs.submission import submit
from tests.jobs.conftest import job

REQUEST = TrainingRequest(dataset_ids=["1"], model_name="m")
QUOTA = OsaiBusy("two jobs are running", reason="quota reached")
BUSY = OsaiBusy("429")
DOWN = OsaiUnreachable("no route to host", may_have_been_processed=False)
OPEN = OsaiUnreachable("timeout", may_have_been_processed=True)
TAKEN = job("queued", reference="ref")


@pytest.fixture
def told():
    """What was logged, and what was reported."""
    return [], []


@pytest.fixture
def submitted(client, told):
    lines, reports = told

    def run(*answers, timeout=3600.0):
        client.answers = {"training.submit": list(answers), "training.list": [[TAKEN]]}
        options = {"log": lines.append, "on_capacity": reports.append, "random_factor": lambda: 0.0}
        return submit(client, REQUEST, "ref", unreachable_timeout=timeout, **options)

    return run


def test_the_first_refusal_is_logged_with_its_reason_and_the_end_with_its_duration(submitted, told):
    submitted(QUOTA, QUOTA, TAKEN)
    lines, _ = told
    assert lines == [
        "OSAI has no room (quota reached): two jobs are running. Waiting for up to 3600 s, no retry is used",
        "OSAI had room after 3 s (quota reached until then)",
    ]


def test_a_long_wait_is_logged_at_growing_intervals(submitted, told):
    """1, 2, 4, 8, 16 and 32 minutes, however many refusals there are."""
    with pytest.raises(OsaiBusy):
        submitted(QUOTA)
    lines, _ = told
    assert len(lines) == 7
    assert [line.split(" after ")[1].split(" s")[0] for line in lines[1:]] == ["63", "123", "243", "483", "963", "1923"]


def test_each_reason_is_logged_once_and_reported_when_it_changes(submitted, told):
    """An outage in between is no lack of room."""
    submitted(BUSY, DOWN, QUOTA, BUSY, BUSY, TAKEN)
    lines, reports = told
    assert [line.split(":")[0] for line in lines[:3]] == [
        "OSAI has no room (busy)",
        "no route to host. Retrying the submission for up to 3599 s",
        "OSAI has no room (quota reached)",
    ]
    assert [(report.reason, report.waited) for report in reports] == [
        ("busy", None),
        ("quota reached", None),
        ("busy", None),
        ("busy", 31.0),
    ]
    assert len({report.since for report in reports}) == 1


def test_nothing_is_reported_of_an_outage_or_of_a_submission_that_is_taken_at_once(submitted, told):
    submitted(TAKEN)
    submitted(DOWN, DOWN, TAKEN)
    lines, reports = told
    assert reports == []
    assert lines == ["no route to host. Retrying the submission for up to 3600 s"]


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [
        ("busy", "Run fewer jobs at the same time"),
        ("quota reached", "Run the tasks in a pool with include_deferred"),
        ("no credit", "Add credit to the OSAI account"),
    ],
)
def test_the_error_at_the_end_names_the_reason_and_the_remedy(submitted, told, reason, remedy):
    """A retry may find room later, so it is retryable."""
    with pytest.raises(OsaiBusy, match=rf"no room \({reason}\) for \d+ s.*full.*{remedy}.*docs/capacity.md") as caught:
        submitted(OsaiBusy("full", reason=reason), timeout=100.0)
    assert caught.value.retryable
    assert caught.value.is_busy
    assert caught.value.reason == reason
    _, reports = told
    assert [report.waited for report in reports] == [None, 63.0]


def test_an_outage_at_the_end_keeps_its_own_error(submitted, told):
    with pytest.raises(OsaiUnreachable, match="no route to host") as caught:
        submitted(QUOTA, DOWN, timeout=100.0)
    assert caught.value is DOWN
    assert caught.value.__cause__ is None
    assert told[1][-1].waited is not None


@pytest.mark.parametrize("last", [OPEN, OsaiAuthError("rejected")], ids=["no response", "rejected"])
def test_a_wait_ends_with_whatever_ends_the_submission(submitted, told, last):
    if isinstance(last, OsaiAuthError):
        with pytest.raises(OsaiAuthError):
            submitted(QUOTA, last)
    else:
        assert submitted(QUOTA, last).id == "7"
    assert [report.waited for report in told[1]] == [None, 1.0]
    assert not any("had room" in line for line in told[0])
