"""The parse tree of a template. `str(node)` is the text that Go prints for the same node.

Every node knows the offset (in characters, from 0) of the token it starts at.
"""

from __future__ import annotations

from collections.abc import Mapping

from modelbuild.records import record
from modelbuild.template.number import NumberValue
from modelbuild.template.quoting import quote


@record(eq=False)
class Node:
    """Something that stands at a place in the template's text. Nodes are equal only to themselves."""

    # Comparing and repr would be generated for each kind at import; nobody needs them, and a build waits for them.
    offset: int

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.offset}, {str(self)!r})"


@record(eq=False)
class TextNode(Node):
    """Text outside of actions, after trimming."""

    text: str

    def __str__(self) -> str:
        return self.text


@record(eq=False)
class DotNode(Node):
    """The value at the cursor."""

    def __str__(self) -> str:
        return "."


@record(eq=False)
class NilNode(Node):
    """The constant nil."""

    def __str__(self) -> str:
        return "nil"


@record(eq=False)
class BoolNode(Node):
    """The constant true or false."""

    value: bool

    def __str__(self) -> str:
        return "true" if self.value else "false"


@record(eq=False)
class NumberNode(Node):
    """A number or character constant. literal: as written."""

    literal: str
    value: NumberValue

    def __str__(self) -> str:
        return self.literal


@record(eq=False)
class StringNode(Node):
    """A text constant. literal: as written, with its quotes."""

    literal: str
    text: str

    def __str__(self) -> str:
        return self.literal


@record(eq=False)
class IdentifierNode(Node):
    """The name of a function."""

    name: str

    def __str__(self) -> str:
        return self.name


@record(eq=False)
class FieldNode(Node):
    """A chain of fields of the cursor: .A.B has the names A and B."""

    names: tuple[str, ...]

    def __str__(self) -> str:
        return "".join(f".{name}" for name in self.names)


@record(eq=False)
class VariableNode(Node):
    """A variable with a chain of fields: $x.A has the names $x and A."""

    names: tuple[str, ...]

    def __str__(self) -> str:
        return ".".join(self.names)


@record(eq=False)
class ChainNode(Node):
    """A chain of fields of something else: (index .A 0).B."""

    operand: Operand
    names: tuple[str, ...]

    def __str__(self) -> str:
        return _parenthesised(self.operand) + "".join(f".{name}" for name in self.names)


@record(eq=False)
class CommandNode(Node):
    """A function call or a value: operands with blanks between them, at least one."""

    operands: tuple[Operand, ...]

    def __str__(self) -> str:
        return " ".join(_parenthesised(operand) for operand in self.operands)


@record(eq=False)
class PipeNode(Node):
    """Commands that feed each other. variables: those it declares, or assigns to when is_assignment."""

    variables: tuple[VariableNode, ...]
    is_assignment: bool
    commands: tuple[CommandNode, ...]

    def __str__(self) -> str:
        declared = ", ".join(map(str, self.variables))
        if declared:
            declared += " = " if self.is_assignment else " := "
        return declared + " | ".join(map(str, self.commands))


@record(eq=False)
class ListNode(Node):
    """A sequence of texts and actions."""

    nodes: tuple[Item, ...]

    def __str__(self) -> str:
        return "".join(map(str, self.nodes))


@record(eq=False)
class ActionNode(Node):
    """A pipeline whose value is printed, unless it declares variables."""

    pipe: PipeNode

    def __str__(self) -> str:
        return f"{{{{{self.pipe}}}}}"


@record(eq=False)
class BranchNode(Node):
    """An if, with or range. otherwise: the else branch, if there is one."""

    keyword: str
    pipe: PipeNode
    body: ListNode
    otherwise: ListNode | None

    def __str__(self) -> str:
        otherwise = "" if self.otherwise is None else f"{{{{else}}}}{self.otherwise}"
        return f"{{{{{self.keyword} {self.pipe}}}}}{self.body}{otherwise}{{{{end}}}}"


@record(eq=False)
class TemplateNode(Node):
    """A call of another template. pipe: its data, if given."""

    name: str
    pipe: PipeNode | None

    def __str__(self) -> str:
        data = "" if self.pipe is None else f" {self.pipe}"
        return f"{{{{template {quote(self.name)}{data}}}}}"


@record(eq=False)
class LoopExitNode(Node):
    """A break or continue."""

    keyword: str

    def __str__(self) -> str:
        return f"{{{{{self.keyword}}}}}"


Operand = (
    DotNode
    | NilNode
    | BoolNode
    | NumberNode
    | StringNode
    | IdentifierNode
    | FieldNode
    | VariableNode
    | ChainNode
    | PipeNode
)
Item = TextNode | ActionNode | BranchNode | TemplateNode | LoopExitNode


def _parenthesised(operand: Operand) -> str:
    return f"({operand})" if isinstance(operand, PipeNode) else str(operand)


@record
class Template:
    """A parsed template.

    text: what was parsed. root: the template itself. definitions: the templates it defines (with itself under its
    own name), by name.
    """

    text: str
    name: str
    root: ListNode
    definitions: Mapping[str, ListNode]

    def __str__(self) -> str:
        """A text that parses to the same trees, in Go's notation."""
        defined = (
            f"{{{{define {quote(name)}}}}}{body}{{{{end}}}}"
            for name, body in self.definitions.items()
            if body is not self.root
        )
        return "".join([*defined, str(self.root)])

    def position_of(self, node: Node) -> tuple[int, int]:
        """Line and column of a node, from 1, the column in characters."""
        return position_at(self.text, node.offset)


def position_at(text: str, offset: int) -> tuple[int, int]:
    """Line and column of an offset in a text, from 1, the column in characters."""
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)


def is_blank(body: ListNode) -> bool:
    """Whether a template holds nothing but white space."""
    return all(isinstance(node, TextNode) and not node.text.strip() for node in body.nodes)


def children(node: Node) -> tuple[Node, ...]:
    """What stands directly below a node, in the order of the text."""
    match node:
        case ListNode(nodes=nodes):
            return nodes
        case ActionNode(pipe=pipe):
            return (pipe,)
        case BranchNode(pipe=pipe, body=body, otherwise=otherwise):
            return (pipe, body) if otherwise is None else (pipe, body, otherwise)
        case TemplateNode(pipe=PipeNode() as pipe):
            return (pipe,)
        case PipeNode(variables=variables, commands=commands):
            return (*variables, *commands)
        case CommandNode(operands=operands):
            return operands
        case ChainNode(operand=operand):
            return (operand,)
        case _:
            return ()
