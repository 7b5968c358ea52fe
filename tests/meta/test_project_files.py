"""The files that a public project has: they agree with each other, and their checks can fail."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import yaml

from airflow_provider_osai import __version__
from tests.conftest import ROOT
from tests.meta.links import broken_links

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
HOME = PROJECT["project"]["urls"]["Homepage"]
SITE = PROJECT["project"]["urls"]["Documentation"]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob(".github/*.md")])
WORKFLOWS = sorted(ROOT.glob(".github/workflows/*.yml"))
BIN = Path(sys.executable).parent


def workflow(name: str) -> dict:
    return yaml.safe_load((ROOT / f".github/workflows/{name}.yml").read_text())


def steps(path: Path) -> list[dict]:
    return [step for job in yaml.safe_load(path.read_text())["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_link_between_pages_is_broken(page):
    assert list(broken_links(page)) == []


def test_a_link_to_a_missing_file_or_heading_is_found(tmp_path):
    (tmp_path / "other.md").write_text("# Other\n\n## Two words, a `name`\n")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](other.md) [b](other.md#two-words-a-name) [c](other.md#three) [d](missing.md) [e](https://x.invalid)\n"
        "`[f](code.md)`\n```md\n[g](block.md)\n```\n"
    )
    assert list(broken_links(page)) == ["other.md#three", "missing.md"]


def test_all_files_name_the_repository_and_the_site_of_pyproject():
    """A move of the repository changes them all."""
    texts = [
        path.read_text()
        for path in (*PAGES, *ROOT.glob(".github/**/*.yml"), ROOT / "CITATION.cff", ROOT / "mkdocs.yml")
    ]
    owner = HOME.split("/")[3]
    repositories = re.findall(rf"https://github\.com/{owner}/[\w-]+", "\n".join(texts))
    sites = re.findall(rf"https://{owner}\.github\.io/[\w-]+/", "\n".join(texts))
    assert set(repositories) == {HOME}
    assert set(sites) == {SITE}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_each_action_is_pinned_by_a_commit_with_its_version(path):
    lines = [line for line in path.read_text().splitlines() if "uses:" in line]
    assert lines
    assert [line for line in lines if not re.search(r"uses: [\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line)] == []


def test_one_commit_of_an_action_has_one_version():
    pins = {
        tuple(re.search(r"uses: (\S+)@(\S+) # (\S+)", line).groups())
        for path in WORKFLOWS
        for line in path.read_text().splitlines()
        if "uses:" in line
    }
    assert len({action for action, _, _ in pins}) == len(pins)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_have_no_permission_but_those_that_a_job_states(path):
    text = path.read_text()
    assert yaml.safe_load(text)["permissions"] == {}
    for job in yaml.safe_load(text)["jobs"].values():
        assert "permissions" in job
        assert "timeout-minutes" in job
    assert all("  # " in line for line in re.findall(r"^ +[a-z-]+: (?:read|write)\b.*$", text, re.MULTILINE))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_commands_of_workflows_exist(path):
    """Targets of the Makefile, and scripts of .ci."""
    commands = [step["run"] for step in steps(path) if "run" in step]
    for command in commands:
        if command.startswith("make "):
            subprocess.run(["make", "--dry-run", command.split()[1]], cwd=ROOT, check=True, capture_output=True)
        elif command.startswith(".ci/"):
            assert (ROOT / command).stat().st_mode & 0o100


def test_the_matrix_has_all_versions_that_the_package_supports():
    matrix = workflow("ci")["jobs"]["wheel"]["strategy"]["matrix"]
    classifiers = re.findall(r"Python :: (3\.\d+)'", str(PROJECT["project"]["classifiers"]))
    assert matrix["python"] == classifiers
    newest = re.search(r"^apache-airflow==(\d+\.\d+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[1]
    older = sorted(path.stem.removeprefix("constraints-airflow") for path in ROOT.glob("constraints-airflow*.txt"))
    assert matrix["airflow"] == [*older, newest]
    forms = yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE/bug.yml").read_text())["body"]
    options = {field["id"]: field["attributes"]["options"] for field in forms if field["type"] == "dropdown"}
    assert options["airflow"] == [*reversed(matrix["airflow"]), "another"]
    assert options["python"] == [*reversed(matrix["python"]), "another"]


def test_only_the_job_that_publishes_can_get_a_token_of_pypi():
    jobs = workflow("release")["jobs"]
    assert [name for name, job in jobs.items() if job.get("environment", {}).get("name") == "pypi"] == ["pypi"]
    assert all("actions/checkout" not in step.get("uses", "") for step in jobs["pypi"]["steps"])
    assert "secrets." not in (ROOT / ".github/workflows/release.yml").read_text()


@pytest.mark.parametrize(
    ("tool", "fault"),
    [
        (["actionlint"], "runs-on: nowhere-21.04"),
        (["zizmor", "--offline", "--quiet"], "run: echo ${{ github.event.issue.title }}"),
        (["check-jsonschema", "--builtin-schema", "vendor.github-workflows"], "colour: blue"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_the_linters_of_workflows_find_a_fault(tmp_path, tool, fault):
    """So that ``make lint`` cannot pass because a linter checks nothing."""
    good = (
        "name: x\non: {issues: {types: [opened]}}\npermissions: {}\nconcurrency: {group: x, cancel-in-progress: true}\n"
        "jobs:\n  x:\n    name: x\n    runs-on: ubuntu-24.04\n    permissions: {}\n    steps:\n      - run: echo x\n"
    )
    folder = tmp_path / ".github/workflows"
    folder.mkdir(parents=True)
    for name, text in (("good", good), ("bad", with_fault(good, fault))):
        path = folder / f"{name}.yml"
        path.write_text(text)
        done = subprocess.run([BIN / tool[0], *tool[1:], path], capture_output=True, text=True, check=False)
        assert (done.returncode == 0) == (name == "good"), done.stdout + done.stderr


def with_fault(text: str, fault: str) -> str:
    key = fault.partition(":")[0]
    return (
        re.sub(rf"{key}: .*", lambda _: fault, text)
        if f"{key}: " in text
        else text.replace("    steps:", f"    {fault}\n    steps:")
    )


def test_hooks_run_what_is_installed_and_nothing_from_elsewhere():
    """No hook needs the network; each program is in the group ``lint``, or Python's own."""
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"
    programs = {
        re.search(r"(?:\.venv/bin/|\bactionlint$)([\w-]*)", hook["entry"])[0].rpartition("/")[2]
        for hook in repository["hooks"]
    }
    installed = {re.match(r"[\w-]+", each)[0].removesuffix("-kjanat") for each in PROJECT["dependency-groups"]["lint"]}
    assert programs <= installed | {"python"}
    assert {hook["language"] for hook in repository["hooks"]} == {"system"}


