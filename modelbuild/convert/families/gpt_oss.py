"""gpt-oss: experts in MXFP4, whose bits are kept, and attention sinks."""

from __future__ import annotations

from modelbuild.convert.common_keys import COMMON_KEYS
from modelbuild.convert.families.standard import BLOCK, LAYER, attention, embeddings
from modelbuild.convert.family import Count, Family, exact, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.planned import Source
from modelbuild.convert.tokenizers.bpe import byte_level_bpe
from modelbuild.convert.transforms import ColumnMap, Transposed, take_second_axis

_EXPERTS = f"{LAYER}mlp.experts."
_GATE, _UP, _DOWN = f"{BLOCK}ffn_gate_exps", f"{BLOCK}ffn_up_exps", f"{BLOCK}ffn_down_exps"


def _alternate_rows(source: Source, _model: Model, _block: int) -> tuple[Source, Source]:
    """Even rows are the gate's, odd rows the other's."""
    rows = source.shape[1]
    return take_second_axis(source, 0, rows, 2), take_second_axis(source, 1, rows, 2)


def _alternate_columns(source: Source, _model: Model, _block: int) -> tuple[Source, Source]:
    """The same for biases, one row per expert."""
    columns = source.shape[-1]
    return ColumnMap(source, tuple(range(0, columns, 2))), ColumnMap(source, tuple(range(1, columns, 2)))


def _transpose_and_alternate(source: Source, model: Model, block: int) -> tuple[Source, Source]:
    """Experts in plain numbers are stored with inputs as rows."""
    return _alternate_rows(Transposed(source), model, block)


def _transpose(source: Source, _model: Model, _block: int) -> Source:
    return Transposed(source)


FAMILY = Family(
    classes=("GptOssForCausalLM",),
    architecture="gpt-oss",
    defaults={
        "head_dim": 64,
        "num_key_value_heads": 8,
        "sliding_window": 128,
        "rope_theta": 150000.0,
        "rms_norm_eps": 1e-5,
        "num_local_experts": 128,
        "num_experts_per_tok": 4,
        "max_position_embeddings": 131072,
        "rope_scaling": {
            "rope_type": "yarn",
            "factor": 32.0,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "original_max_position_embeddings": 4096,
        },
    },
    keys=(
        *COMMON_KEYS,
        Count("attention.sliding_window", "sliding_window"),
        Count("expert_feed_forward_length", "intermediate_size", "feed_forward_length"),
    ),
    tensors=(
        *embeddings(),
        norm(f"{LAYER}input_layernorm", f"{BLOCK}attn_norm"),
        norm(f"{LAYER}post_attention_layernorm", f"{BLOCK}post_attention_norm"),
        *attention(bias="required"),
        exact(f"{LAYER}self_attn.sinks", f"{BLOCK}attn_sinks.weight", "heads"),
        matrix(f"{LAYER}mlp.router", f"{BLOCK}ffn_gate_inp", "experts hidden", bias="required"),
        exact(f"{_EXPERTS}down_proj_blocks", f"{_DOWN}.weight", "experts hidden ff", presence="optional", first=True),
        exact(
            f"{_EXPERTS}gate_up_proj_blocks",
            (f"{_GATE}.weight", f"{_UP}.weight"),
            "experts 2*ff hidden",
            _alternate_rows,
            presence="optional",
            first=True,
        ),
        exact(f"{_EXPERTS}down_proj_bias", f"{_DOWN}.bias", "experts hidden"),
        exact(f"{_EXPERTS}gate_up_proj_bias", (f"{_GATE}.bias", f"{_UP}.bias"), "experts 2*ff", _alternate_columns),
        exact(f"{_EXPERTS}down_proj", f"{_DOWN}.weight", "experts ff hidden", _transpose, presence="optional"),
        exact(
            f"{_EXPERTS}gate_up_proj",
            (f"{_GATE}.weight", f"{_UP}.weight"),
            "experts hidden 2*ff",
            _transpose_and_alternate,
            presence="optional",
        ),
    ),
    tokenizer=byte_level_bpe,
    pre_tokenizers=("gpt-4o",),
)
