"""What a stored model can do, as Ollama derives it from config, GGUF, templates and parser. Pure functions on facts.

Two answers exist, because Ollama's `show` and its list of models look at different things in a different order.
Source: behaviour of both, August 2026.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from modelbuild.records import record
from modelbuild.template.nodes import (
    BranchNode,
    ChainNode,
    FieldNode,
    ListNode,
    Node,
    PipeNode,
    Template,
    TextNode,
    children,
)
from modelbuild.template.variables import template_variables

COMPLETION, EMBEDDING, TOOLS, INSERT = "completion", "embedding", "tools", "insert"
VISION, AUDIO, THINKING = "vision", "audio", "thinking"
#: The Go template of a model that has none.
DEFAULT_TEMPLATE = "{{ .Prompt }}"

_TOOL_PARSERS = frozenset(
    {
        "qwen3", "qwen3-thinking", "qwen3.5", "ornith", "qwen3-coder", "qwen3-vl-instruct", "qwen3-vl-thinking",
        "ministral", "harmony", "cogito", "deepseek3", "olmo3", "nemotron-3-nano", "nemotron-3.5-nano",
        "functiongemma", "glm-4.7", "gemma4", "gemma4-no-thinking", "glm-ocr", "lfm2", "lfm2-thinking", "laguna",
        "poolside-v1", "cohere", "glimmer",
    }
)  # fmt: skip
_THINKING_PARSERS = frozenset(
    {
        "qwen3-thinking", "qwen3.5", "ornith", "qwen3-vl-thinking", "harmony", "cogito", "deepseek3", "olmo3-think",
        "nemotron-3-nano", "nemotron-3.5-nano", "glm-4.7", "gemma4", "lfm2-thinking", "laguna", "poolside-v1",
        "cohere", "glimmer",
    }
)  # fmt: skip
_GPT_OSS = ("gptoss", "gpt-oss")
_SPLITS = ("content.split('</think>')", 'content.split("</think>")')
_TOOL_ROLES = (
    "role'] == 'tool'", "role'] == \"tool\"", "role\"] == 'tool'", 'role"] == "tool"', "message.role == 'tool'",
    'message.role == "tool"', "ipython", "tool_response", "tool_results",
)  # fmt: skip


@record
class GgufTraits:
    """What the metadata of a model's GGUF says; the flags stand for keys below its architecture."""

    architecture: str = ""
    has_pooling_type: bool = False
    has_vision_blocks: bool = False
    has_audio_blocks: bool = False
    chat_template: str = ""


@record
class ProjectorTraits:
    """What the metadata of a projector says. has_audio: some key ending in has_audio_encoder is true."""

    has_audio: bool = False
    vision_projector_type: str = ""


@record
class ModelTraits:
    """Everything that capabilities follow from.

    config_capabilities, renderer, parser, family, families: from the config. template: the stored Go template, None
    without one. gguf: None without a model layer (remote models), the last one where there are several.
    """

    config_capabilities: Sequence[str] = ()
    renderer: str = ""
    parser: str = ""
    family: str = ""
    families: Sequence[str] = ()
    template: Template | None = None
    gguf: GgufTraits | None = None
    projectors: Sequence[ProjectorTraits] = ()


def shown_capabilities(model: ModelTraits, *, use_go_template: bool | None = None) -> tuple[str, ...]:
    """The capabilities in the order of `show`. use_go_template: OLLAMA_GO_TEMPLATE, None when it is not set."""
    found = list(model.config_capabilities)
    uses_go = _uses_go_template(model, use_go_template)
    if model.gguf is not None:
        if not _is_rendered_by_ollama(model, uses_go):
            found += chat_template_capabilities(model.gguf.chat_template)
        found += _gguf_capabilities(model.gguf)
    if model.projectors:
        found.append(VISION)
        found += [AUDIO for projector in model.projectors if _offers_audio(projector)]
    if model.template is not None and uses_go:
        found += go_template_capabilities(model.template)
    found += parser_capabilities(model.parser)
    found += [THINKING] if model.family in _GPT_OSS else []
    return _unique(name for name in found if not (name == AUDIO and _hides_audio(model)))


def listed_capabilities(model: ModelTraits, of_weights: Sequence[str] | None = None) -> tuple[str, ...]:
    """The capabilities in the order of the list of models, which does not look at chat templates.

    of_weights: those of the weights, as `engine.listed_gguf` reads them; without it, those of the traits.
    """
    found: list[str] = list(of_weights or ())
    if of_weights is None and model.gguf is not None:
        kind, *modalities = _gguf_capabilities(model.gguf)
        found += [*modalities, kind]
    found += model.config_capabilities
    of_template = go_template_capabilities(model.template) if model.template is not None else ()
    of_parser = parser_capabilities(model.parser)
    found += [TOOLS] if TOOLS in (*of_template, *of_parser) else []
    found += [INSERT] if INSERT in of_template else []
    found += [THINKING] if THINKING in (*of_template, *of_parser) or model.family in _GPT_OSS else []
    found += [VISION] if model.projectors else []
    return _unique(name for name in found if name)


def shown_template(model: ModelTraits, *, use_go_template: bool | None = None) -> str:
    """The template that `show` shows: the stored one or its default, or the GGUF's own where that is used."""
    uses_go = _uses_go_template(model, use_go_template)
    if model.gguf is not None and model.gguf.chat_template and not _is_rendered_by_ollama(model, uses_go):
        return model.gguf.chat_template
    return DEFAULT_TEMPLATE if model.template is None else model.template.text


