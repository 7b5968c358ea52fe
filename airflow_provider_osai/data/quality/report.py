"""The result of a data quality check: findings, verdict, and their form as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, TypedDict

from airflow_provider_osai.data.log_lines import plural
from airflow_provider_osai.data.quality.rules import RULES, SETTINGS, Severity

__all__ = [
    "VERDICTS",
    "Finding",
    "FindingCollector",
    "Item",
    "QualityReport",
    "QualitySummary",
    "Severity",
    "printable",
]

MAX_GROUP: Final = 10
"""Maximum number of files that are named of one group of duplicates."""
FORMAT_VERSION: Final = 1
VERDICTS: Final = {
    "errors": "Not ready for training",
    "warnings": "Usable, with warnings",
    "passed": "No problem found",
}
"""What a verdict means."""


class QualitySummary(TypedDict):
    """A small form of the report, for XComs.

    ``verdict``: ``passed``, ``warnings`` or ``errors``; ``images``: images checked; ``errors``, ``warnings``: number of
    kinds of findings; ``findings``: how often each code was found.
    """

    verdict: str
    images: int
    errors: int
    warnings: int
    findings: dict[str, int]


@dataclass(frozen=True, slots=True)
class Item:
    """One place of a finding: a file, a group of files, or a category.

    :param files: names relative to the source; of a group at most 10.
    :param detail: the value and the rule; empty if the message says it all.
    :param holdout_files: names relative to the holdout.
    :param omitted: number of further files of the group.
    """

    files: tuple[str, ...] = ()
    detail: str = ""
    holdout_files: tuple[str, ...] = ()
    omitted: int = 0


@dataclass(frozen=True, slots=True)
class Finding:
    """All places where one rule is violated.

    :param code: the rule's code, for instance ``label-conflict``.
    :param severity: the severity.
    :param message: what is wrong.
    :param remedy: what to do.
    :param count: number of all places: files, groups of files, or categories.
    :param items: the first of these places.
    """

    code: str
    severity: Severity
    message: str
    remedy: str
    count: int
    items: tuple[Item, ...]

    @property
    def omitted(self) -> int:
        """Number of places that :attr:`items` does not contain."""
        return self.count - len(self.items)


@dataclass(frozen=True, slots=True)
class QualityReport:
    """The result of a data quality check.

    :param source: the source as the user wrote it.
    :param images: number of images found.
    :param bytes: their size.
    :param categories: number of images of each category.
    :param findings: the findings, the worst first.
    :param holdout: the holdout as the user wrote it.
    :param holdout_images: number of images found in it.
    :param files: number of image files, including invalid ones.
    :param flagged: number of image files that findings name, or whose annotations were rejected.
    :param affected: those of them with errors, sorted.
    """

    source: str
    images: int
    bytes: int
    categories: Mapping[str, int]
    findings: Sequence[Finding]
    holdout: str | None = None
    holdout_images: int = 0
    files: int = 0
    flagged: int = 0
    affected: Sequence[str] = ()

    @property
    def errors(self) -> int:
        """Number of kinds of errors."""
        return sum(finding.severity is Severity.ERROR for finding in self.findings)

    @property
    def warnings(self) -> int:
        """Number of kinds of warnings."""
        return len(self.findings) - self.errors

    @property
    def verdict(self) -> str:
        """``errors``, ``warnings`` or ``passed``."""
        return "errors" if self.errors else "warnings" if self.warnings else "passed"

    def is_ok(self, *, strict: bool = False) -> bool:
        """Return whether nothing was found that fails a check: no error and, if *strict*, no warning."""
        return not self.errors and not (strict and self.warnings)

    def verdict_line(self) -> str:
        """Return the verdict as one line."""
        if not self.findings:
            images = f"{plural(self.images, 'image')} in {plural(len(self.categories), 'category', 'categories')}"
            return f"{VERDICTS[self.verdict]}: {images} checked"
        where = f" in {self.flagged:,} of {plural(self.files, 'image file')}" if self.flagged else ""
        return f"{VERDICTS[self.verdict]}: {self.kinds()}{where}"

    def kinds(self, *, warnings: bool = True) -> str:
        """Return the numbers of kinds of errors and, if wanted, of warnings, as text; those that are 0 are left out."""
        errors = plural(self.errors, "kind of error", "kinds of errors") if self.errors else ""
        others = plural(self.warnings, "kind of warning", "kinds of warnings") if warnings and self.warnings else ""
        return " and ".join(filter(None, [errors, others]))

    def summary(self) -> QualitySummary:
        """Return the small form for XComs."""
        return {
            "verdict": self.verdict,
            "images": self.images,
            "errors": self.errors,
            "warnings": self.warnings,
            "findings": {finding.code: finding.count for finding in self.findings},
        }

    def as_dict(self) -> dict[str, Any]:
        """Return the report as a JSON object."""
        return {
            "version": FORMAT_VERSION,
            "verdict": self.verdict,
            "errors": self.errors,
            "warnings": self.warnings,
        } | {
            **asdict(self),
            "categories": dict(self.categories),
            "affected": list(self.affected),
            "findings": [asdict(finding) for finding in self.findings],
        }


@dataclass(slots=True)
class FindingCollector:
    """Collects findings, and keeps only the first places of each.

    :param max_items: maximum number of places to keep of each finding.
    :param ignore: codes to leave out.
    :param settings: what remedies call a setting, by its name in :data:`.SETTINGS`.
    """

    max_items: int
    ignore: Sequence[str] = ()
    settings: Mapping[str, str] = field(default_factory=lambda: SETTINGS)
    _items: dict[str, list[Item]] = field(default_factory=dict)
    _counts: dict[str, int] = field(default_factory=dict)
    _severities: dict[str, Severity] = field(default_factory=dict)
    _files: dict[str, set[str]] = field(default_factory=dict)

    def add(self, code: str, *files: str, detail: str = "", holdout_files: Sequence[str] = ()) -> None:
        """Add a place: a file, a group of files, or a category that *detail* names."""
        if code in self.ignore:
            return
        self._counts[code] = self._counts.get(code, 0) + 1
        self.mark(code, files)
        items = self._items.setdefault(code, [])
        if len(items) < self.max_items:
            omitted = max(0, len(files) - MAX_GROUP) + max(0, len(holdout_files) - MAX_GROUP)
            items.append(Item(files[:MAX_GROUP], detail, tuple(holdout_files[:MAX_GROUP]), omitted))

    def mark(self, code: str, files: Iterable[str]) -> None:
        """Add files to those that are affected by a finding, without a place of their own."""
        if code in self._counts:
            self._files.setdefault(code, set()).update(files)

    def affected(self, *severities: Severity) -> set[str]:
        """Return the names of all files with findings of these severities; default: of any."""
        wanted = [code for code, files in self._files.items() if self._severity(code) in (severities or Severity)]
        return set().union(*(self._files[code] for code in wanted))

    def set_severity(self, code: str, severity: Severity) -> None:
        """Override the severity of the rule *code* in this report."""
        self._severities[code] = severity

    def findings(self) -> tuple[Finding, ...]:
        """Return the findings, the worst first."""
        found = [
            Finding(
                code,
                self._severity(code),
                rule.message,
                rule.remedy.format_map(self.settings),
                self._counts[code],
                tuple(self._items[code]),
            )
            for code, rule in RULES.items()
            if code in self._counts
        ]
        return tuple(sorted(found, key=lambda finding: finding.severity is not Severity.ERROR))

    def _severity(self, code: str) -> Severity:
        return self._severities.get(code, RULES[code].severity)


def printable(text: str) -> str:
    """Return text on one line, with backslash escapes for control characters: a file name may contain any."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
