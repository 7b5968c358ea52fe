"""Print the notes of a release: the section of CHANGELOG.md for the tag in the argument, if it fits the version."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def release_notes(tag: str, version: str, changelog: str) -> str:
    """Return the section of the changelog.

    :param tag: the Git tag, ``v`` and the version.
    :param version: that of the package, such as ``0.2.0``.
    :param changelog: the text of CHANGELOG.md.
    :raises ValueError: if the tag is not the version's, or its section is missing, empty or without a date.
    """
    if tag != f"v{version}":
        raise ValueError(f"The tag {tag!r} is not that of version {version!r}. Tag the commit that sets the version.")
    if not re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", version):
        raise ValueError(f"{version!r} is a development version. Set the version in airflow_provider_osai/__init__.py.")
    heading = re.compile(
        rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d\n(.*?)(?=^## |^\[|\Z)", re.MULTILINE | re.DOTALL
    )
    section = heading.search(changelog)
    if section is None or not section[1].strip():
        raise ValueError(f"CHANGELOG.md has no section '## [{version}] - <date>' with entries.")
    return section[1].strip() + "\n"


if __name__ == "__main__":
    source = (ROOT / "airflow_provider_osai/__init__.py").read_text()
    stated = re.search(r'^__version__ = "(.*)"$', source, re.MULTILINE)
    try:
        notes = release_notes(sys.argv[1], stated[1] if stated else "", (ROOT / "CHANGELOG.md").read_text())
    except ValueError as error:
        sys.exit(str(error))
    sys.stdout.write(notes)
