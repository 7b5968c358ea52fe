"""Calls that notebooks state: three vendors' notebooks and a script, single constructs, secrets, and hostile files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_osai.api.errors import OsaiContractError
from airflow_provider_osai.learning.notebooks.notebook import Notebook, Variable, read_notebook
from airflow_provider_osai.learning.notebooks.secret_text import is_secret_name, looks_like_secret
from tests.conftest import ROOT

NOTEBOOKS = Path(__file__).parent / "notebooks"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJjYW5hcnkiOjF9.c2lnbmF0dXJl"


def document(*sources, **other):
    return {"cells": [{"cell_type": "code", "source": source} for source in sources], "nbformat": 4, **other}


@pytest.fixture
def read(tmp_path):
    """Return what is read from cells, or from a file's content."""

    def read(*sources, name="made.ipynb") -> Notebook:
        path = tmp_path / name
        content = sources[0] if isinstance(sources[0], bytes) else json.dumps(document(*sources)).encode()
        path.write_bytes(content)
        return read_notebook(path)

    return read


@pytest.fixture
def call(read):
    """Return the only call of some code."""

    def call(*sources):
        (only,) = read("import requests", *sources).calls
        return only

    return call


def table(notebook):
    return [(call.method, call.path) for call in notebook.calls]


class TestPortalNotebook:
    """Plain ``requests``: sign-in, dataset, upload, training with polling, download."""

    notebook = read_notebook(NOTEBOOKS / "vision_portal.ipynb")

    def test_all_calls_are_found_in_order(self):
        assert table(self.notebook) == [
            ("POST", "/api/v2/Account/SignIn"),
            ("POST", "/api/v2/Datasets"),
            ("POST", "/api/v2/Datasets/{dataset_id}/Images"),
            ("POST", "/api/v2/Projects/{PROJECT_ID}/Trainings"),
            ("GET", "/api/v2/Trainings/{job_id}"),
            ("GET", "/api/v2/Models"),
            ("GET", "/api/v2/Models/{model_id}/Download"),
            ("GET", "{link}"),
            ("DELETE", "/api/v2/Datasets/{dataset_id}"),
        ]
        assert self.notebook.skipped_cells == self.notebook.skipped_lines == 0

    def test_the_sign_in_has_names_for_secrets(self):
        call = self.notebook.calls[0]
        assert call.body == {"email": Variable("USER"), "password": Variable("PASSWORD"), "rememberMe": True}
        assert call.response_reads == {"token": "data.accessToken"}
        assert (call.base_known, call.origin) == (True, "https://portal.vision.example")
        assert call.source == "vision_portal.ipynb cell 3 line 1"

    def test_a_body_is_followed_through_changes(self):
        assert self.notebook.calls[1].body == {
            "name": "screws",
            "type": "Classification",
            "projectId": 4711,
            "categories": [{"name": "good"}, {"name": "bad"}],
        }
        assert self.notebook.calls[1].response_reads == {"dataset_id": "data.id"}

    def test_an_upload_has_files_form_query_and_names_of_headers(self):
        call = self.notebook.calls[2]
        assert (call.files, call.headers) == (("file",), ("Authorization", "X-Tenant"))
        assert (call.query, call.form, call.body) == ({"overwrite": "true"}, {"category": Variable("name")}, None)

    def test_a_training_takes_ids_from_earlier_responses(self):
        assert self.notebook.calls[3].body == {
            "epochs": 20,
            "datasetIds": [Variable("dataset_id")],
            "options": {"learningRate": 0.001, "augment": None},
        }

    def test_a_poll_reads_state_and_result(self):
        call = self.notebook.calls[4]
        assert call.query == {"includeLog": "false"}
        reads = {"status": "data.status", "model_id": "data.result.modelId", "progress": "data.progress"}
        assert reads.items() <= call.response_reads.items()
        assert self.notebook.words == {"status": {"Completed", "Failed", "Cancelled"}}

    def test_a_list_reads_each_item(self):
        assert self.notebook.calls[5].response_reads["accuracy"] == "items[*].accuracy"

    def test_a_signed_address_is_a_variable_read_before(self):
        assert self.notebook.calls[6].response_reads == {"link": "url"}
        assert (self.notebook.calls[7].base_known, self.notebook.calls[7].origin) == (False, "")


