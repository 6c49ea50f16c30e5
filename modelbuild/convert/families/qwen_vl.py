"""The text parts of Qwen2-VL, Qwen2.5-VL, Qwen3-VL, Qwen3-ASR and Qwen3-Omni: rotary embedding on several axes."""

from __future__ import annotations

from collections.abc import Iterable

from modelbuild.convert.common_keys import COMMON_KEYS, EXPERT_FEED_FORWARD
from modelbuild.convert.families.qwen import (
    QWEN2_ATTENTION,
    QWEN3_ATTENTION,
    QWEN_DEFAULTS,
    dense_mlp,
    expert_sizes,
    experts,
)
from modelbuild.convert.families.standard import (
    BLOCK,
    LAYER,
    block_norms,
    embeddings,
    gated_mlp,
    halve_expert_rows,
)
from modelbuild.convert.family import Family, exact, matrix
from modelbuild.convert.model import Model
from modelbuild.convert.planned import Source
from modelbuild.convert.pooling import pooling_keys
from modelbuild.convert.tokenizers.bpe import byte_level_bpe
from modelbuild.convert.tokenizers.files import content_of
from modelbuild.convert.tokenizers.llama import sentencepiece_or_bpe
from modelbuild.convert.tokenizers.special import special_id_key
from modelbuild.convert.transforms import Transposed
from modelbuild.formats.gguf.writer import KeyValue, u32

_EXPERTS = f"{LAYER}mlp.experts."
_MESSAGE_END = "<|im_end|>"


def _rename(name: str, _model: Model) -> str:
    return name.replace("thinker.", "")


def _deepstack(model: Model) -> Iterable[KeyValue]:
    """How many blocks get features of the picture from inside the vision part."""
    vision = model.root.section("vision_config")
    indexes = vision.integers("deepstack_visual_indexes") if vision else None
    yield u32(model.key("n_deepstack_layers"), len(indexes or []))


def _no_deepstack(model: Model) -> Iterable[KeyValue]:
    yield u32(model.key("n_deepstack_layers"), 0)


def _ends_messages(keys: Iterable[KeyValue], model: Model) -> Iterable[KeyValue]:
    """The end of a message ends the text; it also stands for the first token, which is never added."""
    decoder = model.tokenizer_files.config.get("added_tokens_decoder")
    entries = decoder.items() if isinstance(decoder, dict) else ()
    numbers = [number for number, entry in entries if content_of(entry) == _MESSAGE_END and number.isdecimal()]
    yield from keys
    for kind in ("bos", "eos"):
        if numbers:
            yield u32(special_id_key(kind), int(numbers[0][:10]))


def _omni_tokenizer(model: Model) -> Iterable[KeyValue]:
    return _ends_messages(byte_level_bpe(model), model)


def _speech_tokenizer(model: Model) -> Iterable[KeyValue]:
    return _ends_messages(sentencepiece_or_bpe(model), model)


def _transpose(source: Source, _model: Model, _block: int) -> Source:
    return Transposed(source)


def _transpose_and_halve(source: Source, model: Model, block: int) -> tuple[Source, Source]:
    return halve_expert_rows(Transposed(source), model, block)


FAMILIES = (
    Family(
        classes=(
            "Qwen2VLForConditionalGeneration",
            "Qwen2VLModel",
            "Qwen2_5_VLForConditionalGeneration",
            "Qwen2_5OmniModel",
        ),
        architecture="qwen2vl",
        defaults={**QWEN_DEFAULTS, "num_key_value_heads": 8, "rms_norm_eps": 1e-5, "rope_theta": 1e6},
        keys=COMMON_KEYS,
        tensors=(*embeddings(), *block_norms(), *QWEN2_ATTENTION, *gated_mlp()),
        rename=_rename,
        tokenizer=sentencepiece_or_bpe,
        pre_tokenizers=("qwen2",),
    ),
    Family(
        classes=("Qwen3VLForConditionalGeneration",),
        architecture="qwen3vl",
        defaults={**QWEN_DEFAULTS, "head_dim": 128, "max_position_embeddings": 128000, "rope_theta": 5e6},
        keys=(*COMMON_KEYS, pooling_keys, _deepstack),
        tensors=(*embeddings(), *block_norms(), *QWEN3_ATTENTION, *gated_mlp()),
        rename=_rename,
        tokenizer=sentencepiece_or_bpe,
        pre_tokenizers=("qwen2",),
    ),
    Family(
        classes=("Qwen3VLMoeForConditionalGeneration",),
        architecture="qwen3vlmoe",
        defaults={
            **QWEN_DEFAULTS,
            "num_key_value_heads": 16,
            "head_dim": 128,
            "max_position_embeddings": 128000,
            "rope_theta": 5e6,
            "num_experts": 60,
            "num_experts_per_tok": 4,
            "moe_intermediate_size": 1408,
        },
        keys=(*COMMON_KEYS, EXPERT_FEED_FORWARD, _deepstack),
        tensors=(
            *embeddings(),
            *block_norms(),
            *QWEN3_ATTENTION,
            matrix(f"{LAYER}mlp.gate", f"{BLOCK}ffn_gate_inp", "experts hidden"),
            exact(
                f"{_EXPERTS}gate_up_proj",
                (f"{BLOCK}ffn_gate_exps.weight", f"{BLOCK}ffn_up_exps.weight"),
                "experts hidden 2*expert_ff",
                _transpose_and_halve,
            ),
            exact(f"{_EXPERTS}down_proj", f"{BLOCK}ffn_down_exps.weight", "experts expert_ff hidden", _transpose),
        ),
        sizes={"expert_ff": expert_sizes},
        rename=_rename,
        tokenizer=byte_level_bpe,
        pre_tokenizers=("qwen2",),
    ),
    Family(
        classes=("Qwen3ASRForConditionalGeneration",),
        architecture="qwen3vl",
        defaults={**QWEN_DEFAULTS, "head_dim": 128},
        keys=(*COMMON_KEYS, pooling_keys, _no_deepstack),
        tensors=(*embeddings(), *block_norms(), *QWEN3_ATTENTION, *gated_mlp()),
        rename=_rename,
        tokenizer=_speech_tokenizer,
        pre_tokenizers=("qwen2",),
    ),
    Family(
        classes=("Qwen3OmniMoeForConditionalGeneration",),
        architecture="qwen3vlmoe",
        defaults={
            **QWEN_DEFAULTS,
            "num_key_value_heads": 4,
            "rope_theta": 1e6,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "moe_intermediate_size": 768,
        },
        keys=(*COMMON_KEYS, EXPERT_FEED_FORWARD, _no_deepstack),
        tensors=(*embeddings(), *block_norms(), *QWEN3_ATTENTION, *dense_mlp(), *experts()),
        sizes={"expert_ff": expert_sizes},
        rename=_rename,
        tokenizer=_omni_tokenizer,
        pre_tokenizers=("qwen2",),
    ),
)
