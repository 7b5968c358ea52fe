"""Generates pages from files outside docs/ (CHANGELOG and the like, example Dags), rewrites links to them, and ranks
pages in the search."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "changelog.md": "CHANGELOG.md",
    "code-of-conduct.md": "CODE_OF_CONDUCT.md",
    "contributing.md": "CONTRIBUTING.md",
    "releasing.md": "RELEASING.md",
    "security-policy.md": "SECURITY.md",
}
BOOSTS = {
    "Getting started": 2.0,
    "Connect your OSAI": 2.0,
    "Guides": 2.0,
    "Operate": 1.5,
    "Reference": 0.5,
    "Project": 0.5,
}
"""How much more a page counts in the search than its words do, by its section: a reader who looks for a task finds the
guide before the generated reference. A page's own front matter (``search: {boost: 3}``) takes precedence."""
PAGE_BOOSTS = {
    "events.md": 2.5,
    "install.md": 1.0,
    "failures.md": 2.5,
    "reference/configuration.md": 1.5,
    "stability.md": 2.0,
    "troubleshooting.md": 2.0,
}
"""The same, of pages that answer what their section's others only mention."""
WIDE_PAGES = ("failures.md",)
"""Their tables need the room of the table of contents."""
GENERATED_BOOST = 0.25
"""Of the example Dags' code, the changelog and the pages for developers, which mention everything."""


def on_files(files: Files, config) -> Files:
    """Add the generated pages."""
    for page, source in PAGES.items():
        text = (ROOT / source).read_text()
        files.append(File.generated(config, page, content=_rewrite_links(text, from_root=True)))
    for path in sorted((ROOT / "example_dags").glob("*.py")):
        code = path.read_text()
        about = ast.get_docstring(ast.parse(code)) or path.stem
        content = f"# {path.stem}\n\n{about}\n\n```python\n{code}```\n"
        files.append(File.generated(config, f"example_dags/{path.stem}.md", content=content))
    return files


def on_page_markdown(markdown: str, page, **_) -> str:
    """Rank the page in the search, and rewrite links to generated pages."""
    is_generated = page.file.src_uri in PAGES or page.file.src_uri.startswith("example_dags/")
    section = page.parent.title if page.parent else ""
    boost = GENERATED_BOOST if is_generated else PAGE_BOOSTS.get(page.file.src_uri, BOOSTS.get(section, 1.0))
    page.meta.setdefault("search", {"boost": boost})
    if page.file.src_uri in WIDE_PAGES:
        page.meta.setdefault("hide", ["toc"])
    return markdown if page.file.src_uri in PAGES else _rewrite_links(markdown, from_root=False)


def on_post_page(output: str, **_) -> str:
    """Name what the theme leaves without a name, for screen readers."""
    return output.replace('role="dialog"', 'role="dialog" aria-label="Search"')


def _rewrite_links(text: str, *, from_root: bool) -> str:
    """Rewrite links to files outside docs/ into links to pages, which lie one folder less far up."""
    up = "()" if from_root else r"((?:\.\./)*)\.\./"
    text = re.sub(rf"\]\({up}example_dags/(\w+)\.py\)", r"](\1example_dags/\2.md)", text)
    text = re.sub(rf"\]\({up}example_dags\)", r"](\1examples.md)", text)
    for page, source in PAGES.items():
        text = re.sub(rf"\]\({up}{re.escape(source)}(#[\w-]+)?\)", rf"](\1{page}\2)", text)
    text = re.sub(rf"\]\({up}README\.md\)", r"](\1index.md)", text)
    if from_root:
        text = re.sub(r"\]\(docs/([\w./#-]+)\)", r"](\1)", text)
    return text