class TestClientClass:
    """A class around a session, with a helper; an enum; ``httpx`` with a base address."""

    notebook = read_notebook(NOTEBOOKS / "client_class.ipynb")

    def test_methods_are_followed_where_they_are_called_and_the_others_last(self):
        assert table(self.notebook) == [
            ("GET", "/rest/v1/projects"),
            ("POST", "/rest/v1/projects/{project_id}/files"),
            ("POST", "/rest/v1/projects/{project_id}/jobs"),
            ("GET", "/rest/v1/jobs/{job_id}"),
            ("POST", "/rest/v1/jobs/{job_id}/cancel"),
            ("POST", "/rest/v1/deployments/{deployment}/predict"),
        ]

    def test_the_session_adds_headers_and_the_address_is_not_known(self):
        assert {call.headers for call in self.notebook.calls[:5]} == {("X-Api-Key", "Accept")}
        assert not any(call.base_known for call in self.notebook.calls[:5])

    def test_arguments_and_defaults_are_bound(self):
        projects, upload, train = self.notebook.calls[:3]
        assert projects.query == {"page": 1, "size": 100}
        assert projects.response_reads["project_id"] == "content[0].id"
        assert (upload.files, upload.form) == (("images",), {"split": "train"})
        assert train.body == {"epochs": 25, "mode": 1, "device": Variable("device")}
        assert train.response_reads == {"job_id": "job.id"}

    def test_json_text_is_a_body_and_a_client_has_a_base(self):
        call = self.notebook.calls[5]
        assert (call.origin, call.base_known) == ("https://inspect.example:8443", True)
        assert call.body["top"] == 3
        assert call.response_reads["label"] == "predictions[*].label"

    def test_words_of_enums_sets_and_match_statements(self):
        assert self.notebook.words == {"state": {"succeeded", "failed"}, "phase": {"export", "train", "validate"}}


class TestOldNotebook:
    """nbformat 3, Python 2, magics, shell lines, invalid cells, and all ways to put a text together."""

    notebook = read_notebook(NOTEBOOKS / "python2.ipynb")

    def test_what_is_not_python_is_skipped_and_counted(self):
        assert (self.notebook.skipped_cells, self.notebook.skipped_lines) == (2, 7)

    def test_joined_and_formatted_addresses_are_read(self):
        assert table(self.notebook) == [
            ("GET", "/svc/models"),
            ("PUT", "/svc/models/{first}/versions/latest"),
            ("POST", "/svc/models/{first}/train"),
            ("POST", "/svc/models/{first}/tags"),
            ("DELETE", "/svc/models/{first}"),
        ]
        assert {call.origin for call in self.notebook.calls} == {"https://old.example"}
        assert self.notebook.calls[0].response_reads["first"] == "[0].uuid"

    def test_queries_and_json_in_texts_are_parsed(self):
        assert self.notebook.calls[0].query == {"state": "active", "api_key": Variable("api_key")}
        assert self.notebook.calls[2].query == {"mode": "2"}
        assert self.notebook.calls[2].body == {"epochs": 5, "token": Variable("token")}

    def test_forms_are_told_from_json(self):
        assert self.notebook.calls[1].form == {"note": "hello", "owner_email": Variable("owner_email")}
        assert self.notebook.calls[3].body == {"tag": Variable("JWT"), "ref": Variable("ref"), "kind": 3}

    def test_numbers_are_words_of_a_status(self):
        assert self.notebook.words == {"status": {"ready", "error", "4"}}


def test_a_script_is_read_by_cells():
    notebook = read_notebook(NOTEBOOKS / "script.py")
    assert [(call.method, call.path, call.source) for call in notebook.calls] == [
        ("POST", "/jobs", "script.py line 22"),
        ("GET", "/jobs/{job_id}", "script.py line 23"),
        ("PATCH", "/jobs/{id}", "script.py line 24"),
    ]
    assert notebook.calls[0].body == {"kind": "export", "format": "onnx", "quantize": False}
    assert notebook.words == {"state": {"Finished", "Error"}}
    assert notebook.skipped_cells == 1


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.iterdir()), ids=lambda path: path.name)
def test_no_secret_of_a_notebook_is_in_the_result(path):
    assert "canary" in path.read_text() or path.suffix == ".py"
    result = repr(read_notebook(path)).lower()
    assert "canary" not in result
    assert "eyj" not in result


