"""Finds links in Markdown files that lead nowhere; a hook of pre-commit runs it on what a commit changes."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

API = "airflow_provider_osai."
"""Begins the anchors that mkdocstrings makes of names; ``mkdocs build --strict`` checks them."""
LINK = re.compile(r"\]\(<?([^)\s>]+)>?(?: \"[^\"]*\")?\)")


def broken_links(page: Path) -> Iterator[str]:
    """Yield relative links of a page whose file or heading does not exist. Links to other sites are not requested."""
    for link in LINK.findall(without_code(page.read_text())):
        if re.match(rf"[a-z][a-z+.-]*:|#{re.escape(API)}", link):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            yield link


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub and MkDocs make of the headings of a page."""
    headings = re.findall(r"^#+ +(.+)$", without_code(page.read_text(), spans=False), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def without_code(text: str, *, spans: bool = True) -> str:
    """Return the text without its blocks of code and, with ``spans``, without code in lines."""
    text = re.sub(r"^( *)(```+).*?^\1\2 *$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]+`", "", text) if spans else text


if __name__ == "__main__":
    found = [f"{name}: {link}" for name in sys.argv[1:] for link in broken_links(Path(name))]
    sys.exit("\n".join(found) or 0)
