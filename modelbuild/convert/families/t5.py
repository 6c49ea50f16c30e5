"""T5, mT5, UMT5 and Flan-T5: an encoder, a decoder that looks at it, distances in buckets instead of positions."""

from __future__ import annotations

from modelbuild.convert.common_keys import EMBEDDING, file_type
from modelbuild.convert.config import Default
from modelbuild.convert.family import Count, Family, KeyRule, Number, TensorRule, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.tokenizers.unigram import unigram_or_sentencepiece

_DEFAULTS: dict[str, Default] = {
    "hidden_size": lambda config: config.get("d_model") or 512,
    "num_layers": 6,
    "d_ff": 2048,
    "d_kv": 64,
    "num_heads": 8,
    "n_positions": 512,
    "relative_attention_num_buckets": 32,
    "layer_norm_epsilon": 1e-6,
    "num_decoder_layers": lambda config: config.get("num_layers"),
    "decoder_start_token_id": 0,
}
_MULTILINGUAL_DEFAULTS: dict[str, Default] = {
    **_DEFAULTS,
    "num_layers": 8,
    "d_ff": 1024,
    "num_heads": 6,
    "feed_forward_proj": "gated-gelu",
}
_HEAD_COUNT, _HEAD_SIZE = "num_heads", "d_kv"


def _encoder_layers(model: Model) -> int:
    return model.config.integer("num_layers", "block_count")


def _decoder_layers(model: Model) -> int:
    return model.config.integer("num_decoder_layers", "block_count")


def _in_encoder(model: Model, block: int) -> bool:
    return block < _encoder_layers(model)


def _in_decoder(model: Model, block: int) -> bool:
    return block < _decoder_layers(model)


def _is_gated(model: Model, _block: int) -> bool:
    return model.config.text("feed_forward_proj", "relu").startswith("gated-")


def _has_distances(model: Model, block: int) -> bool:
    """The table of distances stands in the first block and serves all, but in UMT5 each block has its own."""
    return block == 0 or model.hf_class.startswith("UMT5")


def _attention(stack: str, layer: int, name: str, target: str) -> tuple[TensorRule, ...]:
    source = f"{stack}.block.{{b}}.layer.{layer}.{name}."
    where = _in_encoder if stack == "encoder" else _in_decoder
    return (
        matrix(f"{source}q", f"{target}_q", "inner hidden", when=where),
        matrix(f"{source}k", f"{target}_k", "inner hidden", when=where),
        matrix(f"{source}v", f"{target}_v", "inner hidden", when=where),
        matrix(f"{source}o", f"{target}_o", "hidden inner", when=where),
    )


def _stack(stack: str, short: str) -> tuple[TensorRule, ...]:
    """Self-attention, feed-forward and norms of the encoder or the decoder."""
    block, target = f"{stack}.block.{{b}}.layer.", f"{short}.blk.{{b}}."
    last = 1 if stack == "encoder" else 2
    inside = _in_encoder if stack == "encoder" else _in_decoder
    forward = f"{block}{last}.DenseReluDense."

    def gated(model: Model, number: int) -> bool:
        return inside(model, number) and _is_gated(model, number)

    def plain(model: Model, number: int) -> bool:
        return inside(model, number) and not _is_gated(model, number)

    return (
        *_attention(stack, 0, "SelfAttention", f"{target}attn"),
        matrix(
            f"{block}0.SelfAttention.relative_attention_bias",
            f"{target}attn_rel_b",
            "buckets table_heads",
            when=lambda model, number: inside(model, number) and _has_distances(model, number),
        ),
        norm(f"{block}0.layer_norm", f"{target}attn_norm", when=inside),
        matrix(f"{forward}wi", f"{target}ffn_up", "d_ff hidden", when=plain),
        matrix(f"{forward}wi_0", f"{target}ffn_gate", "d_ff hidden", when=gated),
        matrix(f"{forward}wi_1", f"{target}ffn_up", "d_ff hidden", when=gated),
        matrix(f"{forward}wo", f"{target}ffn_down", "hidden d_ff", when=inside),
        norm(f"{block}{last}.layer_norm", f"{target}ffn_norm", when=inside),
        norm(f"{stack}.final_layer_norm", f"{short}.output_norm"),
    )