@pytest.mark.parametrize(
    ("code", "path"),
    [
        ("requests.get('https://h.example/a//b/./c/')", "/a/b/c"),
        ("requests.get('https://h.example/a/../../../etc/passwd')", "/etc/passwd"),
        ("requests.get('https://h.example\\\\evil\\\\..\\\\x')", "/x"),
        ("requests.get('https://u:p@h.example')", "/"),
        ("requests.get('https://h.example/a\\x00\\x1b[2J\\n\\u200bb')", "/a\ufffd[2Jb"),
        ("requests.get(f'https://{host}/v1/models')", "/v1/models"),
        ("requests.get(f'{host}:8080/v1/models')", "/v1/models"),
        ("V = 'v2'\nrequests.get(f'{base}/{V}/models')", "/v2/models"),
        ("PREFIX = '/api/v2'\nrequests.get(f'{base}{PREFIX}/models')", "/api/v2/models"),
        ("MODEL = 'yolo-8'\nrequests.get(f'{base}/models/{MODEL}')", "/models/{MODEL}"),
        ("MODEL_ID = 'a'\nrequests.get(f'{base}/models/{MODEL_ID}')", "/models/{MODEL_ID}"),
        ("requests.get(base + '/models/' + str(row['id']))", "/models/{id}"),
        ("requests.get('%s/models/%(x)d' % base)", "/models/{x}"),
        ("requests.get('{}/models/{m.id:>9}/{0}'.format(base, m=model))", "/models/{model}/{base}"),
        ("requests.get('/models/{'.format(1))", "/models/{"),
        ("from urllib.parse import urljoin as j\nrequests.get(j('https://h.example/api/v1', 'models'))", "/api/models"),
        ("requests.get(urljoin(base, 'models'))", "/models"),
        ("requests.get(urljoin('http://[', 'models') + '/x')", "/x"),
        ("requests.request('get', base + '/x')", "/x"),
        ("requests.request(method='GET', url=base + '/x')", "/x"),
        ("from requests import get as g\ng(base + '/x')", "/x"),
        ("import httpx as h\nh.stream('GET', base + '/x')", "/x"),
        ("api_client.get('models')", "/models"),
        ("self.http.get('/models')", "/models"),
        ("with requests.Session() as s:\n    s.get(base + '/x')", "/x"),
        ("def f(s, *, model_id, size=3):\n    return s.get(f'/models/{model_id}/{size}')", "/models/{model_id}/{size}"),
        ("f = lambda i: requests.get(f'{base}/x/{i}')", "/x/{i}"),
        ("x = [requests.get(f'{base}/x/{i}') for i in ids]", "/x/{i}"),
        ("requests.get(base + ('/x' if new else '/y'))", "/x"),
        ("while True:\n try:\n  requests.get(base + '/x')\n except OSError:\n  pass\n finally:\n  pass", "/x"),
        ("import os\nB = os.environ.get('B', 'https://h.example/api')\nrequests.get(B + '/x')", "/api/x"),
        ("B = os.getenv('B') or 'https://h.example/api'\nrequests.get(B + '/x')", "/api/x"),
        ("class C(requests.Session):\n    def m(self):\n        return self.get(f'{self.b}/m')", "/m"),
        ("class A:\n def g(s, p): return requests.get(b + p)\nclass B(A):\n def m(self): self.g('/m')\nB().m()", "/m"),
        (
            "class A:\n def g(s, p): return requests.get(p)\nclass B(A):\n def g(s): super().g('/v1/m')\nB().g()",
            "/v1/m",
        ),
        (
            "@dataclass\nclass C:\n    base: str\n    def m(self): requests.get(self.base + '/m')\nC('http://h/a').m()",
            "/a/m",
        ),
        (
            "class C:\n    @property\n    def u(self): return b + '/u'\n    def m(self): requests.get(self.u)\nC().m()",
            "/u",
        ),
        ("class C:\n    @staticmethod\n    def m(i): requests.get(f'{b}/m/{i}')\nC().m(n)", "/m/{n}"),
    ],
)
def test_a_path_is_put_together_in_many_ways(call, code, path):
    only = call(code)
    assert (only.method, only.path) == ("GET", path)


