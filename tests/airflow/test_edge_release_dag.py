"""The edge release example: converted, brought home, tested on a device that is given back, and released."""

from __future__ import annotations

from tests.airflow.test_weekly import some
from tests.sandbox.client import Api


def test_the_example_releases_the_champion(run_dag, connection, images, tmp_path, sandbox, logged):
    """Which the weekly example has promoted before."""
    folder = str(images)
    weekly = run_dag("example_osai_weekly", images=folder, holdout=str(some(images, tmp_path / "holdout", 8, 12)))
    model_id = weekly.result("gate", "model_id")
    assert model_id
    ran = run_dag("example_osai_edge_release", releases=f"{tmp_path}/releases/")
    assert ran.state == "success", ran.tasks
    (file,) = (tmp_path / "releases").iterdir()
    assert ran.xcom("release") == f"{ran.xcom('model')} is released as {file}"
    assert ran.result("convert_model", "reused") is True  # the weekly run has converted it
    assert [rental["state"] for rental in sandbox.control.rentals()] == ["cancelled"]
    with Api(sandbox) as api:
        assert api.ok("GET", f"/Models/{ran.xcom('model')}")["id"] == ran.xcom("model")
