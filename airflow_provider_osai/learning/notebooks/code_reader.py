"""Follow source code in order, without running it, and collect the HTTP calls that it makes.

Both branches of a condition are followed, and loops once. A call of a function or method of the code is followed into
it; functions that are never called are followed at the end, with their parameters as variables.
"""

from __future__ import annotations

import ast
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from airflow_provider_osai.api.errors import OsaiContractError
from airflow_provider_osai.api.text import storable
from airflow_provider_osai.learning.notebooks.code_values import (
    MAX_ITEMS,
    Attached,
    CallRecord,
    Class,
    Constant,
    Function,
    Instance,
    Library,
    Read,
    Response,
    Scope,
    Session,
    SessionHeaders,
    Text,
    Value,
    add_texts,
    as_parts,
    constants_in,
    named,
    spell,
)
from airflow_provider_osai.learning.notebooks.http_calls import METHODS, is_client_name, is_url, state_call
from airflow_provider_osai.learning.notebooks.secret_text import SecretValues, is_secret_name
from airflow_provider_osai.learning.notebooks.stated_calls import Variable
from airflow_provider_osai.learning.notebooks.text_methods import (
    call_library_function,
    call_text_method,
    format_percent,
)

__all__ = ["MAX_CALLS", "CodeReader"]

MAX_CALLS: Final = 5_000
"""Maximum number of calls in one notebook."""
MAX_LEVELS: Final = 60
"""Maximum depth of statements and expressions, with those of the functions that are followed."""
MAX_FOLLOWED: Final = 200_000
"""Maximum number of expressions that are evaluated in functions that are called."""
MAX_WORDS: Final = 500
"""Maximum number of names whose words are collected, and of words of each."""
MAX_WORD: Final = 60
"""Maximum characters of a word."""
MAX_NUMBER: Final = 2**63

_SESSIONS: Final = frozenset(
    f"{library}.{name}"
    for library in ("requests", "requests.sessions", "httpx", "aiohttp")
    for name in ("Session", "session", "Client", "AsyncClient", "ClientSession")
)
_LIBRARIES: Final = {
    **{name: name for name in ("requests", "httpx", "aiohttp", "json", "os", "posixpath", "urllib")},
    "urljoin": "urllib.parse.urljoin",
}
"""What is known by its name also in a cell that does not import it."""
_SAME: Final = frozenset({"str", "int", "float", "list", "tuple", "set", "sorted", "reversed", "iter", "tqdm", "quote"})
"""Functions whose result is as good as their first argument."""
_NUMBERED: Final = ("state", "status", "stage", "phase")
"""Names with one of these may be compared with a number: an enum."""
_NOT_FIELDS: Final = frozenset({"status_code", "value"})
_CLEANED: Final = frozenset({"lower", "upper", "strip", "casefold", "title", "capitalize"})


@dataclass(slots=True)
class _Frame:
    """What is followed at present: a module, or a function with what it returned."""

    scope: Scope
    cls: Class | None = None
    returned: list[Value] = field(default_factory=list)