@pytest.mark.parametrize(
    "code",
    [
        "{}.get('/x')",
        "row.get('id')",
        "os.environ.get('/x')",
        "cache.put('key', 'value')",
        "requests.get(url)",
        "requests.get('ftp://h.example/x')",
        "requests.get()",
        "requests.request(method, 'https://h.example/x')",
        "requests.get(**kwargs)",
        "def call(method, path):\n    return requests.request(method, base + path)",
        "'requests.get(\"/x\")'",
        "# requests.get('/x')",
    ],
)
def test_what_is_no_stated_call_is_not_one(read, code):
    assert read("import os, requests", code).calls == ()


@pytest.mark.parametrize(
    ("arguments", "field", "value"),
    [
        (
            "json={'a': [1, -2, 0.5, True, None, x, f'n-{x}']}",
            "body",
            {"a": [1, -2, 0.5, True, None, Variable("x"), "n-{x}"]},
        ),
        ("json={**{'a': 1}, 'b': 2, k: 3}", "body", {"a": 1, "b": 2, "{k}": 3}),
        ("json=[{'id': i} for i in ids]", "body", [{"id": Variable("i")}]),
        ("json=None", "body", None),
        (
            "json={'a': 'x' * 3, 'b': b'1', 'c': 10**40, 'd': 1e999}",
            "body",
            dict.fromkeys("abcd", Variable("value")),
        ),
        ("json={'image': '" + "QUJD" * 99 + "'}", "body", {"image": Variable("image")}),
        ("data='{\"a\": [1]}'", "body", {"a": [1]}),
        ("data='not json'", "body", Variable("data")),
        ("data=open('x', 'rb')", "body", Variable("open")),
        ("content=json.dumps({'a': 1})", "body", {"a": 1}),
        ("{'a': 1}", "form", {"a": 1}),
        ("data=[('a', 1), ('b', x)]", "form", {"a": 1, "b": Variable("x")}),
        ("data={'meta': json.dumps({'a': 1})}", "form", {"meta": {"a": 1}}),
        ("files={'image': open('x')}", "files", ("image",)),
        ("files=[('image', a), ('mask', b)]", "files", ("image", "mask")),
        ("files=parts", "files", ("{parts}",)),
        ("params=[('a', 1)]", "query", {"q": "0", "a": 1}),
        ("params=f'a={x}&b=1'", "query", {"q": "0", "a": Variable("x"), "b": "1"}),
        ("headers={'X-A': 'b', **more}", "headers", ("X-A",)),
        ("**{'json': {'a': 1}}", "body", {"a": 1}),
    ],
)
def test_what_is_sent(call, arguments, field, value):
    assert getattr(call(f"requests.post('/x?q=0#f', {arguments})"), field) == value


@pytest.mark.parametrize(
    ("code", "reads"),
    [
        ("a = r.json()['x']['y-z'][0]", {"a": 'x."y-z"[0]'}),
        ("a = r.json().get('x', {}).get('y')", {"a": "x.y"}),
        ("d = r.json()\nself.a = d['x']", {"a": "x"}),
        ("a, b = r.json()['pair']", {"a": "pair[0]", "b": "pair[1]"}),
        ("for i, m in enumerate(r.json()['items']):\n    print(m['id'])", {"m": "items[*]", "id": "items[*].id"}),
        ("a = json.loads(r.text)['x']", {"a": "x"}),
        ("requests.get(f'/y/{r.text}')", {"value": "@"}),
        ("requests.get('/y/' + str(r.json()['x']))", {"x": "x"}),
        ("if r.json()['done']['ok'] == 'yes': pass", {"ok": "done.ok"}),
        (
            "a = next(m for m in r.json()['items'] if m['name'] == 'x')['id']",
            {"name": "items[*].name", "a": "items[*].id"},
        ),
        ("while (a := r.json()['s']) != 'x': pass", {"a": "s"}),
        ("a = r.status_code", {}),
    ],
)
def test_what_is_read_from_a_response(read, code, reads):
    first = read("import requests, json", "r = requests.post('/x')", code).calls[0]
    assert reads.items() <= first.response_reads.items()
    assert first.response_reads == reads or "items" in code


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("x = job['state'] == 'A' or 'B' == job.state", {"state": {"A", "B"}}),
        ("while job.get('state').lower() not in ['a', 'b']: pass", {"state": {"a", "b"}}),
        ("END = {'A', 'B'}\nwhile str(self.state) not in END: pass", {"state": {"A", "B"}}),
        ("NAMES = {0: 'A', 1: 'B'}\nif job['stateId'] in NAMES: pass", {"stateId": {"0", "1"}}),
        ("s = requests.get('/x').json()['info']['phase']\nassert s != 'A'", {"phase": {"A"}}),
        ("if count == 3 or r.status_code == 200 or x == b'A' or y == '' or z == 'a\\n': pass", {}),
        ("if __name__ == '__main__': pass", {}),
        ("if password == 'canary' or mode == 'canary@h.example': pass", {}),
    ],
)
def test_words_of_comparisons(read, code, words):
    assert read("import requests", code).words == words


