"""Values of pipelines, commands and operands, as Go's text/template computes them; see `evaluate`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field

from modelbuild.records import record
from modelbuild.template.calls import FUNCTION_TYPES, FunctionType
from modelbuild.template.errors import RenderError
from modelbuild.template.functions import OLLAMA_FUNCTIONS
from modelbuild.template.nodes import (
    BoolNode,
    ChainNode,
    CommandNode,
    DotNode,
    FieldNode,
    IdentifierNode,
    NilNode,
    Node,
    NumberNode,
    Operand,
    PipeNode,
    StringNode,
    Template,
    VariableNode,
)
from modelbuild.template.quoting import quote, to_bytes
from modelbuild.template.values import (
    NO_VALUE,
    CallError,
    Interface,
    Map,
    Struct,
    entry,
    is_true,
    type_name,
    unwrap,
)

#: An endless loop ends here: about a second of work.
MAX_STEPS = 1_000_000
#: Characters produced, in the output and on the way: longer prompts fit no context.
MAX_CHARACTERS = 16 << 20
#: Blocks and template calls within each other; each costs a few frames of the interpreter's stack.
MAX_DEPTH = 80


@record(frozen=False)
class Limits:
    """What a rendering may use."""

    steps: int = MAX_STEPS
    characters: int = MAX_CHARACTERS
    depth: int = MAX_DEPTH


@record(frozen=False)
class Run:
    """What all scopes of one rendering share. bare: Go's own functions only, and missing keys have no value."""

    template: Template
    functions: Mapping[str, Callable[..., object]]
    limits: Limits
    bare: bool = False
    output: list[str] = field(default_factory=list)
    depth: int = 0

    def step(self, count: int = 1) -> None:
        """Charge steps."""
        self.limits.steps -= count
        if self.limits.steps < 0:
            raise RenderError("the template takes too many steps; does it loop?")

    def charge(self, text: str) -> str:
        """Charge the length of a text that was made."""
        self.limits.characters -= len(text)
        if self.limits.characters < 0:
            raise RenderError("the template produces too much text; does it loop?")
        return text


Variables = list[tuple[str, object]]


class _Missing:
    """No value comes from the command before."""


_MISSING = _Missing()
#: Arguments as written, and the value of the command before.
_Given = tuple[Sequence[Operand], object]


