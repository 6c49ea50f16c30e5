"""What to write instead, for the mistakes that people make in templates."""

from __future__ import annotations

from modelbuild.late_pattern import late_pattern
from modelbuild.similar_names import similar_names
from modelbuild.template.functions import FUNCTIONS

#: Of a conversation and of its messages; what people forget the dot of.
_FIELDS = (
    "Messages", "System", "Prompt", "Response", "Tools", "Suffix", "Think", "ThinkLevel", "IsThinkSet",
    "Role", "Content", "Thinking", "ToolCalls", "ToolName", "Function", "Name", "Arguments",
)  # fmt: skip
#: Besides, of messages, calls and tools; a template may also name the parameters of a tool that it was made for.
_OTHER_FIELDS = (
    "Images", "ToolCallID", "ID", "Index", "Type", "Items", "Description", "Parameters", "Defs", "Required",
    "Properties", "AnyOf", "Enum", "ToTypeScriptType", "First",
)  # fmt: skip
_FUNCTION = late_pattern(r'function "(\w+)" not defined')
_VARIABLE = late_pattern(r'undefined variable "(\$\w*)"')
_NO_VALUE = late_pattern(r"missing value for (if|range|with)")
_STARTS = (
    ("unexpected EOF", "a block that was opened is not closed: add {{ end }}"),
    ("unclosed action", "close it with }}, on the same line if it holds quoted text"),
    ("unterminated", 'close the quotes; inside of them, a quote is written \\"'),
    ("unexpected {{end}}", "no block is open here: remove it"),
    ("unexpected {{else}}", "no block is open here that could have one: remove it"),
    ('unexpected "{"', 'an action starts with two braces; braces that are text are written {{ "{" }}'),
    ('unexpected "}" in operand', "an action ends with two braces: }}"),
    ("unclosed comment", "end it with */}}"),
    ("non executable command", "on the right of | stands a function"),
)


def hint_for(message: str, text: str) -> str:
    """The advice that goes with an error of the lexer or parser in a text; empty when there is none."""
    if "{%" in text:
        return "this looks like Jinja, and templates here are in Go's language, as in Ollama"
    if found := _FUNCTION.fullmatch(message):
        return _function_hint(found[1])
    if found := _VARIABLE.fullmatch(message):
        return f"set it first, in the same block: {{{{ {found[1]} := … }}}}"
    if found := _NO_VALUE.fullmatch(message):
        return f"for example {{{{ {found[1]} .Messages }}}}"
    return next((hint for start, hint in _STARTS if message.startswith(start)), "")


def meant_field(name: str) -> str:
    """The field that a template probably means by one that no conversation has; empty where nothing is like it."""
    known = (*_FIELDS, *_OTHER_FIELDS)
    if name in known:
        return ""
    same = [field for field in known if field.lower() == name.lower()]
    return next(iter(same or similar_names(name, known, n=1, cutoff=0.75)), "")


def _function_hint(name: str) -> str:
    near = similar_names(name, FUNCTIONS, n=1, cutoff=0.7)
    if near:
        return f"did you mean {near[0]}?"
    field = similar_names(name.capitalize(), _FIELDS, n=1, cutoff=0.7)
    return f"a variable has a dot in front: .{field[0] if field else name}"
