"""The page about metrics and traces, its alerts and the dashboard name what the code has, and all of it."""

from __future__ import annotations

import json
import re
from typing import get_args

import pytest
import yaml

from airflow_provider_osai.api.evidence import ProblemKind
from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.observability import metrics, tracing
from airflow_provider_osai.observability.metrics import METRICS, Metric
from tests.conftest import ROOT

PAGE = (ROOT / "docs/metrics.md").read_text()
DASHBOARD = json.loads((ROOT / "docs/grafana-dashboard.json").read_text())
QUERIES = {
    f"{panel['title']} {target['refId']}": target["expr"]
    for panel in DASHBOARD["panels"]
    for target in panel["targets"]
}
(ALERTS,) = [
    {rule["alert"]: rule["expr"] for rule in block["groups"][0]["rules"]}
    for block in map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
    if "groups" in block
]
SERIES = {
    f"airflow_{metric.name.replace('.', '_')}{suffix}": metric
    for metric in METRICS
    for suffix in (("_sum", "_count") if metric.type == "timer" else ("",))
}
"""The names of Prometheus' StatsD exporter."""


def series_of(query: str) -> list[str]:
    return re.findall(r"airflow_\w+", query)


def row(line: str) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in line.strip("|").split("|"))


def documented(prefix: str) -> list[tuple[str, ...]]:
    return [row(line) for line in PAGE.splitlines() if line.startswith(f"| `{prefix}")]


def test_each_metric_of_the_code_is_among_all_metrics():
    assert {each for each in vars(metrics).values() if isinstance(each, Metric)} == set(METRICS)
    assert len({metric.name for metric in METRICS}) == len(METRICS)


def test_the_page_has_each_metric_with_its_type_and_tags_and_no_other():
    table = [(name.strip("`"), kind, tags) for name, kind, tags, _ in (r for r in documented("osai.") if len(r) == 4)]
    expected = [(each.name, each.type, ", ".join(f"`{tag}`" for tag in each.tags)) for each in METRICS]
    assert table == expected


def test_the_page_has_each_value_of_a_tag():
    values = {name: re.findall(r"`([\w-]+)`", row(line)[1]) for name in ("kind", "problem") for line in tag_lines(name)}
    assert values["kind"] == [*JobKind, "unknown"]
    assert values["problem"] == list(get_args(ProblemKind))


def tag_lines(name: str) -> list[str]:
    return [line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |")]


def test_the_page_has_each_span_and_no_other():
    assert [r[0].strip("`") for r in documented("osai.") if len(r) == 3] == list(tracing.SPANS)


def test_the_names_are_safe_for_each_backend():
    for metric in METRICS:
        assert re.fullmatch(r"osai(\.[a-z_]+)+", metric.name)
        assert len(metric.name) < 63 - len("airflow.")  # OpenTelemetry's limit of earlier versions


@pytest.mark.parametrize("query", [*QUERIES.values(), *ALERTS.values()], ids=[*QUERIES, *ALERTS])
def test_a_query_uses_documented_metrics_and_their_tags(query):
    used = series_of(query)
    assert used
    assert set(used) <= set(SERIES)
    tags = {tag for name in used for tag in SERIES[name].tags}
    grouped = {tag.strip() for group in re.findall(r"by \(([^)]*)\)", query) for tag in group.split(",")}
    selected = set(re.findall(r"(\w+)=~", query)) - {"__name__"}
    assert grouped | selected <= tags
    assert query.count("(") == query.count(")")
    assert query.count("{") == query.count("}")


def test_the_dashboard_shows_each_metric():
    shown = {SERIES[name].name for query in QUERIES.values() for name in series_of(query)}
    assert shown == {metric.name for metric in METRICS}


def test_the_dashboard_can_be_imported():
    """Ids are unique, panels do not overlap, and no data source of somebody's Grafana is named."""
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
    sources = [part["datasource"] for panel in panels for part in (panel, *panel["targets"])]
    assert {source["uid"] for source in sources} == {"${datasource}"}
    kinds = next(each for each in DASHBOARD["templating"]["list"] if each["name"] == "kind")
    assert kinds["query"].split(",") == list(JobKind)


def test_an_alert_is_there_for_what_needs_somebody():
    alerted = {SERIES[name] for query in ALERTS.values() for name in series_of(query)}
    assert {metrics.LOST, metrics.KILLED, metrics.NOT_CANCELLED, metrics.QUEUED_DURATION} <= alerted
