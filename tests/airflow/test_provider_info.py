"""The provider metadata, and what Airflow loads from it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import import_module
from importlib.metadata import entry_points, metadata
from pathlib import Path
from unittest.mock import MagicMock
from xml.etree import ElementTree

import airflow
import jsonschema
import pytest
from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService

from airflow_provider_osai import __version__
from airflow_provider_osai.api.settings import EXTRAS, REGIONS
from airflow_provider_osai.get_provider_info import get_provider_info
from airflow_provider_osai.hooks.osai import OsaiHook
from airflow_provider_osai.operators.job import WEBHOOK_POLL_INTERVAL
from tests.conftest import ROOT

INFO = get_provider_info()
CONNECTION = INFO["connection-types"][0]


def schema(name: str) -> dict:
    return json.loads((Path(airflow.__file__).parent / name).read_text())


def connection_schema() -> dict:
    """Return the connection-type part of the schema that Airflow applies to its own providers."""
    whole = schema("provider.yaml.schema.json")
    return {"definitions": whole.get("definitions", {}), **whole["properties"]["connection-types"]}


def test_entry_point_returns_the_metadata():
    """Airflow rejects a package name that is not the name of the distribution."""
    (entry,) = (e for e in entry_points(group="apache_airflow_provider") if "osai" in e.value)
    assert entry.load()() == INFO
    assert INFO["package-name"] == metadata("airflow-provider-osai")["Name"] == "airflow-provider-osai"


def test_metadata_matches_the_schema_of_airflow():
    """Invalid metadata breaks the discovery of all providers."""
    jsonschema.validate(INFO, schema("provider_info.schema.json"))


def test_metadata_have_no_key_that_airflows_own_providers_may_not_have():
    """The schema of ``provider.yaml`` allows no other keys, so it finds misspelt ones. 3.1 has few tags, no ``cli``."""
    rules = schema("provider.yaml.schema.json")
    assert rules["additionalProperties"] is False
    info = json.loads(json.dumps(INFO)) | {"state": "ready", "source-date-epoch": 0}
    if airflow.__version__.startswith("3.1."):
        info["integrations"][0]["tags"] = ["service"]
        del info["cli"]
    jsonschema.validate(info, rules)
    with pytest.raises(jsonschema.ValidationError, match="how-to-guides"):
        jsonschema.validate(info | {"integrations": [info["integrations"][0] | {"how-to-guides": []}]}, rules)


def test_guides_and_logo_are_files_of_the_repository():
    (integration,) = INFO["integrations"]
    assert integration["how-to-guide"]
    for path in (*integration["how-to-guide"], integration["logo"]):
        assert (ROOT / path.lstrip("/")).is_file()
    logo = ElementTree.parse(ROOT / integration["logo"].lstrip("/")).getroot()
    assert logo.tag == "{http://www.w3.org/2000/svg}svg"


def test_every_part_belongs_to_the_integration():
    """The Registry groups modules by it."""
    (integration,) = INFO["integrations"]
    parts = [part for key in ("hooks", "operators", "sensors", "triggers") for part in INFO[key]]
    assert {part["integration-name"] for part in parts} == {integration["integration-name"]}


def test_versions_are_that_of_the_package():
    """Airflow ignores them; the Astronomer Registry needs them."""
    assert INFO["versions"] == [__version__]


def test_each_option_is_read_says_since_when_and_has_its_default():
    read = {
        option
        for path in (ROOT / "airflow_provider_osai").rglob("*.py")
        for option in re.findall(r'conf\.get\w*\(\s*"osai",\s*"(\w+)"', path.read_text())
    }
    options = INFO["config"]["osai"]["options"]
    if read:  # the wheel is tested without its source beside the tests
        assert set(options) == read
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", option["version_added"]) for option in options.values())
    assert float(options["webhook_poll_interval"]["default"]) == WEBHOOK_POLL_INTERVAL


def test_metadata_import_nothing():
    """Each Airflow process reads them at its start."""
    code = (
        "import sys; before = set(sys.modules); from airflow_provider_osai.get_provider_info import get_provider_info;"
        "get_provider_info(); new = set(sys.modules) - before;"
        "print(sorted(name for name in new if name.partition('.')[0] not in sys.stdlib_module_names))"
    )
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert output.strip() == "['airflow_provider_osai', 'airflow_provider_osai.get_provider_info']"


def test_connection_form_matches_the_schema_of_airflow():
    """Airflow silently ignores unknown keys, so they are checked here."""
    jsonschema.validate(INFO["connection-types"], connection_schema())


@pytest.mark.skipif(airflow.__version__.startswith("3.1."), reason="Airflow 3.1 gets the form from the hook")
@pytest.mark.parametrize("key", ["ui_field_behaviour", "colour"])
def test_schema_check_rejects_a_misspelt_key(key):
    broken = json.loads(json.dumps(CONNECTION))
    broken["ui-field-behaviour"][key] = {}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate([broken], connection_schema())


def test_form_has_exactly_the_extra_fields_that_the_hook_reads():
    assert tuple(sorted(CONNECTION["conn-fields"])) == EXTRAS
    assert CONNECTION["conn-fields"]["region"]["schema"]["enum"] == list(REGIONS)


def test_form_has_password_fields_for_secrets():
    assert "password" not in CONNECTION["ui-field-behaviour"]["hidden-fields"]
    assert CONNECTION["ui-field-behaviour"]["relabeling"]["password"] == "Access token"
    assert CONNECTION["conn-fields"]["webhook_secret"]["schema"]["format"] == "password"


def test_every_module_and_class_in_the_metadata_exists():
    """The metadata also lists every operator module."""
    for part in ("hooks", "operators", "sensors", "triggers"):
        for module in INFO[part][0]["python-modules"]:
            import_module(module)
    for path in (
        CONNECTION["hook-class-name"],
        *INFO["extra-links"],
        *(plugin["plugin-class"] for plugin in INFO["plugins"]),
    ):
        module, _, name = path.rpartition(".")
        assert hasattr(import_module(module), name)
    folder = Path(import_module("airflow_provider_osai.operators").__file__).parent
    modules = {p.stem for p in folder.glob("*.py") if not p.stem.startswith("_")}
    resources = modules - {"base", "job", "retry_policy", "upload"}  # upload is shown by dataset
    assert {m.rpartition(".")[2] for m in INFO["operators"][0]["python-modules"]} == resources


def test_airflow_loads_the_plugin():
    """By its entry point, because Airflow ignores the plugin in the metadata by default, without an error."""
    (entry,) = entry_points(group="airflow.plugins", name="osai")
    assert INFO["plugins"] == [{"name": entry.name, "plugin-class": entry.value.replace(":", ".")}]
    code = (
        "from airflow import plugins_manager as p;"
        "apps = p.get_fastapi_plugins()[0] if hasattr(p, 'get_fastapi_plugins') else"
        " (p.initialize_fastapi_plugins(), p.fastapi_apps)[1];"
        "print([app['url_prefix'] for app in apps])"
    )
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert output.splitlines()[-1] == "['/osai', '/osai-jobs']"


def test_airflow_loads_the_connection_form():
    """From the metadata on Airflow 3.2 and newer, from the hook on 3.1."""
    (form,) = (meta for meta in HookMetaService.hook_meta_data() if meta.connection_type == "osai")
    assert form.hook_name == "OSAI"
    assert form.standard_fields.password.title == "Access token"
    assert form.standard_fields.host.hidden
    assert set(form.extra_fields) == set(CONNECTION["conn-fields"])
    assert form.extra_fields["region"]["schema"]["enum"] == ["eu", "us"]
    assert form.extra_fields["webhook_secret"]["schema"]["format"] == "password"


def test_airflow_3_1_gets_the_same_form_from_the_hook(monkeypatch):
    """Airflow 3.1 replaces WTForms with stubs where it is not installed."""
    wtforms, validators = MagicMock(), MagicMock()
    validators.any_of.side_effect = lambda allowed: ("any of", *allowed)
    monkeypatch.setitem(sys.modules, "wtforms", wtforms)
    monkeypatch.setitem(sys.modules, "wtforms.validators", validators)
    fields = OsaiHook.get_connection_form_widgets()
    assert set(fields) == set(CONNECTION["conn-fields"])
    assert fields["webhook_secret"] is wtforms.PasswordField.return_value
    assert fields["timeout"] is wtforms.IntegerField.return_value
    assert wtforms.StringField.call_args_list[0].args[1][1] == ("any of", "eu", "us")
    assert OsaiHook.get_ui_field_behaviour()["hidden_fields"] == CONNECTION["ui-field-behaviour"]["hidden-fields"]
