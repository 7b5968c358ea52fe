"""What OSAI already has converted: taken, left alone, impossible, or untold."""

from __future__ import annotations

import pytest

from airflow_provider_osai.api.calls import OsaiApi
from airflow_provider_osai.api.contract import Contract
from airflow_provider_osai.api.errors import OsaiContractError, OsaiRequestError, OsaiUnreachable, OsaiUnsupported
from airflow_provider_osai.api.models import Conversion
from airflow_provider_osai.api.overrides import apply_overrides
from airflow_provider_osai.jobs.conversions import explain_unsupported, find_conversion


def conversion(word, target="onnx", **fields):
    return Conversion.model_validate(
        {"id": "c", "target": target, "status": word, "state": Contract().state(word), **fields}
    )


@pytest.fixture
def found(client):
    """What stands in for a conversion to ``onnx``, by how OSAI answers."""

    def run(*answers):
        client.answers = {"model.conversions": list(answers)}
        return find_conversion(client, "m", "onnx", notes.append)

    notes = run.notes = []
    return run


def test_the_first_that_succeeded_is_taken_and_that_is_said(found):
    """By the job that made it, or by its own id where both are one."""
    job = found([conversion("failed"), conversion("succeeded", " ONNX ", job_id="7"), conversion("succeeded", id="d")])
    assert (job.id, job.references()["conversion_id"], job.references()["model_id"]) == ("7", "c", "m")
    assert "Reusing conversion" in found.notes[0]
    assert found([conversion("succeeded")]).id == "c"


@pytest.mark.parametrize(("told", "known"), [({"simulated": True}, True), ({"simulated": None}, False), ({}, False)])
def test_a_simulated_conversion_that_is_used_again_is_still_simulated(found, told, known):
    """The key is there only if it is."""
    handed_on = found([conversion("succeeded", **told)]).references()
    assert handed_on.get("simulated", False) is known
    assert ("simulated" in handed_on) is known


@pytest.mark.parametrize("word", ["queued", "running", "failed", "cancelled", "a word that nobody knows"])
def test_what_has_not_succeeded_is_left_alone(found, word):
    """What runs is somebody else's, who may cancel it; success is never assumed."""
    assert found([conversion(word)]) is None
    assert found([conversion("succeeded", "coral"), conversion("succeeded", None)]) is None


@pytest.mark.parametrize("fields", [{"word": "UNSUPPORTED"}, {"word": "failed", "message": "UNSUPPORTED: no"}])
def test_what_is_known_to_be_impossible_is_not_asked_for(found, fields):
    """By the status or by the message; but a success counts more."""
    with pytest.raises(OsaiUnsupported):
        found([conversion(**fields)])
    assert found([conversion(**fields), conversion("succeeded")]).id == "c"


@pytest.mark.parametrize(
    "error",
    [
        OsaiRequestError(404, "GET", "/Models/m/Conversions", ""),
        OsaiUnreachable("a page", status=200),
        OsaiContractError("no list"),
    ],
)
def test_an_api_without_the_list_converts_and_says_so(found, error):
    """The operation is only assumed."""
    assert found(error) is None
    assert "does not list conversions" in found.notes[0]


@pytest.mark.parametrize(
    "error", [OsaiRequestError(403, "GET", "/Models/m/Conversions", ""), OsaiUnreachable("away", status=503)]
)
def test_an_outage_is_no_reason_to_pay_twice(found, error):
    """A retry of the task asks again."""
    with pytest.raises(type(error)):
        found(error)


def test_an_operation_that_is_bound_to_nothing_is_not_asked(found, client):
    """Nor is anything noted."""
    client.calls = OsaiApi(apply_overrides(Contract(), {"model.conversions": None}))
    assert found() is None
    assert (client.sent, found.notes) == ([], [])


def test_the_explanation_names_what_would_do(client):
    """And does not fail where OSAI cannot tell."""
    error = OsaiUnsupported("no", kind="conversion", job_id="7")
    client.answers = {"model.conversions": [[conversion("succeeded", "onnx")], OsaiUnreachable("away")]}
    assert "already converted for: onnx" in str(explain_unsupported(client, error, "m", "coral"))
    assert "'coral'" in str(explain_unsupported(client, error, "m", "coral"))
