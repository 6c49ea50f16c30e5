"""The prompt that Ollama makes of a conversation with a Go template.

Source: Ollama's template execution, August 2026. Three ways, by what the template uses:

* prompt and suffix given: the template gets Prompt and Suffix;
* the template uses Messages: it gets System, Messages and Tools, once;
* otherwise (legacy): it runs once per turn with System, Prompt and Response. The last run stops after Response, so
  that the model goes on from there; Ollama runs that one without its own functions and without defined templates.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import replace

from modelbuild.template.conversation import Conversation, Message, message_to_template
from modelbuild.template.evaluate import evaluate
from modelbuild.template.nodes import (
    ActionNode,
    BranchNode,
    CommandNode,
    FieldNode,
    Item,
    ListNode,
    Operand,
    PipeNode,
    Template,
)
from modelbuild.template.operands import Limits
from modelbuild.template.tools import tools_to_template
from modelbuild.template.values import Slice
from modelbuild.template.variables import needs_response, takes_messages, template_variables


def render_prompt(
    template: Template, conversation: Conversation, *, today: dt.date, limits: Limits | None = None
) -> str:
    """The exact prompt for a conversation; RenderError with Go's words where Ollama fails, or at a limit."""
    conversation = replace(conversation, messages=tagged(conversation.messages))
    return execute_template(template, conversation, today=today, limits=limits)


def execute_template(
    template: Template, conversation: Conversation, *, today: dt.date, limits: Limits | None = None
) -> str:
    """Like `render_prompt`, with the texts of the messages as they are: no tags stand for images."""
    limits = limits or Limits()
    variables = template_variables(template)
    template = with_response(template) if needs_response(variables) else template
    system, messages = collate(conversation.messages)
    thinking = {
        "Think": bool(conversation.think),
        "ThinkLevel": conversation.think_level,
        "IsThinkSet": conversation.think is not None,
    }
    if conversation.prompt and conversation.suffix:
        data = {"Prompt": conversation.prompt, "Suffix": conversation.suffix, "Response": "", **thinking}
        return evaluate(template, data, today=today, limits=limits)
    if takes_messages(variables):
        items = [message_to_template(message) for message in messages]
        data = {
            "System": system,
            "Messages": Slice("[]*template.templateMessage", items, is_nil=not items),
            "Tools": tools_to_template(conversation.tools),
            "Response": "",
            **thinking,
        }
        return evaluate(template, data, today=today, limits=limits)
    *turns, last = _turns(messages)
    parts = [evaluate(template, {**turn, **thinking}, today=today, limits=limits) for turn in turns]
    parts.append(evaluate(cut_after_response(template), {**last, **thinking}, today=today, limits=limits, bare=True))
    return "".join(parts)


def tagged(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The messages with a tag for each image: in place of [img] where the text has one, else before the text."""
    found: list[Message] = []
    count = 0
    for message in messages:
        prefix, content = "", message.content
        for number in range(count, count + len(message.images)):
            tag = f"[img-{number}]"
            if "[img]" in content:
                content = content.replace("[img]", tag, 1)
            else:
                prefix += tag
        count += len(message.images)
        found.append(replace(message, content=prefix + content))
    return tuple(found)


def collate(messages: Sequence[Message]) -> tuple[str, tuple[Message, ...]]:
    """All system texts joined, and the messages with neighbours of the same role merged, except those of tools."""
    system = "\n\n".join(message.content for message in messages if message.role == "system")
    merged: list[Message] = []
    for message in messages:
        if merged and merged[-1].role == message.role != "tool":
            merged[-1] = replace(merged[-1], content=f"{merged[-1].content}\n\n{message.content}")
        else:
            merged.append(message)
    return system, tuple(merged)


def _turns(messages: Sequence[Message]) -> list[dict[str, object]]:
    """What the template gets for each turn, at least one; the last one is what the model goes on from."""
    turns: list[dict[str, object]] = []
    current = {"System": "", "Prompt": "", "Response": ""}
    names = {"system": "System", "user": "Prompt", "assistant": "Response"}
    for message in messages:
        begins_turn = {
            "system": bool(current["Prompt"] or current["Response"]),
            "user": bool(current["Response"]),
        }
        if begins_turn.get(message.role, False):
            turns.append(dict(current))
            current = {"System": "", "Prompt": "", "Response": ""}
        if message.role in names:
            current[names[message.role]] = message.content
    return [*turns, dict(current)]


def with_response(template: Template) -> Template:
    """The template with `{{ .Response }}` at its end."""
    field = FieldNode(0, ("Response",))
    action = ActionNode(0, PipeNode(0, (), False, (CommandNode(0, (field,)),)))
    return replace(template, root=replace(template.root, nodes=(*template.root.nodes, action)))


def cut_after_response(template: Template) -> Template:
    """The template without everything after the first field named Response, and without defined templates."""
    root, _ = _cut_list(template.root, False)
    return Template(template.text, template.name, root, {template.name: root})


def _cut_list(body: ListNode, is_cut: bool) -> tuple[ListNode, bool]:
    kept: list[Item] = []
    for node in body.nodes:
        if is_cut:
            break
        remaining, is_cut = _cut_item(node)
        if remaining is not None:
            kept.append(remaining)
    return replace(body, nodes=tuple(kept)), is_cut


def _cut_item(node: Item) -> tuple[Item | None, bool]:
    if isinstance(node, BranchNode):
        body, is_cut = _cut_list(node.body, False)
        otherwise = node.otherwise
        if is_cut:
            otherwise = None  # Ollama crashes here; what stands after the response is never wanted.
        elif otherwise is not None:
            otherwise, is_cut = _cut_list(otherwise, False)
        return replace(node, body=body, otherwise=otherwise), is_cut
    if isinstance(node, ActionNode):
        pipe, is_cut = _cut_pipe(node.pipe, False)
        return (None if pipe is None else replace(node, pipe=pipe)), is_cut
    return node, False


def _cut_pipe(pipe: PipeNode, is_cut: bool) -> tuple[PipeNode | None, bool]:
    commands: list[CommandNode] = []
    for command in pipe.commands:
        operands: list[Operand] = []
        for operand in command.operands:
            if isinstance(operand, FieldNode) and "Response" in operand.names:
                is_cut = True  # a second one beside it stays, too
            elif is_cut:
                continue
            elif isinstance(operand, PipeNode):
                inner, is_cut = _cut_pipe(operand, is_cut)
                operands += [] if inner is None else [inner]
                continue
            operands.append(operand)
        if not operands:
            return None, is_cut
        commands.append(replace(command, operands=tuple(operands)))
    return replace(pipe, commands=tuple(commands)), is_cut
