"""ChatGLM and GLM-4-9B: heads in rotary pairs, a quarter of each head turns, gate and up in one matrix."""

from __future__ import annotations

from collections.abc import Iterable

from modelbuild.convert.common_keys import block_count, file_type
from modelbuild.convert.families.glm import with_special_ids
from modelbuild.convert.families.standard import BLOCK, LAYER, attention, block_norms, embeddings
from modelbuild.convert.family import Count, Family, KeyRule, Number, Value, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.rope import partial_factor
from modelbuild.convert.tokenizers.bpe import byte_level_bpe
from modelbuild.formats.gguf.writer import KeyValue, boolean, f32

_SPECIAL = {"eos": "<|endoftext|>", "eot": "<|user|>", "unk": "<|endoftext|>"}
_OLD = "encoder.layers.{b}."
_BASE = 10000


def _tokenizer(model: Model) -> Iterable[KeyValue]:
    return with_special_ids(byte_level_bpe(model), model, _SPECIAL)


def _rename(name: str, _model: Model) -> str:
    name = name.removeprefix("transformer.")
    return "" if name.endswith(".rotary_pos_emb.inv_freq") or name == "rotary_pos_emb.inv_freq" else name


def _kv_heads(model: Model) -> int:
    groups = model.config.optional_integer("multi_query_group_num", "head_count")
    return model.kv_heads if groups is None else groups


def _rotary(model: Model) -> Iterable[KeyValue]:
    size = model.config.optional_integer("attention_dim") or model.hidden // model.heads
    yield from Value("rope.dimension_count", int(size * partial_factor(model, 0.5)))(model)
    yield boolean("tokenizer.ggml.add_bos_token", False)
    ratio = model.config.optional_number("rope_ratio")
    yield f32(model.key("rope.freq_base"), _BASE * (1.0 if ratio is None else ratio))


def _old_head(model: Model) -> int:
    return model.hidden // model.heads


_KEYS: tuple[KeyRule, ...] = (
    Count("context_length", "seq_length", "context_length"),
    Count("embedding_length", ("hidden_size", "n_embed"), "embedding_length"),
    Count("feed_forward_length", ("ffn_hidden_size", "intermediate_size"), "feed_forward_length"),
    block_count,
    Value("attention.head_count", lambda model: model.heads),
    Value("attention.head_count_kv", _kv_heads),
    Number("attention.layer_norm_rms_epsilon", "layernorm_epsilon", 1e-5),
    file_type,
    _rotary,
)
_SIZES = {"groups": lambda model: _kv_heads(model) * _old_head(model)}

FAMILIES = (
    Family(
        classes=("ChatGLMModel", "ChatGLMForConditionalGeneration"),
        architecture="chatglm",
        defaults={"seq_length": lambda config: config.get("hidden_size")},
        keys=_KEYS,
        tensors=(
            matrix("embedding.word_embeddings", "token_embd", "? hidden"),
            norm("encoder.final_layernorm", "output_norm"),
            matrix("output_layer", "output", "vocab hidden", weight="optional"),
            norm(f"{_OLD}input_layernorm", f"{BLOCK}attn_norm"),
            matrix(
                f"{_OLD}self_attention.query_key_value", f"{BLOCK}attn_qkv", "hidden+2*groups hidden", bias="optional"
            ),
            matrix(f"{_OLD}self_attention.dense", f"{BLOCK}attn_output", "hidden hidden", bias="optional"),
            norm(f"{_OLD}post_attention_layernorm", f"{BLOCK}ffn_norm"),
            matrix(f"{_OLD}mlp.dense_h_to_4h", f"{BLOCK}ffn_up", "2*width hidden", bias="optional"),
            matrix(f"{_OLD}mlp.dense_4h_to_h", f"{BLOCK}ffn_down", "hidden width", bias="optional"),
        ),
        sizes={
            **_SIZES,
            "width": lambda model: model.config.optional_integer("ffn_hidden_size", "feed_forward_length"),
        },
        rename=_rename,
        tokenizer=_tokenizer,
        pre_tokenizers=("chatglm-bpe",),
    ),
    Family(
        classes=("GlmForCausalLM",),
        architecture="chatglm",
        defaults={
            "num_key_value_heads": 2,
            "seq_length": lambda config: config.get("hidden_size"),
            "head_dim": 128,
        },
        keys=_KEYS,
        tensors=(
            *embeddings(),
            *block_norms(),
            *attention(bias="optional"),
            matrix(f"{LAYER}mlp.gate_up_proj", f"{BLOCK}ffn_up", "2*ff hidden"),
            matrix(f"{LAYER}mlp.down_proj", f"{BLOCK}ffn_down", "hidden ff"),
        ),
        tokenizer=_tokenizer,
        pre_tokenizers=("chatglm-bpe", "glm4"),
    ),
)
