"""The weekly example: the first model goes on, the same data is skipped, a worse model rejected, a better one not."""

from __future__ import annotations

import shutil

from airflow.utils.session import create_session

from airflow_provider_osai.demo.digits import write_digits
from tests.conftest import ROOT


def test_the_weekly_retraining_is_a_few_lines():
    """At most 40, with imports."""
    text = (ROOT / "example_dags/example_osai_weekly.py").read_text()
    assert len(text[text.index("champion, trained") :].splitlines()) <= 40


def events(uri):
    """What the events of an asset say, oldest first."""
    from airflow.models.asset import AssetEvent, AssetModel
    from sqlalchemy import select

    with create_session() as session:
        query = select(AssetEvent.extra).join(AssetModel, AssetModel.id == AssetEvent.asset_id)
        return list(session.scalars(query.where(AssetModel.uri == uri).order_by(AssetEvent.id)))


def mislabelled(images, folder):
    """The same images, half of each category in the next one."""
    for category in sorted(images.iterdir()):
        wrong = folder / str((int(category.name) + 1) % 10)
        for n, image in enumerate(sorted(category.iterdir())):
            target = (folder / category.name) if n % 2 else wrong
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(image, target / f"{category.name}-{image.name}")
    return folder


def some(images, folder, count, start=0):
    """Some images of each category."""
    for category in sorted(images.iterdir()):
        (folder / category.name).mkdir(parents=True)
        for image in sorted(category.iterdir())[start : start + count]:
            shutil.copy(image, folder / category.name)
    return folder


def test_only_what_is_better_goes_on(run_dag, connection, tmp_path, logged):
    """Promote, skip, reject, promote; only promotions are events of the champion."""
    images = tmp_path / "all"
    write_digits(images)
    holdout = str(some(images, tmp_path / "holdout", 50, 120))

    def week(folder):
        ran = run_dag("example_osai_weekly", images=str(folder), holdout=holdout)
        assert ran.state == "success", ran.tasks
        return ran

    few = some(images, tmp_path / "few", 30)
    first, again = week(few), week(few)
    worse = week(mislabelled(some(images, tmp_path / "right", 50), tmp_path / "worse"))
    best = week(some(images, tmp_path / "many", 115))
    assert [ran.result("gate", "decision") for ran in (first, again, worse, best)] == [
        "promoted",
        None,
        "rejected",
        "promoted",
    ]
    assert (again.tasks["upload_images"], again.tasks["gate"]) == ("skipped", "skipped")
    assert (worse.tasks["gate"], worse.tasks["convert_model"]) == ("skipped", "skipped")
    assert worse.xcom("gate")["reasons"]
    told = events("osai://eu/models/digits")
    assert [extra["model_id"] for extra in told] == [first.result("gate", "model_id"), best.result("gate", "model_id")]
    assert [extra["replaces"] for extra in told] == [None, told[0]["model_id"]]
    digests = [extra["data_digest"] for extra in events("osai://eu/models/digits-candidate")]
    assert len(set(digests)) == len(digests) == 3
