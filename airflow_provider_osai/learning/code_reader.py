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
from urllib.parse import urljoin

from airflow_provider_osai.api.errors import OsaiContractError
from airflow_provider_osai.learning.code_values import (
    MAX_ITEMS,
    Attached,
    CallRecord,
    Class,
    Constant,
    Function,
    Instance,
    JsonText,
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
from airflow_provider_osai.learning.http_calls import METHODS, is_client_name, is_url, state_call
from airflow_provider_osai.learning.secret_text import SecretValues, is_secret_name
from airflow_provider_osai.learning.stated_calls import Variable
from airflow_provider_osai.learning.text_methods import call_text_method, format_percent

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
_NOT_FIELDS: Final = frozenset({"__name__", "status_code", "value"})
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
        self.calls: list[CallRecord] = []
        self.words: dict[str, set[str]] = defaultdict(set)
        self.secrets = SecretValues()
        self._name = name
        self._module = Scope()
        self._frame = _Frame(self._module)
        self._followed: list[ast.AST] = []
        self._functions: dict[ast.AST, tuple[Function, str, int]] = {}
        self._called: set[ast.AST] = set()
        self._levels = 0
        self._budget = MAX_FOLLOWED
        self._cell, self._first_line, self._line = "", 1, 1

    def read(self, tree: ast.Module, cell: str, first_line: int) -> None:
        """Follow the code of a cell.

        :param cell: what the source of a call says of it, such as ``cell 4``.
        """
        self._cell, self._first_line = cell, first_line
        self._run(tree.body)

    def read_uncalled(self) -> None:
        """Follow the functions that nothing has called; first those that no other function calls."""
        names: dict[ast.AST, set[str]] = {
            node: {
                getattr(each.func, "attr", getattr(each.func, "id", "")) for each in ast.walk(node) if _is_call(each)
            }
            for node in self._functions
        }
        used = defaultdict(set)
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
            self._execute(statement)
        self._levels -= 1

    def _execute(self, statement: ast.stmt) -> None:
        match statement:
            case ast.Assign(targets=targets, value=node):
                value = self._evaluate(node)
                for target in targets:
                    self._assign(target, value, node)
            case ast.AnnAssign(target=target, value=ast.expr() as node):
                self._assign(target, self._evaluate(node), node)
            case ast.AnnAssign():
                pass
            case ast.AugAssign(target=target, op=op, value=node):
                before, after = self._evaluate(target), self._evaluate(node)
                self._assign(target, self._operate(op, before, after, target), node)
            case ast.Return(value=ast.expr() as node):
                self._frame.returned.append(self._evaluate(node))
            case ast.For() | ast.AsyncFor():
                self._assign(statement.target, self._item(self._evaluate(statement.iter), statement.target), None)
                self._run([*statement.body, *statement.orelse])
            case ast.With() | ast.AsyncWith():
                for item in statement.items:
                    value = self._evaluate(item.context_expr)
                    if item.optional_vars is not None:
                        self._assign(item.optional_vars, value, item.context_expr)
                self._run(statement.body)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                self._define(statement, None)
            case ast.ClassDef():
                self._define_class(statement)
            case ast.Import(names=names):
                for alias in names:
                    name = alias.name if alias.asname else alias.name.partition(".")[0]
                    self._frame.scope.values[alias.asname or name] = Library(name)
            case ast.ImportFrom(module=str() as module, names=names):
                for alias in names:
                    self._frame.scope.values[alias.asname or alias.name] = Library(f"{module}.{alias.name}")
            case ast.Match(subject=subject, cases=cases):
                self._evaluate(subject)
                for case in cases:
                    patterns = [each.value for each in ast.walk(case.pattern) if isinstance(each, ast.MatchValue)]
                    self._note_words(subject, [self._evaluate(each) for each in patterns])
                    self._run(case.body)
            case ast.If() | ast.While() | ast.Try() | ast.TryStar():
                if not isinstance(statement, (ast.Try, ast.TryStar)):
                    self._evaluate(statement.test)
                self._run(statement.body)
                for handler in getattr(statement, "handlers", []):
                    self._run(handler.body)
                self._run([*statement.orelse, *getattr(statement, "finalbody", [])])
            case _:
                for child in ast.iter_child_nodes(statement):
                    if isinstance(child, ast.expr):
                        self._evaluate(child)

    def _define(self, node: ast.FunctionDef | ast.AsyncFunctionDef, owner: Class | None) -> Function:
        function = Function(node, self._frame.scope, owner)
        self._functions.setdefault(node, (function, self._cell, self._first_line))
        if owner is None:
            self._frame.scope.values[node.name] = function
        return function

    def _define_class(self, node: ast.ClassDef) -> None:
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
                            self.secrets.add(f"{constant.name or header}_token", word)

    # Expressions

    def _evaluate(self, node: ast.expr) -> Value:
        if self._levels >= MAX_LEVELS or (self._followed and self._budget <= 0):
            return Variable("value")
        self._levels += 1
        self._budget -= bool(self._followed)
        value = self._value(node)
        self._levels -= 1
        return value

    def _value(self, node: ast.expr) -> Value:
        match node:
            case ast.Constant(value=value):
                return _constant(value)
            case ast.Name(id=name):
                value = self._frame.scope.get(name)
                if value is None:
                    value = Library(_LIBRARIES[name]) if name in _LIBRARIES else Variable.of(name)
                return value
            case ast.JoinedStr(values=parts):
                return add_texts(*map(self._evaluate, parts[:MAX_ITEMS]))
            case ast.FormattedValue(value=inner) | ast.Await(value=inner) | ast.Starred(value=inner):
                value = self._evaluate(inner)
                is_text = as_parts(value) is not None
                return value if is_text or not isinstance(node, ast.FormattedValue) else Variable(_name_of(inner))
            case ast.BinOp(left=left, op=op, right=right):
                return self._operate(op, self._evaluate(left), self._evaluate(right), node)
            case ast.BoolOp(op=op, values=nodes):
                values = [self._evaluate(each) for each in nodes]
                is_or = isinstance(op, ast.Or)
                known = [each for each in values if not isinstance(each, Variable) and each != Constant(None)]
                return known[0] if is_or and known else values[0 if is_or else -1]
            case ast.IfExp(test=test, body=body, orelse=orelse):
                self._evaluate(test)
                first, second = self._evaluate(body), self._evaluate(orelse)
                return second if isinstance(first, Variable) or first == Constant(None) else first
            case ast.Compare(left=left, ops=ops, comparators=comparators):
                self._compare(left, ops, comparators)
            case ast.Dict(keys=keys, values=nodes):
                return self._dict(keys, nodes)
            case ast.List(elts=nodes) | ast.Tuple(elts=nodes) | ast.Set(elts=nodes):
                return self._list(nodes)
            case ast.ListComp(elt=element) | ast.SetComp(elt=element) | ast.GeneratorExp(elt=element):
                return self._comprehend(node.generators, lambda: [self._evaluate(element)])
            case ast.DictComp(key=key, value=value_node):
                return self._comprehend(
                    node.generators, lambda: {spell(self._evaluate(key)): self._evaluate(value_node)}
                )
            case ast.Attribute(value=inner, attr=name):
                return self._attribute(self._evaluate(inner), name)
            case ast.Subscript(value=inner, slice=key_node):
                return self._subscript(self._evaluate(inner), key_node)
            case ast.NamedExpr(target=target, value=inner):
                value = self._evaluate(inner)
                self._assign(target, value, inner)
                return value
            case ast.Call():
                return self._call(node)
            case ast.Lambda(args=arguments, body=body):
                values = {each.arg: Variable.of(each.arg) for each in _parameters(arguments)}
                return self._within(Scope(self._frame.scope, values), lambda: self._evaluate(body))
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
                return _constant(-number)
            case _:
                for child in ast.iter_child_nodes(node):
                    if isinstance(child, ast.expr):
                        self._evaluate(child)
        return Variable(_name_of(node))

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

    def _dict(self, keys: list[ast.expr | None], nodes: list[ast.expr]) -> dict[Any, Value]:
        content: dict[Any, Value] = {}
        for key_node, node in list(zip(keys, nodes, strict=True))[:MAX_ITEMS]:
            value = self._evaluate(node)
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
        for node in nodes:
            value = self._evaluate(node)
            if len(items) < MAX_ITEMS:
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

    def _compare(self, left: ast.expr, ops: list[ast.cmpop], comparators: list[ast.expr]) -> None:
        nodes = [left, *comparators]
        values = [self._evaluate(each) for each in nodes]
        for index, op in enumerate(ops):
            if isinstance(op, (ast.Eq, ast.NotEq, ast.In, ast.NotIn)):
                subject, word = index, index + 1
                if isinstance(nodes[subject], ast.Constant):
                    subject, word = word, subject
                if isinstance(values[subject], Read):
                    values[subject].note()
                self._note_words(nodes[subject], [values[word]])

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
        value = self._evaluate(node) if isinstance(node, (ast.Name, ast.Attribute)) else None
        return value.field_name if isinstance(value, Read) and value.path else _name_of(node)

    # Calls

    def _call(self, node: ast.Call) -> Value:
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
        match value:
            case Library(name=name):
                return self._call_library(name, args, kwargs)
            case Function():
                return self._follow(value, args, kwargs)
            case Attached(function=function, instance=instance):
                return self._follow(function, [instance, *args], kwargs)
            case Class():
                return self._instantiate(value, args, kwargs, is_known=True)
            case Variable(name=name) if name in _SAME and args:
                return args[0]
            case Variable(name="next") if args:
                return args[0].each() if isinstance(args[0], Read) else None
            case Variable(name="enumerate") if args:
                item = args[0].each() if isinstance(args[0], Read) else Variable("value")
                return [[Variable("index"), item]]
            case Variable(name="dict"):
                return {**(args[0] if args and isinstance(args[0], dict) else {}), **kwargs}
            case Variable(name="super") if not args and self._frame.cls is not None:
                first = next(iter(self._frame.scope.values.values()), None)
                if isinstance(first, Instance) and self._frame.cls.bases:
                    return Instance(self._frame.cls.bases[0], first.attributes, first.session)
                return first.session if isinstance(first, Instance) else None
        return None

    def _call_library(self, name: str, args: list[Value], kwargs: dict[str, Value]) -> Value:
        library, _, function = name.rpartition(".")
        if name in _SESSIONS:
            session = Session(kwargs.get("base_url", args[0] if library == "aiohttp" and args else None))
            for key, value in kwargs.items():
                self._set_session(session, key, value)
            return session
        if library in ("requests", "requests.api", "httpx"):
            return self._send(function, args, kwargs, None)
        if name == "json.dumps" and args:
            return JsonText(args[0])
        if name == "json.loads" and args:
            return args[0].value if isinstance(args[0], JsonText) else args[0] if isinstance(args[0], Read) else None
        if name in ("os.getenv", "os.environ.get", "os.environ.setdefault") and args:
            variable = spell(args[0]).strip("{}")
            default = args[1] if len(args) > 1 else None
            return Variable.of(variable) if default in (None, Constant(None)) else self._remember(variable, default)
        if name == "urllib.parse.urljoin" and len(args) > 1:
            return _join_url(args[0], args[1])
        if name in ("posixpath.join", "os.path.join"):
            return _join("/", args)
        return args[0] if function in ("quote", "quote_plus", "tqdm") and args else None

    def _call_method(self, node: ast.Attribute, receiver: Value, args: list[Value], kwargs: dict[str, Value]) -> Value:
        """Return the result of a method, or ``None`` if it is not known."""
        name = node.attr
        match receiver:
            case Library():
                return self._call_library(f"{receiver.name}.{name}", args, kwargs)
            case Session():
                return self._send(name, args, kwargs, receiver)
            case SessionHeaders(session=session) if name == "update":
                self._set_session(session, "headers", args[0] if args and isinstance(args[0], dict) else kwargs)
            case Response(call=call):
                if name in ("json", "read", "aread"):
                    return Read(call)
                return receiver if name == "raise_for_status" else None
            case Read() if name == "get" and args:
                key = args[0].value if isinstance(args[0], Constant) else None
                return receiver.at(key) if isinstance(key, str) else Variable("value")
            case Read():
                return receiver if name in _CLEANED or name == "decode" else None
            case dict():
                return self._call_dict(name, receiver, args, kwargs)
            case list():
                if name in ("append", "extend") and args and len(receiver) < MAX_ITEMS:
                    receiver += args[0] if name == "extend" and isinstance(args[0], list) else args[:1]
            case Constant(value=str()) | Text() | Constant(value=int()):
                if name == "join":
                    return _join(spell(receiver), args[0]) if args and isinstance(args[0], list) else None
                return call_text_method(name, receiver, args, kwargs)
            case Instance() | Class():
                value = self._attribute(receiver, name)
                if isinstance(value, Variable) and isinstance(receiver, Instance) and receiver.session is not None:
                    return self._send(name, args, kwargs, receiver.session)
                return self._call_value(value, args, kwargs)
            case _ if name.upper() in METHODS or name == "request":
                url = args[name == "request"] if len(args) > (name == "request") else kwargs.get("url")
                if is_url(url) or (is_client_name(_name_of(node.value)) and isinstance(url, (Constant, Text))):
                    return self._send(name, args, kwargs, None)
        return None

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
            if len(self.calls) >= MAX_CALLS:
                raise OsaiContractError(f"{self._name}: more than {MAX_CALLS} calls")
            call.source = source
            self.calls.append(call)
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
        return Constant(value.encode("utf-8", "replace").decode().replace("\0", "?"))
    return Constant(value) if value is None or isinstance(value, (bool, int, float)) else Variable("value")


def _is_call(node: ast.AST) -> bool:
    return isinstance(node, ast.Call)


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


def _join(separator: str, values: list[Value]) -> Value:
    texts: list[Value] = []
    for value in values[:MAX_ITEMS]:
        texts += [Constant(separator), value] if texts else [value]
    return add_texts(*texts)


def _join_url(base: Value, relative: Value) -> Value:
    """Return what ``urljoin`` returns, as far as the parts are known."""
    if isinstance(base, Constant) and isinstance(relative, Constant):
        try:
            return Constant(urljoin(str(base.value), str(relative.value)))
        except ValueError:  # such as an invalid IPv6 address
            return Variable("url")
    text = spell(relative)
    if "://" in text[:20] or not isinstance(base, (Constant, Text)):
        return relative if "://" in text[:20] else add_texts(base, Constant("/"), relative)
    parts = as_parts(base) or ()
    last = parts[-1] if parts else None
    if isinstance(last, Constant):  # replace what follows the last slash
        start = str(last.value) if len(parts) > 1 else urljoin(str(last.value), "/" if text.startswith("/") else ".")
        head = start if len(parts) == 1 else start[: start.rfind("/") + 1]
        return add_texts(*parts[:-1], Constant(head.removesuffix("/") if text.startswith("/") else head), relative)
    return add_texts(base, Constant("/"), relative)
