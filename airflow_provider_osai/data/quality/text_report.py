"""The report of a data quality check as lines of text, for a terminal or a log."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from airflow_provider_osai.data.log_lines import join_counts, plural, quoted, size_text
from airflow_provider_osai.data.quality.report import Finding, Item, QualityReport, Severity, printable

__all__ = ["Line", "finding_line", "item_text", "text_lines"]

HEADINGS: Final = {Severity.ERROR: "ERRORS", Severity.WARNING: "WARNINGS"}
MAX_LOGGED: Final = 5
"""Maximum number of places of a finding in one log line."""


class Line(NamedTuple):
    """A line of the report.

    :param text: one printable line.
    :param style: what it is: empty, ``error``, ``warning``, ``passed`` or ``dim``.
    """

    text: str
    style: str = ""


def text_lines(report: QualityReport) -> Iterator[Line]:
    """Yield the lines of the report: what was checked, the findings by severity, and the verdict as the last line."""
    size = f"{plural(report.images, 'image')} ({size_text(report.bytes)})"
    yield Line(f"{printable(report.source)}: {size}{_categories(report)}")
    if report.holdout is not None:
        yield Line(f"Holdout {printable(report.holdout)}: {plural(report.holdout_images, 'image')}")
    severity = None
    for finding in report.findings:
        if finding.severity is not severity:
            severity = finding.severity
            yield Line("")
            yield Line(HEADINGS[severity], severity.value)
        yield Line(f"{finding.code} ({finding.count:,}): {finding.message}", severity.value)
        for item in finding.items:
            yield Line(f"    {item_text(item)}")
        if finding.omitted:
            yield Line(f"    and {finding.omitted:,} more")
        yield Line(f"    Remedy: {finding.remedy}", "dim")
    yield Line("")
    style = {"errors": "error", "warnings": "warning"}.get(report.verdict, "passed")
    yield Line(report.verdict_line(), style)


def finding_line(finding: Finding) -> str:
    """Return a finding as one line of a log, with its first places."""
    shown = "; ".join(item_text(item) for item in finding.items[:MAX_LOGGED])
    omitted = finding.count - min(len(finding.items), MAX_LOGGED)
    more = f"; and {omitted:,} more" if omitted else ""
    what = f"{finding.severity} {finding.code} ({finding.count:,})"
    return f"{what}: {finding.message} {finding.remedy} Found: {shown}{more}"


def item_text(item: Item) -> str:
    """Return a place of a finding as one printable line: files, and the detail."""
    files = [printable(name) for name in item.files]
    files += [f"holdout: {printable(name)}" for name in item.holdout_files]
    if item.omitted:
        files.append(f"and {item.omitted:,} more")
    return ": ".join(filter(None, [", ".join(files), printable(item.detail)])) or quoted("")


def _categories(report: QualityReport) -> str:
    if not report.categories:
        return ""
    number = plural(len(report.categories), "category", "categories")
    return f" in {number}: {join_counts(report.categories)}"
