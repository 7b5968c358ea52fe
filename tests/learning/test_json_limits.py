"""The bounded JSON reader: what it repairs, and what it refuses."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_osai.api.errors import OsaiContractError
from airflow_provider_osai.learning.json_limits import _has_more_values, load_bounded, read_bounded
from tests.conftest import CANARY

MIB = 2**20


@pytest.fixture
def load(tmp_path):
    """Return the document in *content*, with small limits."""

    def load(content, max_bytes=MIB, max_depth=20, max_values=1000):
        path = tmp_path / "file.json"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return load_bounded(path, max_bytes, max_depth, max_values)

    return load


@pytest.mark.parametrize(
    ("content", "document"),
    [
        ('{"a": [1, 2.5, "x", null, true]}', {"a": [1, 2.5, "x", None, True]}),
        ('{"a": 1, "a": 2}', {"a": 2}),
        ("[NaN, Infinity, -Infinity, 1e999, -1e999, 1e3]", [None] * 5 + [1000.0]),
        (b'"caf\xe9"', "caf\ufffd"),
        (b'"\xed\xa0\x80"', "\ufffd" * 3),
        ('{"\\ud800": "\\udfff\\u0000\\ud83d\\ude00"}', {"\ufffd": "\ufffd\ufffd\U0001f600"}),
        ("\ufeff[1]", [1]),
        ('"\U0001f600"'.encode("utf-16"), "\U0001f600"),
        ('"\u00e9"'.encode("utf-32"), "\u00e9"),
    ],
)
def test_a_document_is_read_and_repaired(load, content, document):
    assert load(content) == document


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "not valid JSON, expecting value in line 1, column 1"),
        ("<html>", "not valid JSON, expecting value in line 1"),
        ('{"a":\n "b', "not valid JSON, unterminated string starting at in line 2, column 2"),
        (b"\x1f\x8b\x08\x00\xff", "not valid JSON"),
        ("[" * 100_000, "nested too deeply|more than 1000 values"),
        ("1" * 10_000, "a number has too many digits"),
        ("[" * 21 + "]" * 21, "nested more than 20 levels deep"),
        ('{"a":' * 21 + "1" + "}" * 21, "nested more than 20 levels deep"),
        ("[" + "1," * 1000 + "1]", "more than 1000 values"),
        ("[" + "{}," * 1000 + "1]", "more than 1000 values"),
    ],
)
def test_what_is_not_json_or_over_a_limit_is_refused(load, content, problem):
    with pytest.raises(OsaiContractError, match=rf"file\.json': .*({problem})"):
        load(content)


@pytest.mark.parametrize("content", ["[" * 500_000 + "]" * 500_000, '{"a":' * 500_000 + "1" + "}" * 500_000])
def test_deep_nesting_is_refused_whatever_the_other_limits(load, content):
    with pytest.raises(OsaiContractError, match="nested"):
        load(content, 100 * MIB, 100, 10_000_000)


def test_documents_at_the_limits_are_read(load):
    assert load("[" * 20 + "]" * 20)
    assert len(load(json.dumps([1] * 998))) == 998
    assert load('"123456"', max_bytes=8) == "123456"


def test_signs_in_strings_are_not_values(load):
    """A body of a recording is a string with many commas and brackets."""
    text = '[{"a": "\\\\"}, {}],' * 1000
    assert load(json.dumps({"text": text})) == {"text": text}


@given(st.recursive(st.none() | st.text('"\\[{,x'), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_the_count_is_never_less_than_the_values(document):
    def count(node):
        children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        return 1 + sum(map(count, children))

    assert count(document) == 1 or _has_more_values(json.dumps(document), count(document) - 1)
    assert not _has_more_values(json.dumps(document), 2 * count(document))


@pytest.mark.parametrize("content", ['"' * 300_001, '"' + '\\"' * 300_000, '"\\', "," * 5 + '"' + "\\" * 300_001])
def test_odd_quotes_are_counted_in_linear_time(content):
    """These hung a version that backtracked."""
    assert _has_more_values(content, 1) == content.startswith(",")


def test_a_file_over_the_size_is_not_read(load, tmp_path):
    with pytest.raises(OsaiContractError, match="larger than 1 MiB"):
        load(b" " * (MIB + 1))
    with pytest.raises(OsaiContractError, match="larger than 100 bytes"):
        load(b" " * 101, max_bytes=100)
    sparse = tmp_path / "sparse.json"
    with sparse.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(OsaiContractError, match="larger than 1 MiB"):
        read_bounded(sparse, MIB)


def test_what_is_not_a_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    problems = {"": "directory", "pipe": "not a file", "none": "No such file", "a\0b": "not a valid path"}
    for name, problem in problems.items():
        with pytest.raises(OsaiContractError, match=problem):
            read_bounded(tmp_path / name, MIB)


def test_a_message_has_no_control_characters_of_the_name(tmp_path):
    with pytest.raises(OsaiContractError) as caught:
        read_bounded(tmp_path / "a\nb\x1b[2J\udc80", MIB)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("content", [f'["{CANARY}', f'["{CANARY}"', CANARY, f'{{"{CANARY}": 1e}}', f'["{CANARY}\n"]'])
def test_no_error_keeps_the_text(load, content):
    """The decoder's error holds the whole document."""
    with pytest.raises(OsaiContractError) as caught:
        load(content)
    assert CANARY not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.slow
def test_a_large_recording_needs_little_more_than_its_text(tmp_path):
    """Bodies are base64 text: the peak is the file's bytes and text, then the text and the document."""
    path = tmp_path / "large.har"
    body = random.Random(1).randbytes(MIB).hex()
    path.write_text(json.dumps([{"text": body} for _ in range(40)]))
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from airflow_provider_osai.learning.json_limits import load_bounded\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "load_bounded(Path(sys.argv[1]), 2**28, 9)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) * 1024 < 2.2 * path.stat().st_size
