"""Names of the functions a template may call: Go's built-in ones and those that Ollama adds."""

from __future__ import annotations

GO_FUNCTIONS = frozenset(
    {
        "and", "call", "html", "index", "slice", "js", "len", "not", "or", "print", "printf", "println", "urlquery",
        "eq", "ge", "gt", "le", "lt", "ne",
    }
)  # fmt: skip
OLLAMA_FUNCTIONS = frozenset({"json", "currentDate", "yesterdayDate", "toTypeScriptType"})
FUNCTIONS = GO_FUNCTIONS | OLLAMA_FUNCTIONS
