"""The live check against the servers of the gallery: with the document of each, and with the default contract."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_osai.api.evidence import read_evidence
from airflow_provider_osai.cli import main
from tests.gallery.conftest import DOCUMENTS, STYLES, png
from tests.gallery.servers import create_app
from tests.gallery.world import World
from tests.threaded_server import served


def populate(world: World) -> None:
    """Make one object of each kind: jobs that succeeded, failed and run, and what they made."""
    dataset = world.create_dataset("defects")
    category = world.create_category(dataset.id, "scratch")
    for number in range(3):
        world.add_image(dataset.id, f"{number}.png", png(number), category_id=category.id)
    finish(world, world.train([dataset.id], "model", "classification"))
    world.fail_next("out of memory")
    finish(world, world.train([dataset.id], "other", "detection"))
    model = next(iter(world.models))
    finish(world, world.retrain(model, [dataset.id], "again"))
    finish(world, world.predict(model, dataset.id, min_confidence=0.5, mode="all"))
    finish(world, world.manipulate(dataset.id, "resized", [("resize", {"width": 4, "height": 4})]))
    finish(world, world.convert(model, world.targets[0]))
    world.read(world.rent(world.devices[0], timedelta(minutes=10)))
    world.train([dataset.id], "last", "classification")


def finish(world, job) -> None:
    while job.state not in ("succeeded", "failed"):
        world.read(job)


@pytest.fixture(params=STYLES, ids=lambda style: style.name)
def style(request):
    return request.param


@pytest.fixture
def checked(style, monkeypatch, capfd, tmp_path):
    """Run the command against the style's server, with its document or without one; return the rows by operation."""
    world = World()
    populate(world)

    def check(has_document: bool) -> tuple[int, dict[str, dict[str, Any]], str]:
        with served(create_app(style.name, world)) as address:
            extra = {"base_url": f"{address}/api"}
            if has_document:
                extra["contract"] = str(DOCUMENTS / f"{style.name}.yaml")
            token = world.access_token if style.has_sign_in else world.api_key
            connection = {"conn_type": "osai", "password": token, "extra": extra}
            monkeypatch.setenv("AIRFLOW_CONN_OSAI_DEFAULT", json.dumps(connection))
            capfd.readouterr()
            code = main(["contract", "check", "--live", "--json"])
            output = capfd.readouterr()
            rows = json.loads(output.out)["rows"] if output.out else []
            assert main(["contract", "evidence", "-o", str(tmp_path / "evidence.json")]) == (2 if code == 2 else 0)
        return code, {row["operation"]: row for row in rows}, output.err

    return check


def test_each_row_that_a_get_can_test_works_with_the_document(style, checked, tmp_path):
    """And the evidence has what was seen, without a value."""
    code, rows, _ = checked(True)
    tested = {name: row for name, row in rows.items() if row["method"] == "GET" and name != "model.download"}
    absent = {"user.me"} if style.name == "aspnet_envelope" else set()  # its vendor has none
    assert {name for name, row in tested.items() if row["status"] not in ("works", "not testable")} == absent
    assert code == (1 if absent else 0)
    untested = [row for row in tested.values() if row["status"] == "not testable"]
    lists = {row["details"][0].rpartition(" ")[2] for row in untested}
    assert all(rows[name]["path"] is None for name in lists), "only what needs an id of a list that is null"
    evidence = read_evidence(tmp_path / "evidence.json")
    works = {name for name, row in tested.items() if row["status"] == "works"}
    assert {name for name, seen in evidence.operations.items() if seen.fields} == works
    text = (tmp_path / "evidence.json").read_text()
    assert not re.search(r"defects|scratch|out of memory|2026-|session-|gallery", text)


def test_the_default_contract_is_said_to_differ_without_a_crash(style, checked):
    code, rows, errors = checked(False)
    assert code in (1, 2)
    assert "Traceback" not in errors
    if code == 1:
        assert {row["status"] for row in rows.values()} & {"differs", "absent"}
    else:
        assert style.name in ("aspnet_envelope", "no_list_no_cancel")  # they have another sign-in
        assert "sign-in" in errors