class CodeReader:
    """Follows the cells of one notebook, in order.

    :param name: the notebook's name, for the source of each call.
    """

    def __init__(self, name: str) -> None:
        self.words: dict[str, set[str]] = defaultdict(set)
        self.secrets = SecretValues()
        self._seen: dict[str, CallRecord] = {}
        self._name = name
        self._module = Scope()
        self._frame = _Frame(self._module)
        self._followed: list[ast.AST] = []
        self._functions: dict[ast.AST, tuple[Function, str, int]] = {}
        self._called: set[ast.AST] = set()
        self._levels = 0
        self._budget = MAX_FOLLOWED
        self._cell, self._first_line, self._line = "", 1, 1

    @property
    def calls(self) -> list[CallRecord]:
        """The calls in order; equal ones of the same line once."""
        return list(self._seen.values())

    def read(self, tree: ast.Module, cell: str, first_line: int) -> None:
        """Follow the code of a cell.

        :param cell: what the source of a call says of it, such as ``cell 4``.
        """
        self._cell, self._first_line = cell, first_line
        self._run(tree.body)

    def read_uncalled(self) -> None:
        """Follow the functions that nothing has called; first those that no other function calls."""
        names = {node: _called_names(node) for node in self._functions}
        used: dict[str, set[ast.AST]] = defaultdict(set)
        for node, called in names.items():
            for name in called:
                used[name].add(node)
        uncalled = [entry for entry in self._functions.values() if not used[entry[0].node.name] - {entry[0].node}]
        for function, cell, first_line in [*uncalled, *self._functions.values()]:
            if function.node not in self._called:
                self._cell, self._first_line = cell, first_line
                self._read_function(function)

    def _read_function(self, function: Function) -> None:
        self._line = function.node.lineno
        self._called.add(function.node)
        values: dict[str, Value] = {}
        if function.owner is not None and not function.has_decorator("staticmethod"):
            owner: Value = function.owner
            if not function.has_decorator("classmethod"):
                owner = function.owner.instance or self._instantiate(function.owner, [], {}, is_known=False)
            values = {"self": owner}
        scope = self._bind(function, list(values.values()), {}, is_known=False)
        outer = self._frame
        self._frame = _Frame(scope, function.owner)
        try:
            self._run(function.node.body)
            for value in self._frame.returned:
                if isinstance(value, Read) and value.path:
                    value.note()
        finally:
            self._frame = outer

    # Statements

    def _run(self, statements: Iterable[ast.stmt]) -> None:
        if self._levels >= MAX_LEVELS:
            return
        self._levels += 1
        for statement in statements:
            if not self._followed:
                self._line = statement.lineno
            self._visit(statement)
        self._levels -= 1

    def _visit_assign(self, node: ast.Assign) -> None:
        value = self._evaluate(node.value)
        for target in node.targets:
            self._assign(target, value, node.value)

    def _visit_ann_assign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self._assign(node.target, self._evaluate(node.value), node.value)

    def _visit_aug_assign(self, node: ast.AugAssign) -> None:
        before, after = self._evaluate(node.target), self._evaluate(node.value)
        self._assign(node.target, self._operate(node.op, before, after, node.target), node.value)

    def _visit_return(self, node: ast.Return) -> None:
        if node.value is not None:
            self._frame.returned.append(self._evaluate(node.value))

    def _visit_for(self, node: ast.For | ast.AsyncFor) -> None:
        self._assign(node.target, self._item(self._evaluate(node.iter), node.target), None)
        self._run([*node.body, *node.orelse])

    def _visit_if(self, node: ast.If | ast.While) -> None:
        self._evaluate(node.test)
        self._run([*node.body, *node.orelse])

    def _visit_try(self, node: ast.Try | ast.TryStar) -> None:
        self._run(node.body)
        for handler in node.handlers:
            self._run(handler.body)
        self._run([*node.orelse, *node.finalbody])

    def _visit_with(self, node: ast.With | ast.AsyncWith) -> None:
        for item in node.items:
            value = self._evaluate(item.context_expr)
            if item.optional_vars is not None:
                self._assign(item.optional_vars, value, item.context_expr)
        self._run(node.body)

    def _visit_match(self, node: ast.Match) -> None:
        self._evaluate(node.subject)
        for case in node.cases:
            patterns = [each.value for each in ast.walk(case.pattern) if isinstance(each, ast.MatchValue)]
            self._note_words(node.subject, [self._evaluate(each) for each in patterns])
            self._run(case.body)

    def _visit_import(self, node: ast.Import) -> None:
        for alias in node.names:
            name = alias.name if alias.asname else alias.name.partition(".")[0]
            self._frame.scope.values[alias.asname or name] = Library(name)

    def _visit_import_from(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            name = f"{node.module or ''}.{alias.name}"
            self._frame.scope.values[alias.asname or alias.name] = Library(_PYTHON_2.get(name, name))

    def _visit_function_def(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._frame.scope.values[node.name] = self._define(node, None)

    def _visit_other(self, node: ast.AST) -> Value:
        """Evaluate the expressions in any other statement or expression."""
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self._evaluate(child)
        return Variable(_name_of(node))

    def _visit(self, node: ast.AST) -> Value:
        return _VISITS.get(type(node), CodeReader._visit_other)(self, node)

    def _define(self, node: ast.FunctionDef | ast.AsyncFunctionDef, owner: Class | None) -> Function:
        function = Function(node, self._frame.scope, owner)
        self._functions.setdefault(node, (function, self._cell, self._first_line))
        return function

    def _visit_class_def(self, node: ast.ClassDef) -> None:
        bases = [self._evaluate(base) for base in node.bases[:MAX_ITEMS]]
        cls = Class(node.name, bases=tuple(base for base in bases if isinstance(base, Class)))
        libraries = {base.name for base in bases if isinstance(base, Library)}
        cls.is_session = bool(libraries & _SESSIONS) or any(base.is_session for base in cls.bases)
        self._frame.scope.values[node.name] = cls
        for statement in node.body:
            match statement:
                case ast.FunctionDef() | ast.AsyncFunctionDef():
                    cls.attributes[statement.name] = self._define(statement, cls)
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    cls.attributes[name] = self._remember(name, self._evaluate(value))
                case ast.AnnAssign(target=ast.Name(id=name), value=default):
                    cls.fields = (*cls.fields, name)[:MAX_ITEMS]
                    if default is not None:
                        cls.attributes[name] = self._remember(name, self._evaluate(default))

    def _assign(self, target: ast.expr, value: Value, node: ast.expr | None) -> None:
        """Assign a value; *node* is its expression, if it is one."""
        match target:
            case ast.Name(id=name):
                is_renamed = isinstance(value, Variable) and not isinstance(node, (ast.Name, ast.Attribute))
                self._frame.scope.values[name] = Variable.of(name) if is_renamed else self._remember(name, value)
            case ast.Attribute(value=owner_node, attr=name):
                owner = self._evaluate(owner_node)
                value = self._remember(name, value)
                session = owner.session if isinstance(owner, Instance) and owner.session else owner
                if isinstance(session, Session):
                    self._set_session(session, name, value)
                if isinstance(owner, Instance):
                    owner.attributes[name] = Variable.of(name) if isinstance(value, Variable) else value
            case ast.Subscript(value=owner_node, slice=key_node):
                owner, key = self._evaluate(owner_node), self._key(key_node)
                name = key if isinstance(key, str) else "value"
                value = self._remember(name, value)
                if isinstance(owner, dict) and key is not None and len(owner) < MAX_ITEMS:
                    owner[key] = value
                elif isinstance(owner, SessionHeaders):
                    self._set_session(owner.session, "headers", {name: value})
            case ast.Tuple(elts=targets) | ast.List(elts=targets):
                values = value if isinstance(value, list) and len(value) == len(targets) else None
                for index, each in enumerate(targets):
                    item = values[index] if values else Variable("value")
                    if isinstance(value, Read) and not isinstance(each, ast.Starred):
                        item = value.at(index)
                    self._assign(each, item, None)
            case ast.Starred(value=inner):
                self._assign(inner, Variable("value"), None)

    def _remember(self, name: str, value: Value) -> Value:
        """Return a value with the name that it is assigned to, and remember it if it is a secret."""
        value = named(value, name)
        if isinstance(value, Read) and value.path and value.name == name:
            value.note()
        if is_secret_name(name):
            self._add_secrets(name, value)
        return value

    def _add_secrets(self, name: str, value: Value) -> None:
        for constant in constants_in(value):
            if constant.value is not None and not isinstance(constant.value, bool):
                self.secrets.add(name, constant.value)

    def _set_session(self, session: Session, name: str, value: Value) -> None:
        if name == "headers" and isinstance(value, dict):
            session.headers.update(dict.fromkeys(map(str, value)))
            self._add_header_secrets(value)
        elif name == "base_url":
            session.base = value
        elif name in ("auth", "cookies"):
            self._add_secrets("password", value)

    def _add_header_secrets(self, headers: Mapping[Any, Value]) -> None:
        for header, value in headers.items():
            if str(header).lower() not in _PLAIN_HEADERS:
                for constant in constants_in(value):
                    for word in str(constant.value).split():
                        if word.lower() not in _SCHEMES:
                            self.secrets.add(constant.name or str(header), word, is_certain=True)

    # Expressions

    def _evaluate(self, node: ast.expr) -> Value:
        if self._levels >= MAX_LEVELS or (self._followed and self._budget <= 0):
            return Variable("value")
        self._levels += 1
        self._budget -= bool(self._followed)
        value: Value = self._visit(node)
        self._levels -= 1
        return value

    def _visit_constant(self, node: ast.Constant) -> Value:
        return _constant(node.value)

    def _visit_name(self, node: ast.Name) -> Value:
        value = self._frame.scope.get(node.id)
        if value is None:
            value = Library(_LIBRARIES[node.id]) if node.id in _LIBRARIES else Variable.of(node.id)
        return value

    def _visit_joined_str(self, node: ast.JoinedStr) -> Value:
        return add_texts(*map(self._evaluate, node.values[:MAX_ITEMS]))

    def _visit_formatted_value(self, node: ast.FormattedValue) -> Value:
        value = self._evaluate(node.value)
        return Variable(_name_of(node.value)) if as_parts(value) is None else value

    def _visit_await(self, node: ast.Await | ast.Starred) -> Value:
        return self._evaluate(node.value)

    def _visit_bin_op(self, node: ast.BinOp) -> Value:
        return self._operate(node.op, self._evaluate(node.left), self._evaluate(node.right), node)

    def _visit_bool_op(self, node: ast.BoolOp) -> Value:
        values = [self._evaluate(each) for each in node.values]
        if isinstance(node.op, ast.And):
            return values[-1]
        return next((each for each in values if _is_known(each)), values[0])

    def _visit_if_exp(self, node: ast.IfExp) -> Value:
        self._evaluate(node.test)
        first, second = self._evaluate(node.body), self._evaluate(node.orelse)
        return first if _is_known(first) else second

    def _visit_list(self, node: ast.List | ast.Tuple | ast.Set) -> Value:
        return self._list(node.elts)

    def _visit_list_comp(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp) -> Value:
        def item() -> list[Value]:
            value = self._evaluate(node.elt)
            if isinstance(value, Read) and value.path:
                value.note()
            return [value]

        return self._comprehend(node.generators, item)

    def _visit_dict_comp(self, node: ast.DictComp) -> Value:
        return self._comprehend(node.generators, lambda: {spell(self._evaluate(node.key)): self._evaluate(node.value)})

    def _visit_attribute(self, node: ast.Attribute) -> Value:
        return self._attribute(self._evaluate(node.value), node.attr)

    def _visit_subscript(self, node: ast.Subscript) -> Value:
        return self._subscript(self._evaluate(node.value), node.slice)

    def _visit_named_expr(self, node: ast.NamedExpr) -> Value:
        self._assign(node.target, self._evaluate(node.value), node.value)
        return self._evaluate(node.target)

    def _visit_lambda(self, node: ast.Lambda) -> Value:
        values: dict[str, Value] = {each.arg: Variable.of(each.arg) for each in _parameters(node.args)}
        return self._within(Scope(self._frame.scope, values), lambda: self._evaluate(node.body))

    def _visit_unary_op(self, node: ast.UnaryOp) -> Value:
        value = self._evaluate(node.operand)
        if isinstance(node.op, ast.USub) and isinstance(value, Constant) and isinstance(value.value, (int, float)):
            return Constant(-value.value)
        return Variable(_name_of(node.operand))

    def _operate(self, op: ast.operator, left: Value, right: Value, node: ast.expr) -> Value:
        if isinstance(op, ast.Mod) and isinstance(left, (Constant, Text)):
            return format_percent(left, right)
        if isinstance(op, ast.BitOr) and isinstance(left, dict) and isinstance(right, dict):
            return dict([*left.items(), *right.items()][:MAX_ITEMS])
        if isinstance(op, ast.Add):
            if isinstance(left, list) and isinstance(right, list):
                return [*left, *right][:MAX_ITEMS]
            if not any(isinstance(each, Constant) and not isinstance(each.value, str) for each in (left, right)):
                return add_texts(left, right)
        return Variable(_name_of(node))

    def _visit_dict(self, node: ast.Dict) -> Value:
        content: dict[Any, Value] = {}
        for key_node, value_node in list(zip(node.keys, node.values, strict=True))[:MAX_ITEMS]:
            value = self._evaluate(value_node)
            if key_node is None:
                content.update(value if isinstance(value, dict) else {})
                continue
            key = self._key(key_node)
            if key is None:
                key = spell(self._evaluate(key_node), _name_of(key_node))
            if is_secret_name(str(key)):
                self._add_secrets(str(key), value)
            content[key] = value
        return dict(list(content.items())[:MAX_ITEMS])

    def _list(self, nodes: list[ast.expr]) -> list[Value]:
        items: list[Value] = []
        for node in nodes[:MAX_ITEMS]:
            value = self._evaluate(node)
            items += value if isinstance(node, ast.Starred) and isinstance(value, list) else [value]
        return items[:MAX_ITEMS]

    def _comprehend(self, generators: list[ast.comprehension], evaluate: Callable[[], Value]) -> Value:
        def run() -> Value:
            for each in generators:
                self._assign(each.target, self._item(self._evaluate(each.iter), each.target), None)
                for test in each.ifs:
                    self._evaluate(test)
            return evaluate()

        return self._within(Scope(self._frame.scope), run)

    def _within(self, scope: Scope, run: Callable[[], Value]) -> Value:
        outer = self._frame.scope
        self._frame.scope = scope
        try:
            return run()
        finally:
            self._frame.scope = outer

    def _key(self, node: ast.expr) -> str | int | None:
        """Return a constant key of a dict or index of a list."""
        value = self._evaluate(node)
        key = value.value if isinstance(value, Constant) else None
        return key if isinstance(key, (str, int)) else None

    def _item(self, value: Value, target: ast.expr) -> Value:
        """Return what a loop assigns to its target."""
        if isinstance(value, Read):
            return value.each()
        if isinstance(value, list) and len(value) == 1:
            return value[0]
        return Variable.of(target.id if isinstance(target, ast.Name) else "value")

    def _attribute(self, value: Value, name: str) -> Value:
        result: Value = None
        if isinstance(value, Library):
            result = Library(f"{value.name}.{name}"[:MAX_ITEMS])
        elif isinstance(value, Instance):
            result = value.attributes.get(name)
            if result is None:
                result = value.cls.get(name)
                if isinstance(result, Function):
                    attached = Attached(result, value)
                    is_property = result.has_decorator("property", "cached_property")
                    result = self._follow(attached.function, [value], {}) if is_property else attached
            if result is None and value.session is not None and name == "headers":
                result = SessionHeaders(value.session)
        elif isinstance(value, Class):
            result = value.get(name)
            if isinstance(result, Function) and result.has_decorator("classmethod"):
                result = Attached(result, value)
        elif isinstance(value, Session) and name == "headers":
            result = SessionHeaders(value)
        elif isinstance(value, Response) and name in ("text", "content"):
            result = Read(value.call)
        elif isinstance(value, Constant) and name == "value":  # of an enum
            result = value
        return Variable.of(name) if result is None else result

    def _subscript(self, value: Value, key_node: ast.expr) -> Value:
        if isinstance(key_node, ast.Slice):
            return value
        key = self._key(key_node)
        if isinstance(value, Read) and key is not None and not isinstance(key, bool):
            return value.at(key)
        if isinstance(value, dict) and key in value:
            return value[key]
        if isinstance(value, list) and isinstance(key, int) and -len(value) <= key < len(value):
            return value[key]
        return Variable.of(key if isinstance(key, str) else _name_of(key_node))

    # Comparisons

    def _visit_compare(self, node: ast.Compare) -> Value:
        nodes = [node.left, *node.comparators]
        values = [self._evaluate(each) for each in nodes]
        for index, op in enumerate(node.ops):
            if isinstance(op, (ast.Eq, ast.NotEq, ast.In, ast.NotIn)):
                subject, word = index, index + 1
                if isinstance(nodes[subject], ast.Constant):
                    subject, word = word, subject
                if isinstance(values[subject], Read):
                    values[subject].note()
                self._note_words(nodes[subject], [values[word]])
        return Variable(_name_of(node.left))

    def _note_words(self, subject: ast.expr, values: list[Value]) -> None:
        name = self._field_of(subject)
        if name in _NOT_FIELDS or is_secret_name(name) or (name not in self.words and len(self.words) >= MAX_WORDS):
            return
        for value in values:
            for item in value if isinstance(value, list) else value.keys() if isinstance(value, dict) else [value]:
                word = item.value if isinstance(item, Constant) else item
                is_number = isinstance(word, int) and not isinstance(word, bool)
                if isinstance(word, str) or (is_number and any(each in name.lower() for each in _NUMBERED)):
                    text = str(word)
                    if 0 < len(text) <= MAX_WORD and text.isprintable() and len(self.words[name]) < MAX_WORDS:
                        self.words[name].add(text)

    def _field_of(self, node: ast.expr) -> str:
        """Return the name of what is compared: of the field, or else of the variable."""
        for _ in range(MAX_LEVELS):
            match node:
                case ast.Call(func=ast.Attribute(value=inner, attr=name)) if name in _CLEANED:
                    node = inner
                case ast.Call(func=ast.Name(id="str" | "int"), args=[inner]):
                    node = inner
                case _:
                    break
        if isinstance(node, ast.Name) and node.id.startswith("__"):  # __name__ is Python's
            return "value"
        value = self._evaluate(node) if isinstance(node, (ast.Name, ast.Attribute)) else None
        return value.field_name if isinstance(value, Read) and value.path else _name_of(node)

    # Calls

    def _visit_call(self, node: ast.Call) -> Value:
        function = node.func
        receiver = self._evaluate(function.value) if isinstance(function, ast.Attribute) else None
        args: list[Value] = self._list(node.args)
        kwargs: dict[str, Value] = {}
        for keyword in node.keywords[:MAX_ITEMS]:
            value = self._evaluate(keyword.value)
            if keyword.arg is not None:
                if is_secret_name(keyword.arg):
                    self._add_secrets(keyword.arg, value)
                kwargs[keyword.arg] = value
            elif isinstance(value, dict):
                kwargs |= {key: each for key, each in list(value.items())[:MAX_ITEMS] if isinstance(key, str)}
        if isinstance(function, ast.Attribute):
            result = self._call_method(function, receiver, args, kwargs)
        else:
            result = self._call_value(self._evaluate(function), args, kwargs)
        if result is not None:
            return result
        for value in (*args, *kwargs.values()):  # such as print(job["id"])
            if isinstance(value, Read) and value.path:
                value.note()
        return Variable(_name_of(function))

    def _call_value(self, value: Value, args: list[Value], kwargs: dict[str, Value]) -> Value:
        """Return the result of a call, or ``None`` if it is not known."""
        result: Value = None
        match value:
            case Library(name=name):
                result = self._call_library(name, args, kwargs)
            case Function():
                result = self._follow(value, args, kwargs)
            case Attached(function=function, instance=instance):
                result = self._follow(function, [instance, *args], kwargs)
            case Class():
                result = self._instantiate(value, args, kwargs, is_known=True)
            case Variable(name="super") if not args:
                result = self._super()
            case Variable(name="dict"):
                result = {**(args[0] if args and isinstance(args[0], dict) else {}), **kwargs}
            case Variable(name=name) if args:
                result = _call_builtin(name, args[0])
        return result

    def _super(self) -> Value:
        """Return the object of the current method, as one of its base class."""
        first = next(iter(self._frame.scope.values.values()), None)
        if self._frame.cls is None or not isinstance(first, Instance):
            return None
        return Instance(self._frame.cls.bases[0], first.attributes, first.session) if self._frame.cls.bases else None

    def _call_library(self, name: str, args: list[Value], kwargs: dict[str, Value]) -> Value:
        library, _, function = name.rpartition(".")
        if name in _SESSIONS:
            session = Session(kwargs.get("base_url", args[0] if library == "aiohttp" and args else None))
            for key, value in kwargs.items():
                self._set_session(session, key, value)
            return session
        if library in ("requests", "requests.api", "httpx"):
            return self._send(function, args, kwargs, None)
        if name in ("os.getenv", "os.environ.get", "os.environ.setdefault") and args:
            variable = spell(args[0]).strip("{}")
            default = args[1] if len(args) > 1 else Constant(None)
            return self._remember(variable, default) if _is_known(default) else Variable.of(variable)
        return call_library_function(name, args)

    def _call_method(self, node: ast.Attribute, receiver: Value, args: list[Value], kwargs: dict[str, Value]) -> Value:
        """Return the result of a method, or ``None`` if it is not known."""
        name = node.attr
        result: Value = None
        match receiver:
            case Library():
                result = self._call_library(f"{receiver.name}.{name}", args, kwargs)
            case Session():
                result = self._send(name, args, kwargs, receiver)
            case SessionHeaders(session=session):
                if name == "update":
                    self._set_session(session, "headers", args[0] if args else kwargs)
            case Instance() | Class():
                result = self._call_attribute(receiver, name, args, kwargs)
            case Response() | Read():
                result = _call_response_method(name, receiver, args)
            case dict():
                result = self._call_dict(name, receiver, args, kwargs)
            case list() | Constant() | Text():
                result = call_text_method(name, receiver, args, kwargs)
            case _ if name.upper() in METHODS or name == "request":
                url = args[name == "request"] if len(args) > (name == "request") else kwargs.get("url")
                if is_url(url) or (is_client_name(_name_of(node.value)) and isinstance(url, (Constant, Text))):
                    result = self._send(name, args, kwargs, None)
        return result

    def _call_attribute(
        self, receiver: Instance | Class, name: str, args: list[Value], kwargs: dict[str, Value]
    ) -> Value:
        value = self._attribute(receiver, name)
        if isinstance(value, Variable) and isinstance(receiver, Instance) and receiver.session is not None:
            return self._send(name, args, kwargs, receiver.session)
        return self._call_value(value, args, kwargs)

    def _call_dict(self, name: str, content: dict[Any, Value], args: list[Value], kwargs: dict[str, Value]) -> Value:
        key = args[0].value if args and isinstance(args[0], Constant) else None
        if name in ("get", "pop") and key in content:
            return content[key]
        if name == "setdefault" and key is not None and len(args) > 1 and len(content) < MAX_ITEMS:
            return content.setdefault(key, args[1])
        if name == "update":
            new = {**(args[0] if args and isinstance(args[0], dict) else {}), **kwargs}
            for each, value in new.items():
                if len(content) < MAX_ITEMS:
                    content[each] = self._remember(str(each), value)
        if name == "copy":
            return dict(content)
        return list(content) if name == "keys" else list(content.values()) if name == "values" else None

    def _send(self, verb: str, args: list[Value], kwargs: dict[str, Value], session: Session | None) -> Value:
        """Record a call of an HTTP library, and return its response."""
        headers = kwargs.get("headers")
        if isinstance(headers, dict):
            self._add_header_secrets(headers)
        for name in ("auth", "cookies"):
            self._add_secrets("password", kwargs.get(name))
        source = f"{self._name} {self._cell}line {self._first_line + self._line - 1}"
        call = state_call(verb, args, kwargs, session)
        if call is None:
            return None
        if call.address.is_stated and call.method in METHODS:
            call.source = source
            call = self._seen.setdefault(repr(call), call)
            if len(self._seen) > MAX_CALLS:
                raise OsaiContractError(f"{self._name}: more than {MAX_CALLS} calls")
        return Response(call)

    def _instantiate(self, cls: Class, args: list[Value], kwargs: dict[str, Value], *, is_known: bool) -> Instance:
        instance = Instance(cls, session=Session() if cls.is_session else None)
        cls.instance = instance
        constructor = cls.get("__init__")
        if isinstance(constructor, Function):
            self._follow(constructor, [instance, *args], kwargs, is_known=is_known)
        else:
            given = {**dict(zip(cls.fields, args, strict=False)), **kwargs}
            for name in cls.fields:
                default = None if is_known else Variable.of(name)
                value = given.get(name, cls.get(name) or default)
                if value is not None:
                    instance.attributes[name] = self._remember(name, value)
        return instance

    def _follow(
        self, function: Function, args: list[Value], kwargs: dict[str, Value], *, is_known: bool = True
    ) -> Value:
        """Follow a call of a function, and return what it returns; ``None`` if that is not known."""
        node = function.node
        if node in self._followed or len(self._followed) >= 8 or self._budget <= 0:
            return None
        if function.owner is not None and function.has_decorator("staticmethod"):
            args = args[1:] if args and isinstance(args[0], Instance) else args
        self._called.add(node)
        self._followed.append(node)
        outer = self._frame
        self._frame = _Frame(self._bind(function, args, kwargs, is_known=is_known), function.owner)
        try:
            self._run(node.body)
            returned = self._frame.returned
        finally:
            self._frame = outer
            self._followed.pop()
        known = [value for value in returned if not isinstance(value, (Constant, Variable))]
        return known[0] if known else returned[0] if returned else None

    def _bind(self, function: Function, args: list[Value], kwargs: dict[str, Value], *, is_known: bool) -> Scope:
        """Return the scope of a function with its parameters."""
        arguments = function.node.args
        positional = [each.arg for each in (*arguments.posonlyargs, *arguments.args)]
        scope = Scope(function.scope, dict.fromkeys(positional))
        names = [each.arg for each in _parameters(arguments)]
        values: dict[str, Value] = dict(zip(positional, args, strict=False))
        values |= {name: value for name, value in kwargs.items() if name in names}
        for name, default in _defaults(arguments):
            value = self._within(function.scope, partial(self._evaluate, default))
            value = self._remember(name, value)
            if name not in values and (is_known or is_url(value)):
                values[name] = value
        scope.values |= {
            name: self._remember(name, values[name]) if name in values else Variable.of(name) for name in names
        }
        if arguments.vararg:
            scope.values[arguments.vararg.arg] = args[len(positional) :]
        if arguments.kwarg:
            scope.values[arguments.kwarg.arg] = {name: each for name, each in kwargs.items() if name not in names}
        return scope


_PYTHON_2: Final = {"urlparse.urljoin": "urllib.parse.urljoin"}
_PLAIN_HEADERS: Final = frozenset(
    {
        *("accept", "accept-encoding", "accept-language", "cache-control", "connection", "content-encoding"),
        *("content-length", "content-type", "origin", "pragma", "referer", "user-agent", "x-requested-with"),
    }
)
"""Headers whose values are no secrets, unless they look like one."""
_SCHEMES: Final = frozenset({"apikey", "basic", "bearer", "digest", "jwt", "key", "none", "token"})


def _constant(value: Any) -> Value:
    if isinstance(value, float) and not math.isfinite(value):
        return Variable("value")
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= MAX_NUMBER:
        return Variable("value")
    if isinstance(value, str):
        return Constant(storable([value])[0])
    return Constant(value) if value is None or isinstance(value, (bool, int, float)) else Variable("value")


def _name_of(node: ast.AST) -> str:
    """Return a name for the value of an expression."""
    for _ in range(MAX_LEVELS):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) if name not in ("get", "json"):
                return Variable.of(name).name
            case ast.Subscript(slice=ast.Constant(value=str() as name)):
                return Variable.of(name).name
            case ast.Call(func=ast.Attribute(attr="get"), args=[ast.Constant(value=str() as name), *_]):
                return Variable.of(name).name
            case ast.Call(func=inner) | ast.Subscript(value=inner) | ast.Attribute(value=inner):
                node = inner
            case ast.BinOp(left=inner) | ast.Await(value=inner):
                node = inner
            case _:
                break
    return "value"


def _called_names(node: ast.AST) -> set[str]:
    """Return the names of the functions and methods that are called in *node*."""
    calls = (each.func for each in ast.walk(node) if isinstance(each, ast.Call))
    return {getattr(function, "attr", getattr(function, "id", "")) for function in calls}


def _parameters(arguments: ast.arguments) -> list[ast.arg]:
    return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]