SECRETS = f"""
API_TOKEN = 'canary-1'
post('/x/' + API_TOKEN, json={{'a': API_TOKEN, 'b': f'x {{API_TOKEN}}'}}, params=[API_TOKEN])
---
x = 'canary-1'
password = x
post(f'/x/{{x}}', json={{'a': x, 'canary-1': 2, 'b': ['canary-1'], 'c': 'the canary-1.'}})
---
post('/x', json={{'login': {{'user': 'canary', 'pin': 'canary', 'list': ['a']}}}}, auth=('canary', 'canary-1'))
---
post('/x?sig=canary&user_name=canary', params={{'accessKey': 'canary'}}, data={{'apiKey': ('canary', 'canary-1')}})
---
post('https://canary:canary-1@h.example/x')
---
post('/x/canary-1/y', headers={{'Authorization': 'Bearer canary-1'}}, json={{'canary-1': 'a'}})
---
h = {{}}
h['Cookie'] = 'sid=canary-1'
post('/x', headers=h, json={{'a': 'sid=canary-1'}})
---
s = requests.Session()
s.headers['X-Key'] = 'canary-1'
s.post('/x', json=['canary-1'], cookies={{'a': 'canary-2'}})
---
c = httpx.Client(auth=('a', 'canary-1'), headers={{'X': 'canary-2'}})
c.post('/x', json=['canary-1', 'canary-2'])
---
os.environ['SECRET'] = 'canary-1'
post('/x', json={{'a': os.getenv('TOKEN', 'canary-2'), 'b': 'canary-1'}})
---
def f(token='canary-1'):
    post('/x', json={{'a': token, 'b': 'canary-1'}})
---
f(secret='canary-1')
post('/x', json={{'b': 'canary-1'}})
---
class C:
    api_key = 'canary-1'
post('/x', json={{'a': C.api_key, 'b': 'canary-1'}})
---
post('/x/{JWT}', json={{'a': '{JWT}', '{JWT}': 1, 'b': 'x {JWT} y'}}, files={{'{JWT}': 1}}, headers={{'{JWT}': 1}})
---
post('/x/canary@h.example', json={{'a': 'Canary Bird <canary@h.example>'}})
---
r = post('/x')
token = 'canary-1'
a = r.json()['canary-1']['canary@h.example']
b = r.json()['c']['canary-1']
---
token = 'canary-1'
if a == 'canary-1':
    post('https://canary-1.example/x')
---
post('/x', json={{'a': 'Zq8canaryT4vX0pLw2Rk9Bn'}})
---
PASSWORD = 'ca' + 'nary'
post('/x', json={{'a': 'my canary'}})
---
credentials = {{'a': ['canary-1'], 'b': {{'c': 'canary-2'}}}}
post('/x', json=['canary-1', 'canary-2', credentials])
""".split("---\n")


@pytest.mark.parametrize("code", SECRETS)
def test_no_secret_is_in_the_result(read, code):
    notebook = read("import os, httpx, requests\nfrom requests import post", code)
    assert len(notebook.calls) == 1
    assert "canary" not in repr(notebook).lower()
    assert "eyJ" not in repr(notebook)


