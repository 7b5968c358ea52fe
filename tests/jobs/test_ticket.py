"""What a webhook's address carries: whom it lets in, and for what."""

from __future__ import annotations

import base64
import contextlib
import json
import zlib

import pytest
import time_machine
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_osai.jobs.reference import Owner
from airflow_provider_osai.jobs.ticket import Probe, Ticket, TicketError, address, connection_of

NEW, OLD, FOREIGN = "new-secret-0123456789", "old-secret-0123456789", "foreign-secret-012345"
OWNER = Owner("dag", "scheduled__2026-11-23T00:00:00+00:00", "group.train", 3, 2)
TICKET = Ticket("osai_default", OWNER)
TEXT = TICKET.sign([NEW, OLD])


def test_it_says_who_waits():
    """All that is needed to find the task."""
    assert Ticket.read(TEXT, [NEW]) == TICKET
    assert connection_of(TEXT) == "osai_default"


@given(st.builds(Owner, *[st.text(max_size=250)] * 3, st.integers(-1, 10**6), st.integers(0, 10**3)), st.text())
def test_it_is_a_part_of_a_path_whatever_the_names(owner, conn_id):
    """No slash, no dot-dot, nothing that a proxy decodes."""
    text = Ticket(conn_id, owner).sign([NEW])
    assert set(text) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
    assert len(text) > 4096 or Ticket.read(text, [NEW]) == Ticket(conn_id, owner)


def test_the_longest_names_of_airflow_fit():
    """250 characters each, that do not compress."""
    names = [base64.urlsafe_b64encode(bytes((i * i + n) % 251 for i in range(186))).decode()[:250] for n in range(4)]
    ticket = Ticket(names[0], Owner(*names[1:], 100_000, 1_000))
    assert Ticket.read(ticket.sign([NEW]), [NEW]) == ticket


def test_the_first_secret_signs_and_both_are_good():
    """So secrets can be rotated while jobs run."""
    old = TICKET.sign([OLD])
    assert Ticket.read(old, [NEW, OLD]) == TICKET
    with pytest.raises(TicketError, match="signed"):
        Ticket.read(TEXT, [OLD])
    with pytest.raises(TicketError, match="signed"):
        Ticket.read(old, [NEW])


def test_it_expires_after_thirty_days():
    """By the clock of whoever reads it."""
    with time_machine.travel("2026-01-01", tick=False) as clock:
        text = TICKET.sign([NEW])
        clock.shift(30 * 24 * 3600)
        assert Ticket.read(text, [NEW]) == TICKET
        clock.shift(1)
        with pytest.raises(TicketError, match="expired"):
            Ticket.read(text, [NEW])


def swapped(conn_id: str) -> str:
    name = base64.urlsafe_b64encode(conn_id.encode()).decode().rstrip("=")
    return f"{name}.{TEXT.partition('.')[2]}"


def unsigned_bomb() -> str:
    packed = base64.urlsafe_b64encode(zlib.compress(b"[" * 10**6)).decode().rstrip("=")
    return f"{TEXT.partition('.')[0]}..{packed[:2000]}.AAAAAA.AAAA"


NO_GOOD = {
    "empty": "",
    "a word": "Sesame",
    "truncated": TEXT[:-1],
    "without signature": TEXT.rpartition(".")[0],
    "doubled": TEXT + TEXT,
    "forged": Ticket("osai_default", OWNER).sign([FOREIGN]),
    "of another connection": Ticket("osai_other", OWNER).sign([NEW]).replace("b3NhaV9vdGhlcg", "b3NhaV9kZWZhdWx0"),
    "shown to another connection": swapped("osai_other"),
    "a probe": Probe("osai_default", "word").sign([NEW]),
    "a probe's answer": Probe("osai_default", "word").answer([NEW]),
    "too long": TEXT + "A" * 4096,
    "not ASCII": TEXT + "é",
    "a connection that is no text": "_w." + TEXT.partition(".")[2],
    "a bomb": unsigned_bomb(),
}


@pytest.mark.parametrize("text", NO_GOOD.values(), ids=NO_GOOD)
def test_anything_else_is_refused_with_a_reason_that_holds_nothing_of_it(text):
    """The reason goes into a log."""
    with pytest.raises(TicketError) as caught:
        Ticket.read(text, [NEW, OLD])
    assert text[-20:] not in str(caught.value) or not text


@given(st.integers(0, len(TEXT) - 1), st.characters(codec="ascii"))
def test_no_single_character_can_be_changed(position, character):
    """Of the name, the content, the time or the signature."""
    changed = TEXT[:position] + character + TEXT[position + 1 :]
    try:
        assert Ticket.read(changed, [NEW]) == TICKET  # the last bits of a base64 character may mean nothing
    except TicketError:
        assert changed != TEXT


@given(st.text())
def test_no_text_raises_anything_else(text):
    """Strangers send what they like."""
    for read in (connection_of, lambda text: Ticket.read(text, [NEW]), lambda text: Probe.read(text, [NEW])):
        with contextlib.suppress(TicketError):
            read(text)


@pytest.mark.parametrize("content", [[], None, 7, ["dag", "run", "task", "-1", 0], ["dag", "run", "task", -1]])
def test_what_we_signed_but_is_no_task_is_refused(content):
    """Of a newer version, for instance."""
    from airflow_provider_osai.jobs import ticket

    with pytest.raises(TicketError, match="names no task"):
        Ticket.read(ticket._sign("task", "osai_default", content, [NEW]), [NEW])
    assert json.dumps(content)


def test_without_a_secret_nobody_gets_in():
    """A connection that takes no webhooks."""
    with pytest.raises(TicketError, match="takes no webhooks"):
        Ticket.read(TEXT, [])


def test_only_who_knows_the_secret_answers_a_probe():
    """That is how reachability is checked."""
    probe = Probe("osai_default", "word")
    assert Probe.read(probe.sign([NEW]), [NEW]) == probe
    assert probe.is_answered_by(probe.answer([OLD]), [NEW, OLD])
    assert not probe.is_answered_by(Probe("osai_default", "other").answer([NEW]), [NEW])
    assert not probe.is_answered_by(probe.sign([NEW]), [NEW])
    assert not probe.is_answered_by(probe.answer([FOREIGN]), [NEW])


def test_the_address_is_below_airflows():
    """With its base path."""
    assert address("https://airflow.example.com/team", "t") == "https://airflow.example.com/team/osai/webhook/t"