def _defaults(arguments: ast.arguments) -> Iterator[tuple[str, ast.expr]]:
    positional = [*arguments.posonlyargs, *arguments.args]
    if arguments.defaults:
        for parameter, default in zip(positional[-len(arguments.defaults) :], arguments.defaults, strict=True):
            yield parameter.arg, default
    for parameter, keyword_default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        if keyword_default is not None:
            yield parameter.arg, keyword_default


def _is_known(value: Value) -> bool:
    return not isinstance(value, Variable) and not (isinstance(value, Constant) and value.value is None)


def _call_builtin(name: str, value: Value) -> Value:
    """Return the result of a built-in function, or ``None`` if it is not known."""
    if name in _SAME:
        return value
    item = value.each() if isinstance(value, Read) else value[0] if isinstance(value, list) and value else None
    return [[Variable("index"), item or Variable("value")]] if name == "enumerate" else item if name == "next" else None


def _call_response_method(name: str, receiver: Response | Read, args: list[Value]) -> Value:
    if isinstance(receiver, Response):
        is_read = name in ("json", "read", "aread")
        return Read(receiver.call) if is_read else receiver if name == "raise_for_status" else None
    if name == "get" and args:
        key = args[0].value if isinstance(args[0], Constant) else None
        return receiver.at(key) if isinstance(key, str) else Variable("value")
    return receiver if name in _CLEANED or name == "decode" else None


