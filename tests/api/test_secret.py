"""Objects that contain secrets do not disclose them to debuggers, error reporters, caches and pickle."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import pprint
from dataclasses import asdict, dataclass

import pytest
from pydantic import SecretStr

from airflow_provider_osai.api.client import AsyncOsaiClient, OsaiClient
from airflow_provider_osai.api.secret import Sealed
from airflow_provider_osai.api.settings import OsaiSettings
from tests.conftest import CANARY, SECRET, settings_for
from tests.raw_server import RawServer, document, http

WEBHOOK = "webhook-secret-of-thirty-characters"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJuYW1lIjoiYSJ9.c2ln"


@pytest.fixture
def holders():
    """Settings, clients and their auth objects, after a sign-in."""
    sign_in = http(JWT.encode(), Content_Type="text/plain")
    with RawServer(lambda _: [document({"id": 1})], sign_in) as server:
        settings = settings_for(server.base_url, webhook_secret=WEBHOOK)

        async def sign_in_async():
            async with await AsyncOsaiClient.open(settings, retry_budget=0) as client:
                await client.send(client.calls.get_user())
                return client

        with OsaiClient(settings, retry_budget=0) as client:
            client.send(client.calls.get_user())
            other = asyncio.run(sign_in_async())
            secrets = {"settings": settings, "token": settings.access_token, "webhook": settings.webhook_secrets[0]}
            clients = {"client": client, "auth": client.auth, "async client": other, "async auth": other.auth}
            yield secrets | clients


HOLDERS = ["settings", "token", "webhook", "client", "auth", "async client", "async auth"]


@dataclass
class Cached:
    """A dataclass with such an object."""

    value: object


@pytest.mark.parametrize("name", HOLDERS)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_object_with_a_secret_cannot_be_pickled(holders, name, protocol):
    """Directly or within another object."""
    for value in (holders[name], [holders[name]], Cached(holders[name])):
        with pytest.raises(TypeError, match=r"holds a secret and cannot be pickled.*connection's id"):
            pickle.dumps(value, protocol)


@pytest.mark.parametrize("name", HOLDERS)
def test_object_with_a_secret_cannot_be_deeply_copied(holders, name):
    for copied in (copy.deepcopy, lambda value: copy.deepcopy([value]), lambda value: asdict(Cached(value))):
        with pytest.raises(TypeError, match="holds a secret and cannot be .*copied"):
            copied(holders[name])


def texts(value, seen, depth=0):
    """Yield all texts in attributes and items, as a debugger shows them."""
    if isinstance(value, (str, bytes)):
        yield value if isinstance(value, str) else value.decode("latin-1")
    if depth > 12 or id(value) in seen or isinstance(value, (type, str, bytes, int, float)):
        return
    seen[id(value)] = value
    yield repr(value)
    children = list(getattr(value, "__dict__", {}).values())
    slots = [slot for cls in type(value).__mro__ for slot in getattr(cls, "__slots__", ())]
    children += [
        getattr(value, slot, None) for slot in slots if isinstance(slot, str) and not slot.startswith("__weak")
    ]
    if isinstance(value, dict):
        children += [*value, *value.values()]
    elif isinstance(value, (list, tuple, set, frozenset)):
        children += list(value)
    for child in children:
        yield from texts(child, seen, depth + 1)


@pytest.mark.parametrize("name", ["settings", "token", "webhook", "auth", "async auth"])
def test_secret_is_not_in_the_attributes(holders, name):
    values = list(texts(holders[name], {}))
    assert len(values) > 1
    assert sum(bool(SECRET.search(text)) or WEBHOOK in text or JWT in text for text in values) == 0


@pytest.mark.parametrize("show", [repr, str, vars, pprint.pformat], ids=lambda show: show.__name__)
@pytest.mark.parametrize("name", HOLDERS)
def test_secret_is_not_in_representations(holders, name, show):
    text = f"{show(holders[name])}"
    assert not any(secret in text for secret in (CANARY, WEBHOOK, JWT))


def test_dumped_settings_do_not_contain_secrets(holders):
    settings = holders["settings"]
    for text in (
        str(settings.model_dump(exclude={"contract"})),
        settings.model_dump_json(exclude={"contract"}),
        json.dumps(settings.model_dump(mode="json", exclude={"contract"})),
    ):
        assert "**********" in text
        assert CANARY not in text
        assert WEBHOOK not in text


def test_settings_can_be_compared_shallowly_copied_and_read(holders):
    settings = holders["settings"]
    other = settings.model_copy(update={"timeout": 1.0})
    assert (other.timeout, other.access_token.get_secret_value()) == (1.0, CANARY)
    assert other != settings
    assert other.model_copy(update={"timeout": settings.timeout}) == copy.copy(settings) == settings
    assert [secret.get_secret_value() for secret in settings.webhook_secrets] == [WEBHOOK]
    with holders["client"].clone(1.0) as clone:
        assert clone.send(clone.calls.get_user()).id == "1"
        assert clone.auth.sign_ins == 0


def test_any_secret_str_is_accepted_and_sealed():
    settings = OsaiSettings(base_url="https://osai.example.com/api", access_token=SecretStr(CANARY))
    assert isinstance(settings.access_token, Sealed)
    assert settings.access_token == SecretStr(CANARY) == settings.access_token
    assert hash(settings.access_token) == hash(Sealed(CANARY))
    assert (len(settings.access_token), bool(Sealed("")), settings.access_token != Sealed("x")) == (
        len(CANARY),
        False,
        True,
    )
    assert OsaiSettings(base_url="https://a.example/api", access_token=CANARY).access_token == Sealed(CANARY)
