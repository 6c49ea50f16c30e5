"""EuroBERT and what is built on it: Llama's blocks looking both ways, for embeddings."""

from __future__ import annotations

from collections.abc import Iterable

from modelbuild.convert.common_keys import COMMON_KEYS, not_causal
from modelbuild.convert.families.llama import same_heads
from modelbuild.convert.families.standard import attention, block_norms, embeddings, gated_mlp, rename_to_standard
from modelbuild.convert.family import Family, Value
from modelbuild.convert.model import Model
from modelbuild.convert.pooling import pooling_keys
from modelbuild.convert.tokenizers.bpe import byte_level_bpe
from modelbuild.formats.gguf.writer import KeyValue, boolean


def _tokenizer(model: Model) -> Iterable[KeyValue]:
    """Texts begin without a start token, unless the tokenizer's settings ask for one."""
    yield boolean("tokenizer.ggml.add_bos_token", False)
    yield from byte_level_bpe(model)


FAMILY = Family(
    classes=("EuroBertModel", "JinaEmbeddingsV5Model"),
    architecture="eurobert",
    defaults={
        "num_key_value_heads": same_heads,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "rope_theta": 250000.0,
    },
    keys=(*COMMON_KEYS, not_causal, Value("rope.scaling.type", "none"), pooling_keys),
    tensors=(*embeddings(output="absent"), *block_norms(), *attention(), *gated_mlp()),
    rename=rename_to_standard,
    drop=("lm_head.weight",),
    tokenizer=_tokenizer,
    pre_tokenizers=("llama-bpe", "jina-v5-nano"),
)
