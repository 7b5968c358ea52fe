"""Lists with several pages, of each style, against a sandbox that serves them; and servers that never end."""

from __future__ import annotations

import asyncio
import json

import pytest

from airflow_provider_osai.api.client import AsyncOsaiClient, OsaiClient
from airflow_provider_osai.api.contract import Contract
from airflow_provider_osai.api.errors import OsaiContractError, OsaiRequestError
from airflow_provider_osai.api.overrides import apply_overrides
from airflow_provider_osai.api.requests import TrainingRequest
from airflow_provider_osai.api.settings import OsaiSettings
from airflow_provider_osai.sandbox import Sandbox
from tests.raw_server import RawServer, http

STYLES = {
    "page": {"page": "page", "size": "pageSize", "of": 2},
    "page from 0 with total": {"page": "p", "first": 0, "size": "n", "of": 2, "total": "count"},
    "offset": {"offset": "skip", "size": "take", "of": 2},
    "cursor": {"cursor": "after", "next_cursor": "meta.next", "size": "n", "of": 2},
    "link in the response": {"next": "links.next", "size": "n", "of": 2},
    "header Link": {"next": "Link", "size": "n", "of": 2},
}


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("count", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("response", [{"items": "found"}, {}], ids=["items have a place", "default place"])
def test_all_pages_are_read(style, count, response):
    document = {"dataset.find": {"pages": STYLES[style], "response": response}}
    with Sandbox(contract=apply_overrides(Contract(), document)) as sandbox:
        extra = {"base_url": sandbox.base_url, "contract": document}
        settings = OsaiSettings.from_connection(sandbox.access_token, extra)
        with OsaiClient(settings) as client:
            names = [client.create_dataset(f"d{number}").name for number in range(count)]
            assert [dataset.name for dataset in client.list_datasets()] == names

        async def list_datasets():
            async with await AsyncOsaiClient.open(settings) as client:
                return await client.list_datasets()

        assert [dataset.name for dataset in asyncio.run(list_datasets())] == names


def test_a_job_on_a_later_page_is_picked():
    rules = {"page": "page", "size": "pageSize", "of": 2}
    document = {"training.get": {"path": "/Trainings", "pick": True, "pages": rules}, "training.list": {"pages": rules}}
    with Sandbox(contract=apply_overrides(Contract(), document)) as sandbox:
        sandbox.control.script("training", "reads", reads=10**6)
        extra = {"base_url": sandbox.base_url, "contract": document}
        with OsaiClient(OsaiSettings.from_connection(sandbox.access_token, extra)) as client:
            dataset = client.create_dataset("d").id
            request = TrainingRequest(dataset_ids=[dataset], model_name="m")
            jobs = [client.submit_job(request, f"key{number}").id for number in range(5)]
            assert client.get_job("training", jobs[-1]).id == jobs[-1]
            with pytest.raises(OsaiRequestError) as caught:
                client.get_job("training", "nothing")
            assert caught.value.is_not_found


@pytest.mark.parametrize(
    ("pages", "page", "message"),
    [
        ({"page": "page", "size": "n", "of": 1}, {"items": [{"id": 1}]}, "two pages are the same"),
        ({"cursor": "c", "next_cursor": "next"}, {"items": [], "next": "x"}, "same cursor"),
        ({"next": "next"}, {"items": [{"id": 1}], "next": "https://elsewhere.example.com/x"}, "another server"),
        ({"next": "next"}, {"items": [{"id": 1}], "next": "/api/Datasets"}, "leads to this one"),
    ],
)
def test_a_list_that_never_ends_or_leads_elsewhere_is_an_error(monkeypatch, pages, page, message):
    monkeypatch.setattr("airflow_provider_osai.api.client.MAX_PAGES", 3)
    with RawServer(lambda _: [http(json.dumps(page).encode())]) as server:
        extra = {"base_url": server.base_url, "contract": {"dataset.find": {"pages": pages}}}
        settings = OsaiSettings.from_connection("t" * 20, extra)
        with OsaiClient(settings, retry_budget=0) as client, pytest.raises(OsaiContractError, match=message):
            client.list_datasets()


CAPPED = {
    "a total somewhere": ({}, lambda rest: {"data": {"total": 7}}),
    "a total that is missing where it should be": ({"total": "meta.count"}, lambda rest: {}),
    "hasMore": ({}, lambda rest: {"hasMore": rest > 0}),
    "hasMore by rule": ({"more": "hasMore"}, lambda rest: {"hasMore": rest > 0}),
    "isLast": ({}, lambda rest: {"page": {"isLast": rest <= 0}}),
    "isLast by rule": ({"more": "!isLast"}, lambda rest: {"isLast": rest <= 0}),
}


@pytest.mark.parametrize("sign", CAPPED)
def test_a_server_that_gives_less_than_was_asked_for_is_read_to_the_end(sign):
    """The size that the contract asks for may be above the server's maximum."""
    rules, describe = CAPPED[sign]

    def respond(line):
        number = int(line.partition("p=")[2].split("&")[0].split()[0])
        items = [{"id": each} for each in range(1, 8)][2 * number - 2 : 2 * number]
        return [http(json.dumps({"items": items, **describe(7 - 2 * number)}).encode())]

    with RawServer(respond) as server:
        document = {"dataset.find": {"pages": {"page": "p", "size": "n", "of": 100, **rules}}}
        settings = OsaiSettings.from_connection("t" * 20, {"base_url": server.base_url, "contract": document})
        with OsaiClient(settings, retry_budget=0) as client:
            assert [dataset.id for dataset in client.list_datasets()] == list("1234567")


def test_a_list_with_too_many_pages_is_an_error(monkeypatch):
    monkeypatch.setattr("airflow_provider_osai.api.client.MAX_PAGES", 3)
    counter = iter(range(100))
    with RawServer(lambda _: [http(json.dumps([{"id": next(counter)}]).encode())]) as server:
        extra = {
            "base_url": server.base_url,
            "contract": {"dataset.find": {"pages": {"page": "p", "size": "n", "of": 1}}},
        }
        settings = OsaiSettings.from_connection("t" * 20, extra)
        with OsaiClient(settings, retry_budget=0) as client, pytest.raises(OsaiContractError, match="more than 3"):
            client.list_datasets()
