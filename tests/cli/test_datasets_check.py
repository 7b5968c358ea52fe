"""``osai-airflow datasets check``: options, output and exit codes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from airflow_provider_osai.cli import main
from airflow_provider_osai.cli.parsers import QUALITY_OPTIONS
from airflow_provider_osai.data.quality import QualityOptions
from tests.data.quality.making import fill, photo


@pytest.fixture
def folder(tmp_path):
    fill(tmp_path / "data" / "cat")
    fill(tmp_path / "data" / "dog", first=10)
    return tmp_path / "data"


def run(capfd, *arguments):
    """Return the exit code and what was printed."""
    code = main(["datasets", "check", *map(str, arguments)])
    return code, capfd.readouterr().out


def test_the_exit_code_is_that_of_the_verdict(folder, capfd):
    """Warnings count with --strict only."""
    assert run(capfd, folder)[0] == run(capfd, folder, "--strict")[0] == 0
    photo(0).save(folder / "cat" / "again.png")
    assert (run(capfd, folder)[0], run(capfd, folder, "--strict")[0]) == (0, 1)
    assert run(capfd, folder, "--strict", "--ignore", "duplicate-image")[0] == 0
    (folder / "cat" / "bad.png").write_bytes(b"")
    assert run(capfd, folder)[0] == 1


def test_the_last_line_is_the_verdict(folder, capfd):
    _, printed = run(capfd, folder)
    assert printed.splitlines()[-1] == "No problem found: 6 images in 2 categories checked"
    assert "\x1b" not in printed


def test_json_is_all_that_is_printed(folder, capfd):
    fill(folder.parent / "holdout" / "cat", 1)
    code, printed = run(capfd, folder, "--json", "--holdout", folder.parent / "holdout")
    document = json.loads(printed)
    assert code == 1
    assert [finding["code"] for finding in document["findings"]] == ["holdout-overlap"]
    assert (document["holdout_images"], document["images"]) == (1, 6)


def test_the_files_with_errors_are_a_plain_list(folder, capfd):
    assert run(capfd, folder, "--files") == (0, "")
    (folder / "cat" / "empty \n.png").write_bytes(b"")
    photo(0).save(folder / "dog" / "copy.png")
    code, printed = run(capfd, folder, "--files")
    assert (code, printed.splitlines()) == (1, ["cat/0.png", "cat/empty \\n.png", "dog/copy.png"])


def test_thresholds_and_categories_can_be_set(folder, capfd):
    arguments = ("--category", "*cat*=pet", "--category", "dog=pet", "--min-images", "7", "--max-items", "1", "--json")
    _, printed = run(capfd, folder, *arguments)
    document = json.loads(printed)
    assert document["categories"] == {"pet": 6}
    assert [finding["code"] for finding in document["findings"]] == ["few-images", "one-category"]


@pytest.mark.parametrize("conn_id", [[], ["--conn-id", "aws_default"]], ids=" ".join)
def test_an_empty_variable_is_not_the_current_directory(folder, capfd, monkeypatch, conn_id):
    """Neither as the source nor as the holdout."""
    monkeypatch.chdir(folder)
    for name, arguments in {"FOLDER": [""], "--holdout": [str(folder), "--holdout", ""]}.items():
        assert main(["datasets", "check", *arguments, *conn_id]) == 2
        out, err = capfd.readouterr()
        said = f"datasets check: {name} = '': is empty. Does the template or the variable have a value?\n"
        assert (out, err[-len(said) :]) == ("", said)


@pytest.mark.parametrize(
    "arguments",
    [
        ["nowhere"],
        ["{folder}", "--holdout", "nowhere"],
        ["{folder}", "--holdout", "{empty}"],
        ["{folder}", "--min-side", "0"],
        ["{folder}", "--ignore", "everything"],
        ["{folder}", "--html", "{folder}/report.html"],
        ["{folder}", "--html", "{folder}/no/such/folder.html"],
        ["{folder}", "--html", "{empty}"],
        ["{folder}/cat/0.png"],
        ["{folder}", "--json", "--files"],
    ],
    ids=" ".join,
)
def test_an_invalid_argument_is_a_usage_error(folder, tmp_path, capfd, arguments):
    """With a message on the standard error, and nothing on the standard output."""
    (tmp_path / "empty").mkdir()
    code = main(["datasets", "check", *(each.format(folder=folder, empty=tmp_path / "empty") for each in arguments)])
    captured = capfd.readouterr()
    assert (code, captured.out) == (2, "")
    assert captured.err.startswith("osai-airflow datasets check: ")


def test_the_defaults_are_those_of_the_upload():
    """The parsers have them without importing the model."""
    fields = QualityOptions.model_fields
    assert fields.keys() - QUALITY_OPTIONS.keys() == {"ignore", "near_duplicates"}
    for name, (_, _, default, _) in QUALITY_OPTIONS.items():
        assert default == (None if fields[name].default_factory else fields[name].default)


@pytest.mark.parametrize(
    "arguments",
    [[], ["x", "--category", "cat"], ["x", "--min-side", "many"]],
    ids=" ".join,
)
def test_a_wrong_option_ends_with_one_line(arguments, capfd):
    with pytest.raises(SystemExit) as ended:
        main(["datasets", "check", *arguments])
    assert ended.value.code == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("osai-airflow datasets check: ")
    assert line.endswith(" 'osai-airflow datasets check --help' lists the options.")


def test_messages_name_the_options_of_the_command(folder, tmp_path, capfd):
    photo(0, (20, 20)).save(folder / "cat" / "small.png")
    _, printed = run(capfd, folder, "--max-pixels", "5000", "--min-images", "5")
    assert "raise --max-pixels if" in printed
    assert "lower --min-images." in printed
    assert "The limit is --min-side." in printed
    (tmp_path / "empty").mkdir()
    for holdout in ("nowhere", tmp_path / "empty"):
        assert main(["datasets", "check", str(folder), "--holdout", str(holdout)]) == 2
        assert "datasets check: --holdout = " in capfd.readouterr().err


def test_the_page_is_written_beside_the_text(folder, tmp_path, capfd):
    (folder / "cat" / "bad.png").write_bytes(b"")
    page = tmp_path / "report.html"
    code = main(["datasets", "check", str(folder), "--html", str(page)])
    printed, said = capfd.readouterr()
    assert (code, said) == (1, f"Wrote {page}\n")
    assert "cat/bad.png" in page.read_text()
    assert "cat/bad.png" in printed


def test_the_module_runs_without_airflow(folder):
    """Checking a local folder imports no Airflow, so it starts at once."""
    program = (
        "import sys; from airflow_provider_osai.cli import main; "
        "code = main(['datasets', 'check', *sys.argv[1:]]); sys.exit(code or 'airflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
