"""The shape of the house: one declared surface, and operators that only say what to ask for."""

from __future__ import annotations

import ast
import inspect
import pkgutil
import re
from importlib import import_module

import pytest

import airflow_provider_osai
from airflow_provider_osai.operators.base import OsaiClientOperator, OsaiOperator
from airflow_provider_osai.operators.batch import OsaiJobBatchOperator
from airflow_provider_osai.operators.device import OsaiRentDeviceOperator
from airflow_provider_osai.operators.gate import OsaiModelGateOperator
from airflow_provider_osai.operators.job import OsaiJobOperator
from airflow_provider_osai.operators.training import OsaiBaseTrainingOperator
from airflow_provider_osai.sensors.job import OsaiJobSensor
from tests.conftest import ROOT

MODULES = [
    name
    for _, name, _ in pkgutil.walk_packages(airflow_provider_osai.__path__, "airflow_provider_osai.")
    if not name.endswith("__main__")
]
BASES = (
    *(OsaiOperator, OsaiClientOperator, OsaiJobOperator),
    OsaiBaseTrainingOperator,
)


def operators() -> list[type[OsaiOperator]]:
    """All concrete operators."""
    for name in MODULES:
        if ".operators." in name:
            import_module(name)

    def below(cls):
        return {cls}.union(*(below(sub) for sub in cls.__subclasses__()))

    return sorted(below(OsaiOperator) - set(BASES), key=lambda cls: cls.__name__)


def test_all_the_operators_are_looked_at():
    """So that the tests below cannot pass by looking at none."""
    assert len(MODULES) > 35
    assert len(operators()) >= 5


@pytest.mark.parametrize("path", sorted(ROOT.glob("constraints*.txt")), ids=lambda path: path.stem)
def test_the_constraints_name_versions_and_nothing_else(path):
    """No address of a registry, no path of a machine; each line but a first comment pins one distribution."""
    lines = re.sub(r"\A# .*\n", "", path.read_text()).splitlines()
    assert len(lines) > 100
    assert not [line for line in lines if not re.fullmatch(r"[a-z0-9._-]+==[\w.+!-]+( ; [^/]+)?", line)]


@pytest.mark.parametrize("name", MODULES)
def test_what_a_module_declares_is_what_it_has(name):
    """``__all__`` names what exists and leaves out no public class of the module (that it is sorted, ruff checks)."""
    module = import_module(name)
    declared = list(getattr(module, "__all__", []))
    assert all(hasattr(module, public) for public in declared)
    own = {
        public
        for public, value in vars(module).items()
        if not public.startswith("_") and getattr(value, "__module__", None) == name and inspect.isclass(value)
    }
    assert own <= set(declared) or not declared


@pytest.mark.parametrize("name", MODULES)
def test_a_module_says_what_it_is(name):
    """In its docstring; how long it is follows from its topic."""
    assert import_module(name).__doc__


@pytest.mark.parametrize("cls", operators(), ids=lambda cls: cls.__name__)
class TestConcreteOperators:
    """Each is a request and its docstring."""

    def test_what_all_do_is_not_written_again(self, cls):
        """``execute`` and its like live once, in the base, except in operators that do something else around a job."""
        others = (OsaiModelGateOperator, OsaiJobBatchOperator, OsaiRentDeviceOperator)
        if cls.__bases__ == (OsaiOperator,) or cls in others:
            assert "execute" in vars(cls)
            return
        assert not {"execute", "execute_complete", "resume_execution", "on_kill", "defer"} & set(vars(cls))

    def test_the_constructor_only_assigns(self, cls):
        """Templates and XComArgs are not rendered yet."""
        assert_only_assigns(cls)

    def test_every_argument_is_described(self, cls):
        """With ``:param:``, once."""
        described = re.findall(r":param (\w+):", inspect.getdoc(cls))
        own = set(inspect.signature(cls.__init__).parameters) - {"self", "kwargs"}
        assert own <= set(described)
        assert len(described) == len(set(described))

    def test_what_comes_from_other_tasks_is_a_template_field(self, cls):
        """All of the domain's arguments are, but for limits and callbacks, which are the Dag author's."""
        own = set(inspect.signature(cls.__init__).parameters) - {"self", "kwargs"}
        assert own - set(cls.template_fields) - set(cls.callback_arguments) <= {
            "annotations",
            "min_images_per_category",
            "timeout",
        }
        assert set(cls.template_fields) <= own | {"osai_conn_id"}

    def test_its_docstring_says_what_is_documented_and_what_assumed(self, cls):
        """A guess is never presented as a fact."""
        assert "docs.onestepai.com" in cls.__doc__
        assert "assumed" in cls.__doc__

    def test_the_reference_has_it(self, cls):
        """A user finds it, with what it returns."""
        assert f"| `{cls.__name__}` |" in (ROOT / "docs/reference/operators.md").read_text()


@pytest.mark.parametrize("cls", [OsaiOperator, OsaiJobOperator, OsaiJobSensor], ids=lambda cls: cls.__name__)
def test_the_bases_only_assign_too(cls):
    """The rule is for all."""
    assert_only_assigns(cls)


def assert_only_assigns(cls: type) -> None:
    """Check that ``__init__`` calls its base, assigns, and adds assets to inlets and outlets; nothing else."""
    tree = ast.parse(inspect.cleandoc("\n" + inspect.getsource(cls.__init__)))
    for statement in tree.body[0].body:
        is_super = isinstance(statement, ast.Expr) and ast.unparse(statement).startswith("super().__init__(")
        is_assignment = isinstance(statement, (ast.Assign, ast.AnnAssign)) and (
            isinstance(statement.value, (ast.Name, ast.Constant)) or ast.unparse(statement.value) == "{}"
        )
        assert is_super or is_assignment or ast.unparse(statement) == "self._add_assets()", ast.unparse(statement)
