"""The signed token and the probe in a webhook's URL."""

from __future__ import annotations

import base64
import contextlib
import json
import zlib

import pytest
import time_machine
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_osai.jobs.idempotency import TaskKey
from airflow_provider_osai.webhooks.address import address
from airflow_provider_osai.webhooks.token import (
    InvalidToken,
    WebhookProbe,
    WebhookToken,
    claimed_connection_id,
    seal,
    unseal,
)

NEW, OLD, FOREIGN = "new-secret-0123456789", "old-secret-0123456789", "foreign-secret-012345"
OWNER = TaskKey("dag", "scheduled__2026-11-23T00:00:00+00:00", "group.train", 3, 2)
TOKEN = WebhookToken("osai_default", OWNER)
TEXT = TOKEN.sign([NEW, OLD])


def test_token_identifies_the_waiting_task():
    assert WebhookToken.verify(TEXT, [NEW]) == TOKEN
    assert claimed_connection_id(TEXT) == "osai_default"


@given(st.builds(TaskKey, *[st.text(max_size=250)] * 3, st.integers(-1, 10**6), st.integers(0, 10**3)), st.text())
def test_token_is_a_safe_path_segment_whatever_the_names(owner, conn_id):
    """It has no slash, no dot segment, and no character that a proxy decodes."""
    text = WebhookToken(conn_id, owner).sign([NEW])
    assert set(text) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
    assert len(text) > 4096 or WebhookToken.verify(text, [NEW]) == WebhookToken(conn_id, owner)


def test_token_of_the_longest_airflow_ids_is_valid():
    """The ids have 250 characters each and do not compress."""
    names = [base64.urlsafe_b64encode(bytes((i * i + n) % 251 for i in range(186))).decode()[:250] for n in range(4)]
    token = WebhookToken(names[0], TaskKey(*names[1:], 100_000, 1_000))
    assert WebhookToken.verify(token.sign([NEW]), [NEW]) == token


def test_first_secret_signs_and_all_secrets_verify():
    """Secrets can be rotated while jobs run."""
    old = TOKEN.sign([OLD])
    assert WebhookToken.verify(old, [NEW, OLD]) == TOKEN
    with pytest.raises(InvalidToken, match="signed"):
        WebhookToken.verify(TEXT, [OLD])
    with pytest.raises(InvalidToken, match="signed"):
        WebhookToken.verify(old, [NEW])


def test_token_expires_after_thirty_days():
    with time_machine.travel("2026-01-01", tick=False) as clock:
        text = TOKEN.sign([NEW])
        clock.shift(30 * 24 * 3600)
        assert WebhookToken.verify(text, [NEW]) == TOKEN
        clock.shift(1)
        with pytest.raises(InvalidToken, match="expired"):
            WebhookToken.verify(text, [NEW])


def with_connection_id(conn_id: str) -> str:
    name = base64.urlsafe_b64encode(conn_id.encode()).decode().rstrip("=")
    return f"{name}.{TEXT.partition('.')[2]}"


def unsigned_bomb() -> str:
    packed = base64.urlsafe_b64encode(zlib.compress(b"[" * 10**6)).decode().rstrip("=")
    return f"{TEXT.partition('.')[0]}..{packed[:2000]}.AAAAAA.AAAA"


INVALID = {
    "empty": "",
    "a word": "Sesame",
    "truncated": TEXT[:-1],
    "unsigned": TEXT.rpartition(".")[0],
    "doubled": TEXT + TEXT,
    "forged": WebhookToken("osai_default", OWNER).sign([FOREIGN]),
    "signed for another connection": WebhookToken("osai_other", OWNER)
    .sign([NEW])
    .replace("b3NhaV9vdGhlcg", "b3NhaV9kZWZhdWx0"),
    "another connection id in front": with_connection_id("osai_other"),
    "a probe": WebhookProbe("osai_default", "nonce").sign([NEW]),
    "a probe response": WebhookProbe("osai_default", "nonce").answer([NEW]),
    "too long": TEXT + "A" * 4096,
    "not ASCII": TEXT + "é",
    "undecodable connection id": "_w." + TEXT.partition(".")[2],
    "a decompression bomb": unsigned_bomb(),
}


@pytest.mark.parametrize("text", INVALID.values(), ids=INVALID)
def test_invalid_token_is_rejected_with_a_reason_that_does_not_quote_it(text):
    """The reason is logged."""
    with pytest.raises(InvalidToken) as caught:
        WebhookToken.verify(text, [NEW, OLD])
    assert text[-20:] not in str(caught.value) or not text


@given(st.integers(0, len(TEXT) - 1), st.characters(codec="ascii"))
def test_token_with_a_changed_character_is_rejected(position, character):
    """Whether it belongs to the connection id, the content, the time or the signature."""
    changed = TEXT[:position] + character + TEXT[position + 1 :]
    try:
        assert WebhookToken.verify(changed, [NEW]) == TOKEN  # unused bits of base64 may differ
    except InvalidToken:
        assert changed != TEXT


@given(st.text())
def test_any_text_raises_at_most_invalid_token(text):
    for parse in (
        claimed_connection_id,
        lambda text: WebhookToken.verify(text, [NEW]),
        lambda text: WebhookProbe.verify(text, [NEW]),
    ):
        with contextlib.suppress(InvalidToken):
            parse(text)


@pytest.mark.parametrize("content", [[], None, 7, ["dag", "run", "task", "-1", 0], ["dag", "run", "task", -1]])
def test_signed_content_that_is_not_a_task_is_rejected(content):
    """It may come from a newer version."""
    from airflow_provider_osai.webhooks import token

    with pytest.raises(InvalidToken, match="not a task instance"):
        WebhookToken.verify(token._sign("task", "osai_default", content, [NEW]), [NEW])
    assert json.dumps(content)


def test_token_is_rejected_if_the_connection_has_no_secret():
    with pytest.raises(InvalidToken, match="not set up for webhooks"):
        WebhookToken.verify(TEXT, [])


def test_probe_response_is_valid_only_with_a_secret_of_the_connection():
    """The probe checks that webhooks reach this Airflow."""
    probe = WebhookProbe("osai_default", "nonce")
    assert WebhookProbe.verify(probe.sign([NEW]), [NEW]) == probe
    assert probe.is_answered_by(probe.answer([OLD]), [NEW, OLD])
    assert not probe.is_answered_by(WebhookProbe("osai_default", "other").answer([NEW]), [NEW])
    assert not probe.is_answered_by(probe.sign([NEW]), [NEW])
    assert not probe.is_answered_by(probe.answer([FOREIGN]), [NEW])


def test_webhook_url_is_below_the_base_path_of_airflow():
    assert address("https://airflow.example.com/team", "t") == "https://airflow.example.com/team/osai/webhook/t"


class TestSeal:
    def test_sealed_text_is_unsealed_by_the_same_deployment(self):
        assert unseal(seal(TEXT, "deployment-1"), "deployment-1") == TEXT

    @given(st.text(max_size=50), st.integers(0, 500))
    def test_any_other_text_is_rejected(self, junk, at):
        """Sealed by another deployment, not sealed, or changed anywhere."""
        sealed = seal(TEXT, "deployment-1")
        changed = sealed[: at % len(sealed)] + junk + sealed[at % len(sealed) + 1 :]
        for text in (junk, TEXT, f".{TEXT}", seal(TEXT, "deployment-2"), seal(TEXT, ""), changed):
            if text != sealed:
                with pytest.raises(InvalidToken):
                    unseal(text, "deployment-1")
