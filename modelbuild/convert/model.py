"""One checkpoint under one family: the numbers that keys, shapes and transforms ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from modelbuild.convert import config as names
from modelbuild.convert.checkpoint import CONFIG, Checkpoint
from modelbuild.convert.config import Config
from modelbuild.convert.family import Family
from modelbuild.convert.hub_config import HubConfig
from modelbuild.convert.rope import RopeParameters, read_rope_parameters
from modelbuild.convert.tokenizers.files import TokenizerFiles
from modelbuild.formats.safetensors import StoredTensor

#: Where the header of a GGUF tells the key and value heads of each block, its model has them under this name.
KV_HEADS_BY_BLOCK = "key and value heads by block"


@dataclass(frozen=True)
class Model:
    """What is known before tensors are planned.

    stored: the tensors by the name that rules use, in file order, after dropping and renaming.
    file_type: `general.file_type` of the result. pre_tokenizer: the user's choice, or None.
    """

    family: Family
    hub: HubConfig
    checkpoint: Checkpoint
    config: Config
    file_type: int
    pre_tokenizer: str | None
    stored: Mapping[str, StoredTensor]

    @classmethod
    def of(cls, family: Family, hub: HubConfig, checkpoint: Checkpoint) -> Model:
        """A model without tensors yet."""
        path = checkpoint.files[CONFIG]
        return cls(family, hub, checkpoint, Config(path, hub.values, family.defaults), 0, None, {})

    @cached_property
    def architecture(self) -> str:
        """The GGUF architecture."""
        chosen = self.family.architecture
        return chosen if isinstance(chosen, str) else chosen(self)

    def key(self, name: str) -> str:
        """A metadata key of the architecture."""
        return f"{self.architecture}.{name}"

    @property
    def hf_class(self) -> str:
        """The class of the checkpoint."""
        return self.hub.hf_class

    @property
    def is_of_header(self) -> bool:
        """Is all that is known the header of a GGUF? Then blocks and numbers without a key are unknown."""
        return not self.stored and "architectures" not in self.hub.root

    @cached_property
    def attention_of_header(self) -> list[bool]:
        """For each block, whether it has attention; empty when the header of the GGUF does not tell."""
        heads = self.config.integers(KV_HEADS_BY_BLOCK) or []
        return [number > 0 for number in heads]

    @cached_property
    def root(self) -> Config:
        """config.json without the text model's part laid over it."""
        return Config(self.config.path, self.hub.root)

    @cached_property
    def tokenizer_files(self) -> TokenizerFiles:
        """The tokenizer's files, read once."""
        return TokenizerFiles(self.checkpoint)

    @cached_property
    def rope(self) -> RopeParameters:
        """The rotary embedding's settings."""
        return read_rope_parameters(self.config)

    @cached_property
    def layers(self) -> int:
        """Blocks of the model itself."""
        return self.config.integer(names.BLOCK_COUNT, "block_count")

    @cached_property
    def block_count(self) -> int:
        """Blocks in the file: with those for predicting further tokens, where the family keeps them."""
        return self.family.block_count(self) if self.family.block_count else self.layers

    @cached_property
    def hidden(self) -> int:
        """Width of the residual stream."""
        return self.config.integer(names.EMBEDDING_LENGTH, "embedding_length")

    @cached_property
    def heads(self) -> int:
        """Query heads; InputError CONFIG when there are none."""
        return self._positive(names.HEAD_COUNT)

    @cached_property
    def kv_heads(self) -> int:
        """Key and value heads; as many as query heads when not told."""
        if self.config.optional_integer(names.HEAD_COUNT_KV, "head_count") is None:
            return self.heads
        return self._positive(names.HEAD_COUNT_KV)

    @cached_property
    def head_dim(self) -> int:
        """Width of one head; InputError CONFIG when it is not given and the heads do not divide the width."""
        given = self.config.optional_integer("head_dim", "head_dimension")
        if given is not None:
            return given
        if self.hidden % self.heads:
            key = self.config.find(names.EMBEDDING_LENGTH)[0]
            raise self.config.error(
                key, f"{self.hidden} is not divisible by {self.heads} heads, and head_dim is missing"
            )
        return self.hidden // self.heads

    @cached_property
    def experts(self) -> int:
        """Experts of a layer; 0 for a dense model."""
        return self.config.integer(names.EXPERT_COUNT, "expert_count", 0)

    @cached_property
    def feed_forward(self) -> int | None:
        """Width of the feed-forward part; None when there is none, or one for each block."""
        key, value = self.config.find(names.FEED_FORWARD_LENGTH)
        if isinstance(value, list):
            widths = set(self.config.integers(key, "feed_forward_length") or [])
            return widths.pop() if len(widths) == 1 else None
        return self.config.optional_integer(key, "feed_forward_length")

    def size(self, name: str) -> int | None:
        """A named number for shapes, None when the model has none of that name."""
        own = self.family.sizes.get(name)
        if own is not None:
            return own(self)
        if name == "vocab":
            return self.embedding_rows
        return _SIZES[name](self)

    @cached_property
    def embedding_rows(self) -> int | None:
        """Rows of the stored embedding: what it really has, not what the configuration says."""
        for rule in self.family.tensors:
            if rule.target == "token_embd":
                tensor = self.stored.get(f"{rule.source}.weight")
                return tensor.shape[0] if tensor is not None and tensor.shape else None
        return None

    def _positive(self, keys: tuple[str, ...]) -> int:
        count = self.config.integer(keys, "head_count")
        if not count:
            raise self.config.error(self.config.find(keys)[0], "0 heads")
        return count


_SIZES: Mapping[str, Callable[[Model], int | None]] = {
    "hidden": lambda model: model.hidden,
    "ff": lambda model: model.feed_forward,
    "context": lambda model: model.config.optional_integer(names.CONTEXT_LENGTH, "context_length"),
    "layers": lambda model: model.layers,
    "heads": lambda model: model.heads,
    "kv_heads": lambda model: model.kv_heads,
    "head": lambda model: model.head_dim,
    "q": lambda model: model.heads * model.head_dim,
    "kv": lambda model: model.kv_heads * model.head_dim,
    "experts": lambda model: model.experts,
}