def test_every_tool_of_development_is_pinned():
    pins = {line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}
    groups = PROJECT["dependency-groups"].values()
    wanted = {re.match(r"[\w.-]+", each)[0].lower() for group in groups for each in group if isinstance(each, str)}
    assert wanted - pins == set()


def test_the_extras_of_the_makefile_are_all_extras():
    extras = re.search(r"^EXTRAS := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    assert sorted(extras.split(",")) == sorted(PROJECT["project"]["optional-dependencies"])


def test_the_citation_is_of_the_newest_release():
    """Of the version itself, or while it is developed, of the one before."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    released = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0]
    assert (citation["version"], citation["date-released"]) == released
    assert __version__ == released[0] or ".dev" in __version__


def test_each_entry_of_the_changelog_is_one_short_sentence():
    entries = re.findall(
        r"^- (.*?)(?=\n(?:- |\n|#|\[|\Z))", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE | re.DOTALL
    )
    assert len(entries) > 100
    assert [entry for entry in entries if re.search(r"\. [A-Z]", entry) or not entry.endswith(".")] == []
    assert [entry for entry in entries if len(re.sub(r"\s+", " ", entry)) > 240] == []


def test_the_changelog_groups_the_changes_of_each_version_once():
    """As Keep a Changelog has it."""
    for section in re.split(r"^## ", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)[1:]:
        groups = re.findall(r"^### (.*)$", section, re.MULTILINE)
        allowed = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]
        assert groups == [group for group in allowed if group in groups]


CHANGELOG = """# Changelog

## [Unreleased]

## [0.2.0] - 2026-12-01

### Added

- New.

## [0.1.0] - 2026-11-24

- Old.

[0.1.0]: https://example.invalid/v0.1.0
"""


@pytest.fixture
def release_notes():
    spec = spec_from_file_location("release_notes", ROOT / ".ci/release_notes.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.release_notes


def test_the_notes_of_a_release_are_its_section_of_the_changelog(release_notes):
    assert release_notes("v0.2.0", "0.2.0", CHANGELOG) == "### Added\n\n- New.\n"
    assert release_notes("v0.1.0", "0.1.0", CHANGELOG) == "- Old.\n"


@pytest.mark.parametrize(
    ("tag", "version", "message"),
    [
        ("v0.2.0", "0.2.1", "not that of version"),
        ("0.2.0", "0.2.0", "not that of version"),
        ("v0.3.0.dev0", "0.3.0.dev0", "development version"),
        ("v0.3.0", "0.3.0", "no section"),
        ("v0x2.0", "0x2.0", "development version"),
    ],
)
def test_a_release_whose_tag_version_and_changelog_disagree_is_refused(release_notes, tag, version, message):
    with pytest.raises(ValueError, match=message):
        release_notes(tag, version, CHANGELOG)
