"""Which variables a template uses, as Ollama counts them."""

from __future__ import annotations

from collections.abc import Iterator

from modelbuild.template.errors import TemplateError
from modelbuild.template.hints import meant_field
from modelbuild.template.nodes import (
    ChainNode,
    FieldNode,
    Node,
    PipeNode,
    Template,
    TemplateNode,
    VariableNode,
    children,
)
from modelbuild.template.parser import parse_template

_COMPARED_NAMES = 100


def check_template(text: str) -> Template:
    """The template, if Ollama's create API would accept it; TemplateError (code TEMPLATE) otherwise.

    Nothing is run. `error.ollama_message` is the answer's text, `error.line` and `error.column` count from 1.
    """
    template = parse_template(text)
    template_variables(template)
    return template


def template_variables(template: Template) -> tuple[str, ...]:
    """The names of all fields and variables in a template and those it defines: lower case, sorted, unique.

    Every name of a chain counts (`$.Messages` gives `$` and `messages`). Not seen, as in Ollama: declared variables,
    and everything in a chain that starts with parentheses (`(index .Messages 0).Role`).
    Raises TemplateError for a {{template}} action without data, which Ollama refuses.
    """
    names: set[str] = set()
    for body in template.definitions.values():
        for node in _visible(body):
            if isinstance(node, FieldNode | VariableNode):
                names.update(name.lower() for name in node.names)
            elif isinstance(node, TemplateNode) and node.pipe is None:
                line, column = template.position_of(node)
                hint = f'give it data: {{{{ template "{node.name}" . }}}}'
                message = "undefined template specified"
                raise TemplateError(message, line=line, column=column, located=False, hint=hint)
    return tuple(sorted(names))


def mistyped_fields(template: Template) -> Iterator[tuple[int, int, str, str]]:
    """Fields that no conversation has while one is much like them: line, column, name, and the name that is meant.

    They are no errors: Ollama takes them, and puts `<no value>` or nothing into the prompt. Each name comes once, and
    those behind a hundred are not looked at, since comparing takes its time.
    """
    seen = set[str]()
    for body in template.definitions.values():
        for node in _visible(body):
            if isinstance(node, FieldNode):
                name = node.names[0]
            elif isinstance(node, VariableNode) and node.names[0] == "$" and len(node.names) > 1:
                name = node.names[1]
            else:
                continue
            if name in seen or len(seen) >= _COMPARED_NAMES:
                continue
            seen.add(name)
            if meant := meant_field(name):
                yield (*template.position_of(node), name, meant)


def needs_response(variables: tuple[str, ...]) -> bool:
    """Whether Ollama appends `{{ .Response }}` to a template with these variables."""
    return "messages" not in variables and "response" not in variables


def takes_messages(variables: tuple[str, ...]) -> bool:
    """Whether a template gets the messages themselves; others are rendered turn by turn (legacy)."""
    return "messages" in variables


def _visible(node: Node) -> Iterator[Node]:
    """The nodes that Ollama looks at, in the order of the text. Iterative."""
    waiting = [node]
    while waiting:
        current = waiting.pop()
        yield current
        waiting.extend(reversed(_visible_children(current)))


def _visible_children(node: Node) -> tuple[Node, ...]:
    match node:
        case PipeNode(commands=commands):
            return tuple(operand for command in commands for operand in command.operands)
        case ChainNode():
            return ()
        case _:
            return children(node)
