"""Renders a parsed template with data, as Go's text/template does with `missingkey=zero`. Only for a look at a prompt.

Everything is charged against budgets: steps, characters produced, depth. Error texts are Go's.
Source: the documentation of Go's package text/template, and its behaviour (Go 1.26).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from modelbuild.records import record
from modelbuild.template.calls import make_functions
from modelbuild.template.errors import RenderError
from modelbuild.template.formatting import format_value, sprint
from modelbuild.template.nodes import (
    ActionNode,
    BranchNode,
    Item,
    ListNode,
    LoopExitNode,
    PipeNode,
    Template,
    TemplateNode,
    TextNode,
)
from modelbuild.template.operands import Limits, Run, Scope, Variables
from modelbuild.template.quoting import quote, to_bytes
from modelbuild.template.values import (
    NO_VALUE,
    Map,
    Slice,
    Struct,
    entry,
    is_true,
    item,
    unwrap,
)


@record(frozen=False)
class Rendering:
    """How far a rendering got: the text, and the error that ended it, if one did."""

    text: str
    error: RenderError | None = None


def evaluate(
    template: Template, data: object, *, today: dt.date, limits: Limits | None = None, bare: bool = False
) -> str:
    """The text that a template gives with data; RenderError with Go's words where Go fails, or at a limit.

    data: dicts, lists and scalars, or the types of `values`; it is not changed. today: for currentDate. limits: what
    is left of them, lowered by what is used. bare: without Ollama's functions and without `missingkey=zero`.
    """
    rendering = evaluate_partly(template, data, today=today, limits=limits, bare=bare)
    if rendering.error is not None:
        raise rendering.error
    return rendering.text


def evaluate_partly(
    template: Template, data: object, *, today: dt.date, limits: Limits | None = None, bare: bool = False
) -> Rendering:
    """Like `evaluate`, with the output up to the error instead of an exception."""
    run = Run(template, make_functions(today), limits or Limits(), bare)
    try:
        root = NO_VALUE if data is None else data
        _Walker(run, template.name).walk_list(root, template.root, [("$", root)])
    except RenderError as error:
        return Rendering("".join(run.output), error)
    return Rendering("".join(run.output))


class _Walker(Scope):
    """Renders the items of one template."""

    def walk_list(self, dot: object, body: ListNode, variables: Variables) -> str:
        """Render a list; returns "break" or "continue" when that ended it."""
        self.run.depth += 1
        if self.run.depth > self.run.limits.depth:
            raise self.error(f"blocks and templates are nested deeper than {self.run.limits.depth}")
        for node in body.nodes:
            if stop := self.walk(dot, node, variables):
                break
        else:
            stop = ""
        self.run.depth -= 1
        return stop

    def walk(self, dot: object, node: Item, variables: Variables) -> str:
        """Render one node."""
        self.run.step()
        self.at = node
        match node:
            case TextNode():
                self.run.output.append(self.run.charge(node.text))
            case ActionNode():
                value = self.pipeline(dot, node.pipe, variables)
                if not node.pipe.variables:
                    self.at = node
                    self.run.output.append(self.run.charge(_printed(value)))
            case BranchNode(keyword="range"):
                return self._walk_range(dot, node, variables)
            case BranchNode():
                return self._walk_branch(dot, node, variables)
            case TemplateNode():
                self._walk_template(dot, node, variables)
            case LoopExitNode():
                return node.keyword
        return ""

    def _walk_branch(self, dot: object, node: BranchNode, variables: Variables) -> str:
        """if and with: variables live until its end."""
        mark = len(variables)
        value = self.pipeline(dot, node.pipe, variables)
        stop = ""
        if is_true(value):
            stop = self.walk_list(value if node.keyword == "with" else dot, node.body, variables)
        elif node.otherwise is not None:
            stop = self.walk_list(dot, node.otherwise, variables)
        del variables[mark:]
        return stop

    def _walk_range(self, dot: object, node: BranchNode, variables: Variables) -> str:
        mark = len(variables)
        value = unwrap(self.pipeline(dot, node.pipe, variables))
        inner = len(variables)
        count = 0
        for key, element in self._entries(value, node):
            count += 1
            self.run.step()
            self._bind(node.pipe, key, element, variables)
            stop = self.walk_list(element, node.body, variables)
            del variables[inner:]
            if stop == "break":
                break
        stop = ""
        if not count and node.otherwise is not None:
            stop = self.walk_list(dot, node.otherwise, variables)
        del variables[mark:]
        return stop

    def _entries(self, value: object, node: BranchNode) -> Sequence[tuple[object, object]] | _Counting:
        """The pairs of key and element that a range goes over."""
        if value is NO_VALUE:
            return ()
        if isinstance(value, list | Slice):
            items = value.items if isinstance(value, Slice) else value
            return [(at, item(value, at)) for at in range(len(items))]
        if isinstance(value, dict | Map):
            items_by_key = value.items if isinstance(value, Map) else value
            return [(key, entry(value, key)) for key in sorted(items_by_key, key=to_bytes)]
        if isinstance(value, int) and not isinstance(value, bool):
            if len(node.pipe.variables) > 1:
                raise self.error(f"can't use {value} to iterate over more than one variable")
            return _Counting(value)
        raise self.error(f"range can't iterate over {format_value(value)}")

    def _bind(self, pipe: PipeNode, key: object, value: object, variables: Variables) -> None:
        """Give the variables of a range their values for one round."""
        names = [variable.names[0] for variable in pipe.variables]
        values = [value] if len(names) < 2 else [key, value]
        for at, (name, bound) in enumerate(zip(names, values, strict=False)):
            if pipe.is_assignment:
                self._assign(name, bound, variables)
            else:
                variables[len(variables) - len(names) + at] = (name, bound)

    def _walk_template(self, dot: object, node: TemplateNode, variables: Variables) -> None:
        body = self.run.template.definitions.get(node.name)
        if body is None:
            raise self.error(f"template {quote(node.name)} not defined")
        value = NO_VALUE if node.pipe is None else self.pipeline(dot, node.pipe, variables)
        _Walker(self.run, node.name).walk_list(value, body, [("$", value)])


class _Counting:
    """The rounds of a range over a whole number, made one at a time."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> _Counting:
        self.next_value = 0
        return self

    def __next__(self) -> tuple[object, object]:
        if self.next_value >= self.count:
            raise StopIteration
        self.next_value += 1
        return NO_VALUE, self.next_value - 1


def _printed(value: object) -> str:
    """A value as an action prints it."""
    if value is NO_VALUE:
        return "<no value>"
    if isinstance(value, Struct) and value.is_pointer:
        value = Struct(value.type_name, value.fields, as_text=value.as_text)
    return sprint([value])
