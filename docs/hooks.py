"""Generates pages from files outside docs/ (README, CHANGELOG, CONTRIBUTING, example Dags); rewrites links to them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PAGES = {"index.md": "README.md", "changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}


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
    """Rewrite links to generated pages."""
    return markdown if page.file.src_uri in PAGES else _rewrite_links(markdown, from_root=False)


def _rewrite_links(text: str, *, from_root: bool) -> str:
    """Rewrite links to files outside docs/ into links to pages, which lie one folder less far up."""
    up = "()" if from_root else r"((?:\.\./)*)\.\./"
    text = re.sub(rf"\]\({up}example_dags/(\w+)\.py\)", r"](\1example_dags/\2.md)", text)
    text = re.sub(rf"\]\({up}example_dags\)", r"](\1examples.md)", text)
    for page, source in PAGES.items():
        text = re.sub(rf"\]\({up}{re.escape(source)}(#[\w-]+)?\)", rf"](\1{page}\2)", text)
    if from_root:
        text = re.sub(r"\]\(docs/([\w./#-]+)\)", r"](\1)", text)
        text = re.sub(r"\]\(airflow_provider_osai/api/contract\.py\)", "](contract.md)", text)
    return text
