"""The rule of one field: its value in the API's form and in ours, both ways."""

from __future__ import annotations

import pytest

from airflow_provider_osai.api.field_rules import FieldRule

STEPS = [{"type": "resize", "width": 64}, {"type": "rotation", "angle": 90}]


@pytest.mark.parametrize(
    ("rule", "ours", "theirs"),
    [
        ({"items": {"*": {"scale": 1000}}}, {"accuracy": 0.84, "recall": 0.8}, {"accuracy": 840, "recall": 800}),
        ({"items": {"*": "*.value"}}, {"accuracy": 0.84}, {"accuracy": {"value": 0.84}}),
        ({"items": {"*": {"name": "*.at.end", "scale": 100}}}, {"a b": 0.5}, {"a b": {"at": {"end": 50}}}),
        ({"items": {"f1": "fscore", "*": {"scale": 100}}}, {"f1": 0.5, "map": 0.5}, {"fscore": 0.5, "map": 50}),
        (
            {"keyed_by": "type", "shape": "pairs"},
            STEPS,
            [["resize", {"width": 64}], ["rotation", {"angle": 90}]],
        ),
        ({"keyed_by": "type", "shape": "list"}, STEPS, [{"resize": {"width": 64}}, {"rotation": {"angle": 90}}]),
        (
            {"items": {"type": {"name": "turn && 'rotation' || 'resize'", "write": {}}, "angle": "turn"}},
            STEPS,
            [{"width": 64}, {"turn": 90}],
        ),
        ({"type": "parsed"}, '[{"x": 1}]', [{"x": 1}]),
        ({"shape": "json"}, {"epochs": 3}, '{"epochs": 3}'),
    ],
)
def test_value_is_converted_both_ways(rule, ours, theirs):
    parsed = FieldRule.parse(rule)
    assert parsed.to_api(ours) == theirs
    assert parsed.from_api(theirs) == ours


@pytest.mark.parametrize("name", ["value", "*value", "*.value[?x]"])
def test_rule_of_every_field_must_begin_with_a_star_and_be_a_plain_path(name):
    with pytest.raises(ValueError, match="must be|neither"):
        FieldRule.parse({"items": {"*": name}})