@pytest.mark.parametrize(
    "name", ["token", "accessToken", "API-KEY", "Passwd", "client_secret", "userName", "user", "E-Mail", "x_pw"]
)
def test_names_of_secrets(name):
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name", ["epochs", "tokenUrl", "TOKEN_TYPE", "keypoints", "monkeyboard", "author", "users", "datasetId"]
)
def test_names_of_other_values(name):
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    "text",
    [
        JWT,
        "me@h.example",
        "123e4567-e89b-12d3-a456-426614174000",
        "AKIAIOSFODNN7EXAMPLE1",
        "9f86d081884c7d659a2feaa0",
        "dGhJcyBpUyBzZUNyZVQgVeVs",
    ],
)
def test_looks_of_secrets(text):
    assert looks_like_secret(text)
    assert looks_like_secret(f"say {text}.")


@pytest.mark.parametrize(
    "text",
    [
        "Classification",
        "yolov8n-640-imagenet-pretrained",
        "2024-01-01T00:00:00.000Z",
        "application/vnd.openxmlformats+json",
        "a model",
        "/api/v2/Datasets/{dataset_id}/Images",
        "ResNet50FeatureExtractor",
    ],
)
def test_looks_of_other_texts(text):
    assert not looks_like_secret(text)


def wide(statement, count=5_000):
    return "\n".join(statement.format(i=i, j=i + 1) for i in range(count))


HOSTILE = {
    "many cells": ["x = 1", *["y = [1, 2]"] * 100_000],
    "many invalid cells": ["def f(:"] * 20_000,
    "deep brackets": ["x = " + "(" * 50_000 + ")" * 50_000],
    "deep signs": ["x = " + "-" * 100_000 + "1"],
    "deep negations": ["x = " + "not " * 50_000 + "1"],
    "deep attributes": ["x = a" + ".b" * 50_000],
    "deep subscripts": ["x = a" + "[0]" * 50_000],
    "deep calls": ["x = a" + "()" * 50_000],
    "deep sums": ["x = " + "+".join(["'a'"] * 50_000)],
    "deep lambdas": ["x = " + "lambda: " * 30_000 + "1"],
    "deep elif": ["if a: pass\n" + "elif b: pass\n" * 15_000],
    "deep within the parser's limits": ["x = " + "f(a + [b[" * 30 + "1" + "]])" * 30, "x = a" + "[0].b()" * 100],
    "wide f-string": ["x = f'" + "{a}" * 10_000 + "'"],
    "a text that doubles": ["a = '/x'\n" + "a = a + a\n" * 100 + "requests.get(a)"],
    "a list that doubles": ["a = [1]\n" + "a = [*a, *a]\n" * 100 + "requests.post('/x', json=a)"],
    "lists in lists": ["a = [1]\n" + "a = [a, a]\n" * 100 + "requests.post('/x', json=a, data=a)"],
    "objects in objects": [
        "a = {}\n" + "a = {'a': a, 'b': a}\n" * 100 + "requests.put('/x', data=a, files=a, headers=a)"
    ],
    "an object in itself": ["a = {}\na['a'] = a['b'] = a\ntoken = a\nrequests.post('/x', json=a)"],
    "a list in itself": ["a = []\na.append(a)\na.extend(a)\nsecret = a\nrequests.post('/x', json=a)"],
    "a class that is its own base": ["class A: pass\nclass B(A): pass\nclass A(B): pass\nA().x"],
    "calls that multiply": ["def f0(): requests.get('/x')\n" + wide("def f{j}():\n f{i}()\n f{i}()", 30) + "\nf30()"],
    "functions that call each other": [
        "def f(x): return f(x) + g(x)\ndef g(x): return requests.get('/x') or f(x)\nf(1)"
    ],
    "many functions": [wide("def f{i}(a): return f{j}(a)")],
    "many secrets": [wide("token{i} = 'secret-{i}'") + "\nrequests.get('/secret-7')"],
    "many words": [wide("if s{i} == 'w': pass") + wide("\nif s == 'w{i}': pass")],
    "long names": ["x" * 100_000 + " = 1\nrequests.get(f'/a/{" + "y" * 100_000 + "}')"],
    "a long text": ["requests.post('/" + "x" * 200_000 + "', json={'a': '" + "y" * 50_000 + "'})"],
    "long lines that are not code": [
        " " * 99_999,
        " " * 99_999 + "!",
        "a =" * 33_333,
        "a." * 50_000 + "?",
        "@" * 99_999,
    ],
    "large numbers": ["x = " + "9" * 100_000, "requests.post('/x', json=[0x" + "f" * 9_999 + ", 1e999, -1e999])"],
    "large formats": ["'%999999999d' % 1 + '{:>999999999}'.format(1) + f'{1:>999999999}'\nx = 'a' * 10**10"],
    "format attacks": ["requests.get('/{0.__class__}/{x[__init__]}/{:{}}/{'.format(1))"],
    "control characters": ["requests.get('/a\\x00\\x1b\\r\\n\\u202e')\x00\x0c\x1b", "a\r\rb\x85c"],
    "lone surrogates": ["requests.post('/\ud800', json={'\udfff': '\\ud800'})", "\udc80"],
    "a huge cell": ["x = 1\n" * 100_000],
    "much code": ["x = [" + "1, " * 30_000 + "]"] * 40,
    "not text": [None, 1, ["x = 1", 2, None, ["y"]], {"a": 1}, True],
}


