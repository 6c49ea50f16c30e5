"""Latent attention with blocks for further tokens: GLM-4.7-Flash; with an indexer that chooses what attention sees:
DeepSeek 3.2 and GLM 5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from modelbuild.convert.config import Default
from modelbuild.convert.families.deepseek import DEEPSEEK_TENSORS, LATENT_KEYS, LATENT_SIZES, rope_size
from modelbuild.convert.families.glm import NEXT_TOKEN_TENSORS, glm_moe_tokenizer, predicted_layers
from modelbuild.convert.families.standard import BLOCK, LAYER
from modelbuild.convert.family import Count, Family, KeyRule, TensorRule, Tokenizer, Value, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.rope import partial_factor
from modelbuild.convert.tokenizers.bpe import byte_level_bpe
from modelbuild.formats.gguf.writer import KeyValue, bool_array

_INDEXER = f"{LAYER}self_attn.indexer."


def indexer_keys(model: Model) -> Iterable[KeyValue]:
    """Sizes of the indexer; which blocks have one of their own, where the configuration tells it."""
    for rule in (
        Count("attention.indexer.head_count", "index_n_heads", "head_count"),
        Count("attention.indexer.key_length", "index_head_dim", "head_dimension"),
        Count("attention.indexer.top_k", "index_topk"),
    ):
        yield from rule(model)
    kinds = model.config.texts("indexer_types")
    if kinds is not None:
        yield bool_array(model.key("attention.indexer.types"), [kind == "full" for kind in kinds])


INDEXER_TENSORS: tuple[TensorRule, ...] = (
    norm(f"{_INDEXER}k_norm", f"{BLOCK}indexer.k_norm", "index_head", weight="optional", bias="optional"),
    matrix(f"{_INDEXER}weights_proj", f"{BLOCK}indexer.proj", "index_heads hidden", weight="optional"),
    matrix(f"{_INDEXER}wk", f"{BLOCK}indexer.attn_k", "index_head hidden", weight="optional"),
    matrix(f"{_INDEXER}wq_b", f"{BLOCK}indexer.attn_q_b", "index_heads*index_head q_rank", weight="optional"),
)


def indexer_sizes() -> dict[str, Callable[[Model], int | None]]:
    """Sizes that the indexer's shapes name."""
    return {
        "index_head": lambda model: model.config.optional_integer("index_head_dim", "head_dimension"),
        "index_heads": lambda model: model.config.optional_integer("index_n_heads", "head_count"),
    }


def _untie(name: str, model: Model) -> str:
    """An output that is the embedding again is left out."""
    tied = name == "lm_head.weight" and model.config.boolean("tie_word_embeddings", False)
    return "" if tied else name


def _family(
    hf_class: str,
    architecture: str,
    keys: tuple[KeyRule, ...],
    tensors: tuple[TensorRule, ...],
    tokenizer: Tokenizer,
    pre_tokenizers: tuple[str, ...],
) -> Family:
    defaults: dict[str, Default] = {"rms_norm_eps": 1e-6, "rope_theta": 10000.0, "kv_lora_rank": 512}
    return Family(
        classes=(hf_class,),
        architecture=architecture,
        defaults=defaults,
        keys=(*LATENT_KEYS, *keys),
        tensors=(*DEEPSEEK_TENSORS, *tensors, *NEXT_TOKEN_TENSORS),
        rename=_untie,
        sizes={**LATENT_SIZES, **indexer_sizes()},
        block_count=lambda model: model.layers + predicted_layers(model),
        tokenizer=tokenizer,
        pre_tokenizers=pre_tokenizers,
    )


_PREDICTED = Count("nextn_predict_layers", "num_nextn_predict_layers")

FAMILIES = (
    _family(
        "Glm4MoeLiteForCausalLM",
        "deepseek2",
        (Value("nextn_predict_layers", lambda model: predicted_layers(model) or None),),
        (),
        glm_moe_tokenizer,
        ("glm4",),
    ),
    _family(
        "DeepseekV32ForCausalLM",
        "deepseek32",
        (_PREDICTED, indexer_keys),
        INDEXER_TENSORS,
        byte_level_bpe,
        ("deepseek-v3",),
    ),
    _family(
        "GlmMoeDsaForCausalLM",
        "glm-dsa",
        (
            Value("rope.dimension_count", lambda model: int(rope_size(model) * partial_factor(model, 1.0))),
            _PREDICTED,
            indexer_keys,
        ),
        INDEXER_TENSORS,
        glm_moe_tokenizer,
        ("glm4",),
    ),
)
