"""MPT: distances instead of positions, fused queries, keys and values, biases or none."""

from __future__ import annotations

from collections.abc import Iterable

from modelbuild.convert.common_keys import EMBEDDING, block_count
from modelbuild.convert.config import Config
from modelbuild.convert.families.standard import BLOCK
from modelbuild.convert.family import Count, Family, Value, exact, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.tokenizers.bpe import byte_level_bpe
from modelbuild.convert.tokenizers.sentencepiece import is_sentencepiece_file, sentencepiece
from modelbuild.formats.gguf.writer import KeyValue, boolean, f32, u32

_LAYER = "transformer.blocks.{b}."
#: Special tokens of the models with SentencePiece, whose files do not tell them.
_PAD, _END, _UNKNOWN = 3, 1, 0


def _attention(config: Config) -> Config:
    return config.section("attn_config") or Config(config.path, {})


def _kv_heads(config: Config) -> object:
    return _attention(config).get("kv_n_heads") or None


def _attention_keys(model: Model) -> Iterable[KeyValue]:
    settings = _attention(model.config)
    limit = settings.optional_number("clip_qkv")
    if limit is not None:
        yield f32(model.key("attention.clamp_kqv"), limit)
    slopes = settings.number("alibi_bias_max", 8.0) if settings.boolean("alibi", True) else 0.0
    yield f32(model.key("attention.max_alibi_bias"), slopes)


def _tokenizer(model: Model) -> Iterable[KeyValue]:
    files = model.tokenizer_files
    if files.document or not is_sentencepiece_file(files):
        yield from byte_level_bpe(model)
        return
    yield from sentencepiece(model)
    yield boolean("tokenizer.ggml.add_bos_token", False)
    yield u32("tokenizer.ggml.padding_token_id", _PAD)
    yield u32("tokenizer.ggml.eos_token_id", _END)
    yield u32("tokenizer.ggml.unknown_token_id", _UNKNOWN)


FAMILY = Family(
    classes=("MPTForCausalLM", "MptForCausalLM"),
    architecture="mpt",
    defaults={
        "d_model": 2048,
        "n_heads": 16,
        "n_layers": 24,
        "max_seq_len": 2048,
        "hidden_size": lambda config: config.get("d_model"),
        "num_key_value_heads": _kv_heads,
    },
    keys=(
        Count("context_length", "max_seq_len", "context_length"),
        EMBEDDING,
        block_count,
        Value("feed_forward_length", lambda model: 4 * model.hidden),
        Value("attention.head_count", lambda model: model.heads),
        Count("attention.head_count_kv", "num_key_value_heads", "head_count"),
        Value("attention.layer_norm_epsilon", 1e-5),
        _attention_keys,
    ),
    tensors=(
        matrix("transformer.wte", "token_embd", "? hidden"),
        matrix("transformer.wpe", "position_embd", "positions hidden", weight="optional"),
        norm("transformer.norm_f", "output_norm", bias="optional"),
        matrix("lm_head", "output", "vocab hidden", weight="optional"),
        norm(f"{_LAYER}norm_1", f"{BLOCK}attn_norm", bias="optional"),
        matrix(f"{_LAYER}attn.Wqkv", f"{BLOCK}attn_qkv", "hidden+2*kv hidden", bias="optional"),
        norm(f"{_LAYER}attn.q_ln", f"{BLOCK}attn_q_norm", "hidden", weight="optional", bias="optional"),
        norm(f"{_LAYER}attn.k_ln", f"{BLOCK}attn_k_norm", "kv", weight="optional", bias="optional"),
        matrix(f"{_LAYER}attn.out_proj", f"{BLOCK}attn_output", "hidden hidden", bias="optional"),
        norm(f"{_LAYER}norm_2", f"{BLOCK}ffn_norm", bias="optional"),
        matrix(f"{_LAYER}ffn.up_proj", f"{BLOCK}ffn_up", "4*hidden hidden", bias="optional"),
        exact(f"{_LAYER}ffn.act.scales", f"{BLOCK}ffn.act.scales", "4*hidden", presence="optional"),
        matrix(f"{_LAYER}ffn.down_proj", f"{BLOCK}ffn_down", "hidden 4*hidden", bias="optional"),
    ),
    sizes={"positions": lambda model: model.config.integer("max_seq_len", "context_length")},
    tokenizer=_tokenizer,
    pre_tokenizers=("mpt", "olmo"),
)
