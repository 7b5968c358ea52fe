"""The edits that the upgrades make in the Dag file are those that docs/upgrades.md tells users to make."""

from tests.conftest import ROOT
from tests.upgrade.edits import RENAMED, edited


def test_the_docs_name_each_edit_of_a_dag_file():
    text = (ROOT / "docs" / "upgrades.md").read_text()
    assert [pair for pair in RENAMED.items() if not all(f"`{name}`" in text for name in pair)] == []


def test_names_are_replaced_as_arguments_and_as_keys_only():
    assert edited('Op(trained=a, digest=b["digest"])') == 'Op(skip_if_trained_on=a, data_digest=b["data_digest"])'
    assert edited("trained = known(verdict)") == "trained = known(verdict)"
