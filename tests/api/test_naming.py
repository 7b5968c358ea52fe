"""Other names for the keys of JSON objects."""

from __future__ import annotations

from airflow_provider_osai.api.naming import rename


def test_rename_reaches_into_objects_on_both_sides():
    """Dotted names move values between levels, and leave the caller's data alone."""
    data = {"a": {"b": 1, "c": 2}, "d": 3}
    assert rename(data, [("a.b", "x.y"), ("d", "x.z")]) == {"a": {"b": 1, "c": 2}, "x": {"y": 1, "z": 3}}
    assert data == {"a": {"b": 1, "c": 2}, "d": 3}


def test_rename_drops_a_key_that_only_looks_like_the_new_name():
    """If the API calls our id ``modelId``, its own ``id`` is something else."""
    assert rename({"modelId": "7", "id": "not ours"}, [("modelId", "id")]) == {"id": "7"}


def test_one_field_of_the_api_can_be_several_of_ours():
    """A training's id may be its model's id too."""
    assert rename({"modelId": "7"}, [("modelId", "id"), ("modelId", "result.modelId")]) == {
        "id": "7",
        "result": {"modelId": "7"},
    }
