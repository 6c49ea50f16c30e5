"""Hundreds of small templates with the answers that Go itself gave (tests/data/go_template/README.md)."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest

from modelbuild.template.conversation import Conversation, parse_messages
from modelbuild.template.errors import RenderError, TemplateError
from modelbuild.template.evaluate import evaluate_partly
from modelbuild.template.parser import parse_template
from modelbuild.template.prompt import execute_template, with_response
from modelbuild.template.quoting import to_bytes
from modelbuild.template.tools import parse_tools
from modelbuild.template.variables import needs_response, template_variables

DATA = Path(__file__).parents[2] / "data" / "go_template"
TODAY = dt.date(2026, 8, 21)


def load(name: str) -> Any:
    """One file of expectations."""
    return json.loads((DATA / name).read_text("utf-8"))


def test_parsing() -> None:
    """Each template gives Go's error text, or Go's tree and Ollama's variables."""
    for case in load("parse.json"):
        expected = {key: value for key, value in case.items() if key != "template"}

        assert expected == parsed(case["template"]), case["template"]


def parsed(text: str) -> dict[str, object]:
    """What parsing gives, in the form of the expectations."""
    try:
        template = parse_template(text)
        names = template_variables(template)
    except TemplateError as error:
        return {"error": error.go_message}
    if needs_response(names):
        template, names = with_response(template), tuple(sorted((*names, "response")))
    return {"tree": str(template.root), "variables": list(names)}


@pytest.mark.parametrize("name", ["exec.json", "printf.json"])
def test_evaluation(name: str) -> None:
    """Each template gives Go's output, and Go's error text where Go fails."""
    data = load("exec.json")["data"]
    cases = load(name)
    for case in cases["cases"] if name == "exec.json" else cases:
        rendering = evaluate_partly(parse_template(case["template"]), data, today=TODAY)
        error = rendering.error.message if rendering.error else None

        assert case["output"] == to_bytes(rendering.text).decode("utf-8", "replace"), case["template"]
        assert case.get("error") == error, case["template"]


def test_prompts() -> None:
    """Each conversation gives Ollama's prompt, and Go's error text where Ollama fails."""
    for case in load("chat.json"):
        tools = None if case["tools"] is None else parse_tools(case["tools"])
        messages = parse_messages(case["messages"])
        conversation = Conversation(messages, tools, case["prompt"], case["suffix"], case["think"])

        if "error" in case:
            with pytest.raises((RenderError, TemplateError)) as caught:
                execute_template(parse_template(case["template"]), conversation, today=TODAY)
            message = caught.value.go_message if isinstance(caught.value, TemplateError) else caught.value.message
            assert case["error"] == message, case["template"]
        else:
            prompt = execute_template(parse_template(case["template"]), conversation, today=TODAY)
            assert case["output"] == prompt, case["template"]