def go_template_capabilities(template: Template) -> tuple[str, ...]:
    """What a Go template implies: tools, insert, thinking."""
    names = template_variables(template)
    found = [TOOLS] if "tools" in names else []
    found += [INSERT] if "suffix" in names else []
    return tuple([*found, THINKING] if all(thinking_tags(template)) else found)


def chat_template_capabilities(chat_template: str) -> tuple[str, ...]:
    """What a GGUF's Jinja chat template implies, by the words in it: tools, thinking."""
    found = [TOOLS] if "tools" in chat_template or "tool_call" in chat_template else []
    has_tags = "<think>" in chat_template and "</think>" in chat_template
    drops_thoughts = any(split in chat_template for split in _SPLITS) and not (
        "reasoning_content" in chat_template or "<SPECIAL_12>" in chat_template
    )
    return tuple([*found, THINKING] if has_tags or drops_thoughts else found)


def parser_capabilities(parser: str) -> tuple[str, ...]:
    """What one of Ollama's built-in parsers implies; nothing for unknown names."""
    return tuple(name for name, parsers in ((TOOLS, _TOOL_PARSERS), (THINKING, _THINKING_PARSERS)) if parser in parsers)


def thinking_tags(template: Template) -> tuple[str, str]:
    """The texts around a model's thoughts: first and last text of the list that holds `.Thinking` of a message.

    Empty where the template has none. Only the template itself counts, not those it defines.
    """
    tags = ["", ""]
    waiting: list[tuple[Node, BranchNode | None, ListNode]] = [(template.root, None, template.root)]
    while waiting:
        node, loop, enclosing = waiting.pop()
        if isinstance(node, FieldNode) and node.names[0] == "Thinking" and loop is not None and _ranges_messages(loop):
            for place, edge in ((0, enclosing.nodes[0]), (1, enclosing.nodes[-1])):
                if isinstance(edge, TextNode):
                    tags[place] = edge.text.strip()
        if isinstance(node, BranchNode) and node.keyword == "range":
            loop = node
        if isinstance(node, ListNode):
            enclosing = node
        waiting.extend((child, loop, enclosing) for child in reversed(_seen_below(node)))
    return tags[0], tags[1]


def _seen_below(node: Node) -> tuple[Node, ...]:
    """The children that Ollama looks at: no declared variables, nothing inside a chain."""
    if isinstance(node, PipeNode):
        return node.commands
    return () if isinstance(node, ChainNode) else children(node)


def _ranges_messages(loop: BranchNode) -> bool:
    waiting: list[Node] = [loop.pipe]
    while waiting:
        node = waiting.pop()
        if isinstance(node, FieldNode) and node.names[0] == "Messages":
            return True
        waiting.extend(_seen_below(node))
    return False


def prefers_chat_template(chat_template: str, template: Template) -> bool:
    """Whether Ollama takes the GGUF's chat template although there is a Go template: it offers more, or the same
    with the results of tools, which the Go template cannot show.
    """
    of_chat, of_go = chat_template_capabilities(chat_template), go_template_capabilities(template)
    chat_round_trip, go_round_trip = _shows_tool_results(chat_template), _go_shows_tool_results(template)
    if len(of_chat) > len(of_go):
        return not go_round_trip or chat_round_trip
    return set(of_chat) == set(of_go) and TOOLS in of_chat and chat_round_trip and not go_round_trip


def _shows_tool_results(chat_template: str) -> bool:
    has_calls = "tool_calls" in chat_template or "assistant_tool_call" in chat_template
    return has_calls and any(text in chat_template for text in _TOOL_ROLES)


def _go_shows_tool_results(template: Template) -> bool:
    names = template_variables(template)
    marks = ('eq .Role "tool"', "tool_response", "TOOL_RESULTS")
    return "tools" in names and "toolcalls" in names and any(mark in template.text for mark in marks)


def _uses_harmony(model: ModelTraits) -> bool:
    text = DEFAULT_TEMPLATE if model.template is None else model.template.text
    return model.family in _GPT_OSS and "<|start|>" in text and "<|end|>" in text


def _uses_go_template(model: ModelTraits, chosen: bool | None) -> bool:
    """Whether prompts are made with the stored Go template."""
    if model.template is None or chosen is not None:
        return model.template is not None and bool(chosen)
    chat_template = model.gguf.chat_template if model.gguf else ""
    if not chat_template or model.renderer or model.parser or _uses_harmony(model):
        return True
    return not prefers_chat_template(chat_template, model.template)


def _is_rendered_by_ollama(model: ModelTraits, uses_go: bool) -> bool:
    return bool(model.renderer or model.parser or uses_go or _uses_harmony(model))


def _gguf_capabilities(gguf: GgufTraits) -> list[str]:
    kind = EMBEDDING if gguf.has_pooling_type else COMPLETION
    return [kind, *([VISION] if gguf.has_vision_blocks else []), *([AUDIO] if gguf.has_audio_blocks else [])]


def _offers_audio(projector: ProjectorTraits) -> bool:
    return projector.has_audio and projector.vision_projector_type != "gemma3nv"


def _hides_audio(model: ModelTraits) -> bool:
    """Ollama cannot load the audio part of this family yet."""
    architecture = model.gguf.architecture if model.gguf else ""
    return "nemotron_h_omni" in (architecture, model.family, *model.families)


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