class Scope:
    """The evaluation of one template; `at` is the node that an error text names."""

    def __init__(self, run: Run, name: str) -> None:
        self.run = run
        self.name = name
        self.at: Node | None = None

    def error(self, message: str) -> RenderError:
        """A failure at the current node, in Go's words."""
        where = self.run.template.name
        if self.at is None:
            return RenderError(f"template: {self.name}: {message}")
        text, offset = self.run.template.text, self.at.offset
        start = text.rfind("\n", 0, offset) + 1
        line, column = text.count("\n", 0, offset) + 1, len(to_bytes(text[start:offset]))
        return RenderError(f"template: {where}:{line}:{column}: executing {quote(self.name)} at <{self.at}>: {message}")

    def pipeline(self, dot: object, pipe: PipeNode, variables: Variables) -> object:
        """The value of a pipeline, which is also given to the variables it declares."""
        self.at = pipe
        value: object = _MISSING
        for command in pipe.commands:
            value = unwrap(self.command(dot, command, value, variables))
        for variable in pipe.variables:
            if pipe.is_assignment:
                self._assign(variable.names[0], value, variables)
            else:
                variables.append((variable.names[0], value))
        return value

    def _assign(self, name: str, value: object, variables: Variables) -> None:
        for at in range(len(variables) - 1, -1, -1):
            if variables[at][0] == name:
                variables[at] = (name, value)
                return
        raise self.error(f"undefined variable: {name}")

    def command(self, dot: object, command: CommandNode, final: object, variables: Variables) -> object:
        """The value of a command; final: the value of the command before it, or _MISSING."""
        self.run.step()
        first, arguments = command.operands[0], command.operands[1:]
        match first:
            case FieldNode():
                self.at = first
                return self._fields(dot, first.names, (arguments, final))
            case ChainNode():
                return self._chain(dot, first, (arguments, final), variables)
            case IdentifierNode():
                return self.call(dot, first, command, (arguments, final), variables)
            case PipeNode():
                self._refuse_arguments(first, (arguments, final))
                return self.pipeline(dot, first, variables)
            case VariableNode():
                return self._variable(first, (arguments, final), variables)
        self.at = first
        self._refuse_arguments(first, (arguments, final))
        if isinstance(first, NilNode):
            raise self.error("nil is not a command")
        return dot if isinstance(first, DotNode) else self._constant(first)

    def _refuse_arguments(self, node: Operand, given: _Given) -> None:
        if given[0] or given[1] is not _MISSING:
            raise self.error(f"can't give argument to non-function {node}")

    def _constant(self, node: Operand) -> object:
        """The value of a constant where no type is asked for."""
        match node:
            case BoolNode(value=value):
                return value
            case StringNode(text=text):
                return text
            case NumberNode(literal=literal, value=number):
                self.at = node
                if number.as_complex is not None:
                    return number.as_complex
                is_hex = literal[:2] in ("0x", "0X") and not any(char in "pP" for char in literal)
                is_real = not is_hex and literal[0] != "'" and any(char in ".eEpP" for char in literal)
                if is_real and number.as_float is not None:
                    return number.as_float
                if number.as_int is None:
                    raise self.error(f"{literal} overflows int")
                return number.as_int
            case _:
                raise self.error(f"can't evaluate command {quote(str(node))}")

    def _variable(self, node: VariableNode, given: _Given, variables: Variables) -> object:
        self.at = node
        value = next((value for name, value in reversed(variables) if name == node.names[0]), _MISSING)
        if value is _MISSING:
            raise self.error(f"undefined variable: {node.names[0]}")
        if len(node.names) == 1:
            self._refuse_arguments(node, given)
            return value
        return self._fields(value, node.names[1:], given)

    def _chain(self, dot: object, node: ChainNode, given: _Given, variables: Variables) -> object:
        self.at = node
        if isinstance(node.operand, NilNode):
            raise self.error(f"indirection through explicit nil in {node}")
        return self._fields(self.argument(dot, node.operand, "", variables), node.names, given)

    def _fields(self, receiver: object, names: Sequence[str], given: _Given) -> object:
        """A chain of fields of a value; only the last one may be a method with arguments."""
        for name in names[:-1]:
            receiver = self._field(receiver, name, ((), _MISSING))
        return self._field(receiver, names[-1], given)

    def _field(self, receiver: object, name: str, given: _Given) -> object:
        self.run.step()
        if receiver is NO_VALUE:
            return NO_VALUE
        shown_type = type_name(receiver)
        if isinstance(receiver, Interface) and receiver.value is NO_VALUE:
            raise self.error(f"nil pointer evaluating {shown_type}.{name}")
        value = unwrap(receiver)
        has_arguments = bool(given[0]) or given[1] is not _MISSING
        if (method := _method(value, name)) is not None:
            if has_arguments:
                count = len(given[0]) + (given[1] is not _MISSING)
                raise self.error(f"wrong number of args for {name}: want 0 got {count}")
            return self.run.charge(method())
        if isinstance(value, Struct) and name in value.fields:
            if has_arguments:
                raise self.error(f"{name} has arguments but cannot be invoked as function")
            return value.fields[name]
        if isinstance(value, dict | Map):
            if has_arguments:
                raise self.error(f"{name} is not a method but has arguments")
            if name in (value.items if isinstance(value, Map) else value):
                return entry(value, name)
            if self.run.bare:
                return NO_VALUE
            return value.zero if isinstance(value, Map) else Interface(NO_VALUE)
        raise self.error(f"can't evaluate field {name} in type {shown_type}")

    # Calls.

    def call(self, dot: object, name: IdentifierNode, node: Node, given: _Given, variables: Variables) -> object:
        """The value of a function call. node: what an error text of the function names."""
        self.at = name
        kind = FUNCTION_TYPES[name.name]
        if self.run.bare and name.name in OLLAMA_FUNCTIONS:
            raise self.error(f"{quote(name.name)} is not a defined function")
        self._check_count(name.name, kind, given)
        if name.name in ("and", "or"):
            return self._short_circuit(dot, name.name == "or", given, variables)
        arguments, final = given
        values = [self.argument(dot, argument, kind.parameter(at), variables) for at, argument in enumerate(arguments)]
        if final is not _MISSING:
            values.append(self._typed(final, kind.parameter(len(arguments))))
        if name.name == "call":
            values.insert(0, str(arguments[0]) if arguments else _name_of(values[0]))
        self.run.step(sum(len(value) >> 10 for value in map(unwrap, values) if isinstance(value, str)))
        try:
            result = self.run.functions[name.name](*values)
        except CallError as error:
            self.at = node
            raise self.error(f"error calling {name.name}: {error}") from error
        return self.run.charge(result) if isinstance(result, str) else result

    def _check_count(self, name: str, kind: FunctionType, given: _Given) -> None:
        count = len(given[0]) + (given[1] is not _MISSING)
        if kind.rest is None and count != len(kind.fixed):
            raise self.error(f"wrong number of args for {name}: want {len(kind.fixed)} got {count}")
        if count < len(kind.fixed):
            wanted = f"want at least {len(kind.fixed)} got {len(given[0])}"
            raise self.error(f"wrong number of args for {name}: {wanted}")

    def _short_circuit(self, dot: object, stop_at: bool, given: _Given, variables: Variables) -> object:
        """and, or: the first argument that decides, or the last one."""
        value: object = NO_VALUE
        for argument in given[0]:
            value = self.argument(dot, argument, "value", variables)
            if is_true(value) == stop_at:
                return value
        return value if given[1] is _MISSING else given[1]

    def argument(self, dot: object, node: Operand, wanted: str, variables: Variables) -> object:
        """The value of an argument. wanted: "value" or "any" for every type, "string", or "" for a chain's start."""
        self.at = node
        given: _Given = ((), _MISSING)
        match node:
            case DotNode():
                return self._typed(dot, wanted)
            case NilNode():
                if wanted == "string":
                    raise self.error("cannot assign nil to string")
                return NO_VALUE if wanted == "value" else Interface(NO_VALUE)
            case FieldNode():
                return self._typed(self._fields(dot, node.names, given), wanted)
            case VariableNode():
                return self._typed(self._variable(node, given, variables), wanted)
            case PipeNode():
                return self._typed(self.pipeline(dot, node, variables), wanted)
            case IdentifierNode():
                return self._typed(self.call(dot, node, node, given, variables), wanted)
            case ChainNode():
                return self._typed(self._chain(dot, node, given, variables), wanted)
        if wanted == "string" and not isinstance(node, StringNode):
            raise self.error(f"expected string; found {node}")
        return self._constant(node)

    def _typed(self, value: object, wanted: str) -> object:
        """A value as an argument of a type."""
        if wanted == "any":
            return Interface(NO_VALUE) if value is NO_VALUE else value
        if wanted != "string" or isinstance(value, str):
            return value
        if value is NO_VALUE:
            raise self.error("invalid value; expected string")
        inner = value if isinstance(value, Interface) and value.value is NO_VALUE else unwrap(value)
        if isinstance(inner, str):
            return inner
        raise self.error(f"wrong type for value; expected string; got {type_name(inner)}")


def _method(value: object, name: str) -> Callable[[], str] | None:
    """The method of a value with this name, if it has one without arguments that gives a text."""
    if name == "String":
        return getattr(value, "as_text", None)
    methods = value.methods if isinstance(value, Struct) else None
    return None if methods is None else methods.get(name)


def _name_of(value: object) -> str:
    """What an error text calls a value that came through a pipe."""
    if isinstance(value, str):
        return value
    return "<invalid Value>" if value is NO_VALUE else f"<{type_name(value)} Value>"