_VISITS: Final[dict[type[ast.AST], Callable[[CodeReader, Any], Value]]] = {
    ast.AnnAssign: CodeReader._visit_ann_assign,
    ast.Assign: CodeReader._visit_assign,
    ast.AsyncFor: CodeReader._visit_for,
    ast.AsyncFunctionDef: CodeReader._visit_function_def,
    ast.AsyncWith: CodeReader._visit_with,
    ast.Attribute: CodeReader._visit_attribute,
    ast.AugAssign: CodeReader._visit_aug_assign,
    ast.Await: CodeReader._visit_await,
    ast.BinOp: CodeReader._visit_bin_op,
    ast.BoolOp: CodeReader._visit_bool_op,
    ast.Call: CodeReader._visit_call,
    ast.ClassDef: CodeReader._visit_class_def,
    ast.Compare: CodeReader._visit_compare,
    ast.Constant: CodeReader._visit_constant,
    ast.Dict: CodeReader._visit_dict,
    ast.DictComp: CodeReader._visit_dict_comp,
    ast.For: CodeReader._visit_for,
    ast.FormattedValue: CodeReader._visit_formatted_value,
    ast.FunctionDef: CodeReader._visit_function_def,
    ast.GeneratorExp: CodeReader._visit_list_comp,
    ast.If: CodeReader._visit_if,
    ast.IfExp: CodeReader._visit_if_exp,
    ast.Import: CodeReader._visit_import,
    ast.ImportFrom: CodeReader._visit_import_from,
    ast.JoinedStr: CodeReader._visit_joined_str,
    ast.Lambda: CodeReader._visit_lambda,
    ast.List: CodeReader._visit_list,
    ast.ListComp: CodeReader._visit_list_comp,
    ast.Match: CodeReader._visit_match,
    ast.Name: CodeReader._visit_name,
    ast.NamedExpr: CodeReader._visit_named_expr,
    ast.Return: CodeReader._visit_return,
    ast.Set: CodeReader._visit_list,
    ast.SetComp: CodeReader._visit_list_comp,
    ast.Starred: CodeReader._visit_await,
    ast.Subscript: CodeReader._visit_subscript,
    ast.Try: CodeReader._visit_try,
    ast.TryStar: CodeReader._visit_try,
    ast.Tuple: CodeReader._visit_list,
    ast.UnaryOp: CodeReader._visit_unary_op,
    ast.While: CodeReader._visit_if,
    ast.With: CodeReader._visit_with,
}
"""How each kind of statement and expression is followed; of any other, only the expressions in it are evaluated."""
