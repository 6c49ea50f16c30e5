"""The pre-tokenizer that a recipe asks for: known to the runtime, and asked for where something is converted."""

from __future__ import annotations

from modelbuild.errors import RecipeError, UsageError
from modelbuild.recipe.resolved import ResolvedModel

_FIELD = "pre_tokenizer"


def check_pre_tokenizer(model: ResolvedModel, *, is_checkpoint: bool) -> None:
    """RecipeError at the field: UNKNOWN with near names, CONFLICT when the weights have their tokenizer already."""
    if not model.pre_tokenizer:
        return
    from modelbuild.convert.tokenizers.pretokenizers import check_pre_tokenizer_name

    position = model.position_of(_FIELD) or model.position
    try:
        check_pre_tokenizer_name(model.pre_tokenizer)
    except UsageError as error:
        raise RecipeError(error.code, error.message, position, hint=error.hint) from error
    if not is_checkpoint:
        message = f"{_FIELD!r} has no effect: only a checkpoint's tokenizer is converted"
        hint = "remove it; 'metadata: {tokenizer.ggml.pre: NAME}' changes the key of a GGUF"
        raise RecipeError("CONFLICT", message, position, hint=hint)
