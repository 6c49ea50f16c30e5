"""Rules between the fields of one model: what excludes what, and what would have no effect."""

from __future__ import annotations

from collections.abc import Collection

from modelbuild.errors import Position, ProblemCollector, RecipeError
from modelbuild.recipe.nodes import MappingNode, ScalarNode

#: Fields that describe weights; a model that runs on another server has none.
_WEIGHT_FIELDS = (
    "files",
    "adapters",
    "draft_files",
    "draft_quantize",
    "quantize",
    "quantization",
    "intermediate",
    "allow_requantize",
    "tensor_types",
    "imatrix",
    "pre_tokenizer",
    "metadata",
    "rewrite_gguf",
)
#: Fields that only have an effect together with another one.
_NEEDS = {
    "intermediate": ("quantize", "quantization"),
    "allow_requantize": ("quantize", "quantization"),
    "imatrix": ("quantize", "quantization"),
    "tensor_types": ("quantize", "quantization"),
    "draft_quantize": ("draft_files",),
}


def check_rules(node: MappingNode, position: Position, own_fields: Collection[str], problems: ProblemCollector) -> None:
    """Collect an error for every rule that the fields of a model break.

    own_fields: those that the model itself sets; an inherited field without effect is no mistake.
    """
    has_from, has_files = not _is_blank(node, "from"), "files" in node.entries
    if has_from and has_files:
        message = "both 'from' and 'files' are given"
        problems.add(RecipeError("CONFLICT", message, node.keys["files"], hint="remove one of the two"))
    elif not has_from and not has_files:
        hint = "add 'from: NAME', 'from: ./PATH' or 'files:'"
        problems.add(RecipeError("MISSING", "neither 'from' nor 'files' was specified", position, hint=hint))
    if not _is_blank(node, "remote_host"):
        _check_remote(node, own_fields, problems)
        return
    for field, needed in _NEEDS.items():
        if field in own_fields and _says_something(node, field) and all(_is_blank(node, other) for other in needed):
            message = f"{field!r} has no effect without {needed[0]!r}"
            problems.add(RecipeError("CONFLICT", message, node.keys[field], hint=f"add '{needed[0]}:', or remove it"))


def _check_remote(node: MappingNode, own_fields: Collection[str], problems: ProblemCollector) -> None:
    for field in _WEIGHT_FIELDS:
        if field in own_fields and field in node.entries and field != "files":
            message = f"{field!r} has no effect on a remote model"
            hint = "remove it, or remove 'remote_host'"
            problems.add(RecipeError("CONFLICT", message, node.keys[field], hint=hint))
    if "from" in node.entries and not isinstance(node.get("from"), ScalarNode):
        message = "'remote_host' needs 'from: NAME'"
        problems.add(RecipeError("CONFLICT", message, node.keys["remote_host"], hint="name the model on that server"))
    elif "from" not in node.entries and "files" in node.entries:
        message = "'remote_host' needs 'from: NAME', 'files' are not sent there"
        problems.add(RecipeError("CONFLICT", message, node.keys["remote_host"], hint="remove one of the two"))


def _is_blank(node: MappingNode, field: str) -> bool:
    """Is the field absent, or the empty text that create requests send for it?"""
    value = node.get(field)
    return value is None or (isinstance(value, ScalarNode) and value.value in ("", None))


def _says_something(node: MappingNode, field: str) -> bool:
    value = node.get(field)
    return value is not None and not (isinstance(value, ScalarNode) and value.value in ("", None, False))
