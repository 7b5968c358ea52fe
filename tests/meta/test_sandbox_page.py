"""docs/sandbox.md and docs/testing.md have all that controls a sandbox."""

from __future__ import annotations

import json
import re
import shlex
from typing import get_args

import httpx
import pytest
from fastapi.routing import APIRoute

from airflow_provider_osai.sandbox import Sandbox
from airflow_provider_osai.sandbox.control import Control, control_routes
from airflow_provider_osai.sandbox.scenarios import Fault, FaultKind, Script
from airflow_provider_osai.sandbox.state import SandboxState
from tests.conftest import ROOT
from tests.sandbox.client import Api, shades

PAGE = (ROOT / "docs/sandbox.md").read_text().partition("## Control a running sandbox\n")[2]


def rows(title):
    """Return the rows of the table below a heading as their cells."""
    section = re.split(r"^#+ ", PAGE.partition(f"### {title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    lines = section.partition("\n\n| `kind` of a fault")[0].splitlines()
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| `")]


def test_each_route_is_in_the_table():
    with SandboxState() as state:
        routes = [route for route in control_routes(Control(state)).routes if isinstance(route, APIRoute)]
    served = {f"{method} {route.path}" for route in routes for method in route.methods}
    assert set(re.findall(r"^\| `((?:GET|POST|DELETE) [^`]+)` \|", PAGE, re.MULTILINE)) == served


@pytest.mark.parametrize(("title", "model"), [("A script", Script), ("A fault", Fault)])
def test_each_key_of_a_body_is_in_its_table_with_its_default(title, model):
    """Where the table gives a value."""
    documented = {name: row[2] for row in rows(title) for name in re.findall(r"`(\w+)`", row[0])}
    assert set(documented) == set(model.model_fields)
    for name, field in model.model_fields.items():
        shown = documented[name].rpartition(": ")[2].strip("`")
        if isinstance(field.default, str):
            assert shown == field.default, name
        elif field.default is not None and shown:
            assert json.loads(shown) == field.default, name


def test_each_kind_of_fault_is_explained():
    table = PAGE.partition("| `kind` of a fault |")[2]
    documented = [kind for cell in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for kind in cell.split(", ")]
    assert {kind.strip("`") for kind in documented} == set(get_args(FaultKind))


def test_the_commands_do_what_the_page_says():
    """Two requests for trainings get a 503, and a training fails at its third poll."""
    (block,) = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    *posts, record = [shlex.split(line) for line in block.replace("\\\n", "").splitlines()]
    with Sandbox() as sandbox, Api(sandbox) as api:
        dataset = api.dataset(shades(3))
        for curl, _, header, url, _, body in posts:
            address = url.replace("http://127.0.0.1:8099", sandbox.portal_url)
            assert (curl, httpx.post(address, content=body, headers=[header.split(": ")]).status_code) == ("curl", 204)
        assert [api.get("/Trainings").status_code for _ in range(3)] == [503, 503, 200]
        job = api.ok(
            "POST", "/Trainings", json={"datasetIds": [dataset], "modelName": "m", "modelType": "classification"}
        )
        polls = [api.ok("GET", f"/Trainings/{job['id']}") for _ in range(3)]
        assert [poll["status"] for poll in polls] == ["running", "running", "failed"]
        assert polls[-1]["message"] == "out of memory"
        shown = httpx.get(record[1].replace("http://127.0.0.1:8099", sandbox.portal_url)).json()
        assert shown["jobs"][0]["state"] == "failed"