_EMBEDDING = matrix("shared", "token_embd", "? hidden")
_ENCODER = _stack("encoder", "enc")
_CROSS = "decoder.block.{b}.layer.1."
_DECODER = (
    *_stack("decoder", "dec"),
    *_attention("decoder", 1, "EncDecAttention", "dec.blk.{b}.cross_attn"),
    # Stored by the first releases, used by nobody.
    matrix(
        f"{_CROSS}EncDecAttention.relative_attention_bias",
        "dec.blk.{b}.cross_attn_rel_b",
        "buckets table_heads",
        weight="optional",
    ),
    norm(f"{_CROSS}layer_norm", "dec.blk.{b}.cross_attn_norm", when=_in_decoder),
    matrix("lm_head", "output", "vocab hidden", weight="untied"),
)
_SIZE_KEYS: tuple[KeyRule, ...] = (
    Count("context_length", "n_positions", "context_length", 512),
    EMBEDDING,
    Count("feed_forward_length", "d_ff", "feed_forward_length"),
    Count("block_count", "num_layers", "block_count"),
)
_ATTENTION_KEYS: tuple[KeyRule, ...] = (
    Count("attention.head_count", _HEAD_COUNT, "head_count"),
    Count("attention.key_length", _HEAD_SIZE, "head_dimension"),
    Count("attention.value_length", _HEAD_SIZE, "head_dimension"),
    Number("attention.layer_norm_epsilon", "layer_norm_epsilon"),
    Count("attention.relative_buckets_count", "relative_attention_num_buckets"),
    Number("attention.layer_norm_rms_epsilon", "layer_norm_epsilon"),
)
_SIZES = {
    "table_heads": lambda model: model.config.integer(_HEAD_COUNT, "head_count"),
    "inner": lambda model: model.config.integer(_HEAD_COUNT, "head_count") * model.config.integer(_HEAD_SIZE),
    "d_ff": lambda model: model.config.integer("d_ff", "feed_forward_length"),
    "buckets": lambda model: model.config.integer("relative_attention_num_buckets"),
}
_SAME = ("decoder.embed_tokens.weight", "encoder.embed_tokens.weight", "shared.weight")


def _translator(classes: tuple[str, ...], defaults: dict[str, Default]) -> Family:
    return Family(
        classes=classes,
        architecture="t5",
        defaults=defaults,
        keys=(
            *_SIZE_KEYS,
            Count("decoder_block_count", "num_decoder_layers", "block_count"),
            *_ATTENTION_KEYS,
            Count("decoder_start_token_id", "decoder_start_token_id"),
            file_type,
        ),
        tensors=(_EMBEDDING, *_ENCODER, *_DECODER),
        block_count=lambda model: max(_encoder_layers(model), _decoder_layers(model)),
        sizes=_SIZES,
        same=_SAME,
        tokenizer=unigram_or_sentencepiece,
    )


FAMILIES = (
    _translator(("T5ForConditionalGeneration", "T5WithLMHeadModel"), _DEFAULTS),
    _translator(("MT5ForConditionalGeneration", "UMT5ForConditionalGeneration", "UMT5Model"), _MULTILINGUAL_DEFAULTS),
    Family(
        classes=("T5EncoderModel",),
        architecture="t5encoder",
        defaults=_DEFAULTS,
        keys=(*_SIZE_KEYS, *_ATTENTION_KEYS, file_type),
        tensors=(_EMBEDDING, *_ENCODER),
        sizes=_SIZES,
        same=_SAME,
        tokenizer=unigram_or_sentencepiece,
    ),
)