@pytest.mark.parametrize("cells", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_notebook_is_read_within_limits(read, cells):
    notebook = read("import requests", *cells)
    text = repr(notebook)
    assert len(text) < 200_000
    text.encode()  # no lone surrogates
    assert all(call.path.isprintable() and len(call.path) < 5_000 for call in notebook.calls)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\x00",
        b"import requests",
        b"[]",
        b"[" * 100_000,
        b'{"cells": ' + b"[" * 1_000 + b"]" * 1_000 + b"}",
        b'{"cells": {}}',
        b'{"worksheets": 1}',
        b"null",
        b'"cells"',
    ],
)
def test_what_is_not_a_notebook_is_refused(read, content):
    with pytest.raises(OsaiContractError, match=r"made\.ipynb': (not|nested)"):
        read(content)


@pytest.mark.parametrize(
    "content",
    [
        {"cells": []},
        {"cells": [None, 1, [], "x", {}, {"cell_type": "code"}, {"cell_type": ["code"], "source": "x"}]},
        {"worksheets": [None, {"cells": 1}, {"cells": [{"cell_type": "code", "input": {}}]}]},
    ],
)
def test_odd_cells_are_passed_over(read, content):
    assert read(json.dumps(content).encode()) == Notebook()


def test_a_large_file_and_too_many_calls_are_refused(read, tmp_path):
    with (tmp_path / "large.ipynb").open("wb") as file:
        file.truncate(32 * 2**20 + 1)
    with pytest.raises(OsaiContractError, match="larger than 32 MiB"):
        read_notebook(tmp_path / "large.ipynb")
    with pytest.raises(OsaiContractError, match="more than 5000 calls"):
        read("import requests", wide("requests.get('/x/{i}')", 5_001))


def test_a_script_that_is_not_utf8_is_read(read):
    notebook = read("# \u00fc\nimport requests\nrequests.get('/x/\u00fc')".encode("latin-1"), name="script.PY")
    assert table(notebook) == [("GET", "/x/\ufffd")]


def test_the_name_of_the_file_is_one_printable_line(read):
    (call,) = read("import requests\nrequests.get('/x')", name="a\n\x1b[2J\u202eb.ipynb").calls
    assert call.source.isprintable()


def test_a_notebook_is_not_run(read, tmp_path):
    mark = tmp_path / "mark"
    read(f"open({str(mark)!r}, 'w')", f"!touch {mark}", f"__import__('os').system('touch {mark}')")
    assert not mark.exists()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_spoiled_code_never_fails(read, data):
    """Whatever is deleted or doubled in a notebook's code."""
    path = data.draw(
        st.sampled_from([*NOTEBOOKS.glob("*.ipynb"), ROOT / "airflow_provider_osai/learning/notebooks/code_reader.py"])
    )
    lines = path.read_text().splitlines(keepends=True)
    if path.suffix == ".ipynb":
        content = json.loads(path.read_text())
        cells = content.get("cells") or content["worksheets"][0]["cells"]
        lines = [line for cell in cells for line in cell.get("input") or cell["source"]]
    start = data.draw(st.integers(0, len(lines) - 1))
    lines = lines[start : start + 60]
    for _ in range(data.draw(st.integers(0, 5))):
        at = data.draw(st.integers(0, len(lines) - 1))
        column = data.draw(st.integers(0, len(lines[at])))
        lines[at] = (
            lines[at][:column]
            + data.draw(st.sampled_from(["", "(", ")", "'", "\n", "=", "{", "*"]))
            + lines[at][column + 1 :]
        )
    read("".join(lines))
