"""Downloads whose address is in one item of a list."""

from __future__ import annotations

import pytest

from airflow_provider_osai.api.contract import Contract
from airflow_provider_osai.api.errors import OsaiRequestError
from airflow_provider_osai.api.json_paths import ABSENT
from airflow_provider_osai.api.overrides import apply_overrides
from airflow_provider_osai.api.wire_format import file_address

ITEMS = [{"platform": "ONNX", "link": "http://a"}, {"platform": "CoreML"}]


@pytest.fixture
def endpoint():
    rules = {"request": {"target": None}, "pick": True, "response": {"target": "platform"}, "url": "link"}
    return apply_overrides(Contract(), {"model.download": rules})["model.download"]


@pytest.mark.parametrize(("target", "address"), [("onnx", "http://a"), ("CoreML", ABSENT), (None, "http://a")])
def test_the_item_is_found_by_its_target(endpoint, target, address):
    assert file_address(endpoint, ITEMS, {"target": target}) is address


def test_an_unknown_target_is_absent(endpoint):
    with pytest.raises(OsaiRequestError, match="none of the 2 items in the list has the target 'jetson'") as caught:
        file_address(endpoint, ITEMS, {"target": "jetson"})
    assert caught.value.status == 404


def test_the_document_itself_has_the_address_without_pick():
    endpoint = apply_overrides(Contract(), {"model.download": {"url": "a.link"}})["model.download"]
    assert file_address(endpoint, {"a": {"link": "http://a"}}, {}) == "http://a"
