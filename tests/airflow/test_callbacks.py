"""Callbacks of operators: what can be called, and what the log says of an error."""

from __future__ import annotations

import logging
from functools import partial

import pytest
from airflow.sdk import BaseNotifier

from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.operators._callbacks import MappedCallbacks, collect_callbacks, run_callbacks
from tests.conftest import CANARY

LOG = logging.getLogger(__name__)


class Note(BaseNotifier):
    def notify(self, context):
        raise AssertionError


class AsyncNote(BaseNotifier):
    async def async_notify(self, context):
        raise AssertionError


class AsyncCallable:
    async def __call__(self, context):
        raise AssertionError


async def awaited(context):
    raise AssertionError


def generated(context):
    yield context


def called(context, url=""):
    raise AssertionError


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (f"https://host/{CANARY}", "contains str, which is not callable"),
        (called.__code__, "contains code, which is not callable"),
        ([Note(), None], "contains NoneType, which is not callable"),
        ({"url": CANARY}, "contains dict, which is not callable"),
        ([[Note()]], "contains list, which is not callable"),
        (Note, "contains Note, which is a class"),
        (AsyncNote(), "contains AsyncNote, which can only be awaited"),
        (awaited, "contains awaited, which is async or a generator"),
        (partial(awaited, url=CANARY), "contains partial, which is async or a generator"),
        (AsyncCallable(), "contains AsyncCallable, which is async or a generator"),
        (generated, "contains generated, which is async or a generator"),
    ],
)
def test_what_a_call_would_not_run_is_rejected_by_its_type(wrong, message):
    with pytest.raises(OsaiArgumentError, match=f"on_promoted {message}") as failed:
        collect_callbacks("on_promoted", wrong)
    assert CANARY not in str(failed.value)
    with pytest.raises(OsaiArgumentError, match=message):
        collect_callbacks("on_promoted", MappedCallbacks(wrong))


def test_functions_objects_and_notifiers_are_accepted_alone_and_in_a_list():
    accepted = [called, partial(called, url="x"), lambda context: None, Note(), [].append]
    assert collect_callbacks("on_promoted", accepted) == collect_callbacks("on_promoted", tuple(accepted)) == accepted
    for callback in accepted:
        assert collect_callbacks("on_promoted", callback) == [callback]


@pytest.mark.parametrize("nothing", [None, [], ()])
def test_nothing_is_no_callbacks(nothing):
    assert collect_callbacks("on_promoted", nothing) == []


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (f"POST https://hooks.example.com/services/{CANARY} failed", "POST https://*** failed"),
        (f"Max retries exceeded with url: /services/{CANARY} (refused)", "with url: *** (refused)"),
        (f"<smtp://ann:{CANARY}@mail.example.com>, no answer", "<smtp://*** no answer"),
        ("no\nroute\x1b[31m", "no route [31m"),
    ],
)
def test_address_in_an_error_is_not_logged(logged, message, shown):
    """That of an incoming webhook is a secret. The fixture ``logged`` searches for it."""

    def fail(context):
        raise ConnectionError(message)

    run_callbacks([partial(fail)], {}, LOG)
    assert "Callback 1 of 1, partial, failed and is ignored: ConnectionError: " in logged()
    assert shown in logged()


def test_callback_that_ends_the_process_does_so():
    """As a time limit, or a signal that Airflow turns into an exception."""

    def leave(context):
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        run_callbacks([leave, called], {}, LOG)
