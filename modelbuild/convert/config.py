"""Typed, ranged access to config.json: every number is checked where it is read.

Keys of `text_config` lie over those of the root. Class defaults of the reference library lie below both, because
published configurations leave out what equals a default.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Final

from modelbuild.errors import InputError, printable
from modelbuild.records import record

UINT32_MAX: Final = (1 << 32) - 1


@record
class Range:
    """Inclusive bounds of an integer."""

    low: int
    high: int


#: Bounds of the quantities that sizes are computed from; what is not listed must fit 32 bits.
RANGES: Final[Mapping[str, Range]] = {
    "block_count": Range(1, 4_096),
    "embedding_length": Range(1, 1 << 20),
    "feed_forward_length": Range(0, 1 << 24),
    "head_count": Range(0, 1 << 16),
    "head_dimension": Range(1, 1 << 16),
    "expert_count": Range(0, 1 << 16),
    "vocab_size": Range(1, 1 << 22),
    "context_length": Range(1, (1 << 31) - 1),
    "count": Range(0, UINT32_MAX),
}

#: The keys under which configurations keep the same quantity, first present wins. Source: spec of the reference.
BLOCK_COUNT = ("n_layers", "num_hidden_layers", "n_layer", "num_layers")
CONTEXT_LENGTH = (
    "max_position_embeddings",
    "n_ctx",
    "n_positions",
    "max_length",
    "max_sequence_length",
    "model_max_length",
)
EMBEDDING_LENGTH = ("hidden_size", "n_embd", "dim")
FEED_FORWARD_LENGTH = (
    "prefix_dense_intermediate_size",
    "dense_intermediate_size",
    "intermediate_size",
    "n_inner",
    "hidden_dim",
)
HEAD_COUNT = ("num_attention_heads", "n_head", "n_heads")
HEAD_COUNT_KV = ("num_key_value_heads", "n_kv_heads")
RMS_EPSILON = ("rms_norm_eps", "norm_eps")
NORM_EPSILON = ("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon")
EXPERT_COUNT = ("num_local_experts", "num_experts", "n_routed_experts")
EXPERT_USED_COUNT = ("num_experts_per_tok", "num_experts_per_token", "top_k_experts")

Default = object | Callable[["Config"], object]
_MISSING = object()


@record
class Config:
    """A configuration object: what the file says, over the defaults of its class."""

    path: Path | str
    values: Mapping[str, object]
    defaults: Mapping[str, Default] = field(default_factory=dict)

    def has(self, key: str) -> bool:
        """Is the key there, in the file or by default? Also true for null."""
        return key in self.values or key in self.defaults

    def get(self, key: str) -> object:
        """The raw value; None when it is missing or null."""
        if key in self.values:
            return self.values[key]
        default = self.defaults.get(key)
        return default(self) if callable(default) else default

    def find(self, keys: Sequence[str]) -> tuple[str, object]:
        """The first of the keys that is present, and its value; the first key and None when there is none.

        A key that is present with null ends the search: the class leaves the value out on purpose.
        """
        for key in keys:
            if self.has(key):
                return key, self.get(key)
        return keys[0], None

    # -- typed -------------------------------------------------------------------------------------------------------

    def optional_integer(self, keys: str | Sequence[str], bounds: str = "count") -> int | None:
        """An integer within the named bounds, or None."""
        key, value = self.find(_keys(keys))
        if value is None:
            return None
        return self._integer(key, value, RANGES[bounds])

    def integer(self, keys: str | Sequence[str], bounds: str = "count", default: int | None = None) -> int:
        """An integer within the named bounds; InputError CONFIG when it is missing and has no default."""
        value = self.optional_integer(keys, bounds)
        if value is not None:
            return value
        if default is not None:
            return default
        raise self.error(_keys(keys)[0], "the key is missing")

    def optional_number(self, keys: str | Sequence[str], *, positive: bool = True) -> float | None:
        """A finite number, above zero unless said otherwise, or None."""
        key, value = self.find(_keys(keys))
        return None if value is None else self._number(key, value, positive=positive)

    def number(self, keys: str | Sequence[str], default: float | None = None, *, positive: bool = True) -> float:
        """A finite number; InputError CONFIG when it is missing and has no default."""
        value = self.optional_number(keys, positive=positive)
        if value is not None:
            return value
        if default is not None:
            return default
        raise self.error(_keys(keys)[0], "the key is missing")

    def boolean(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.error(key, f"true or false expected, found {_shown(value)}")
        return value

    def text(self, keys: str | Sequence[str], default: str = "") -> str:
        """A text."""
        key, value = self.find(_keys(keys))
        if value is None:
            return default
        if not isinstance(value, str):
            raise self.error(key, f"a text expected, found {_shown(value)}")
        return value

    def integers(self, key: str, bounds: str = "count") -> list[int] | None:
        """A list of integers, or None."""
        value = self.get(key)
        if value is None:
            return None
        if not isinstance(value, list):
            raise self.error(key, f"a list of integers expected, found {_shown(value)}")
        return [self._integer(key, item, RANGES[bounds]) for item in value]

    def numbers(self, key: str) -> list[float] | None:
        """A list of finite numbers, or None."""
        value = self.get(key)
        if value is None:
            return None
        if not isinstance(value, list):
            raise self.error(key, f"a list of numbers expected, found {_shown(value)}")
        return [self._number(key, item, positive=False) for item in value]

    def texts(self, key: str) -> list[str] | None:
        """A list of texts, or None."""
        value = self.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.error(key, f"a list of texts expected, found {_shown(value)}")
        return value

    def section(self, key: str) -> Config | None:
        """An object below a key, without defaults, or None."""
        value = self.get(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.error(key, f"an object expected, found {_shown(value)}")
        return Config(self.path, value)

    def error(self, key: str, message: str, hint: str = "") -> InputError:
        """An error that names the file and the key."""
        return InputError("CONFIG", message, path=self.path, key=key, hint=hint)

    def _integer(self, key: str, value: object, bounds: Range) -> int:
        if type(value) is float and value.is_integer() and abs(value) <= UINT32_MAX:
            value = int(value)
        if type(value) is not int:
            raise self.error(key, f"an integer expected, found {_shown(value)}")
        if not bounds.low <= value <= bounds.high:
            raise self.error(key, f"{value} is outside {bounds.low} to {bounds.high}")
        return value

    def _number(self, key: str, value: object, *, positive: bool) -> float:
        if type(value) is not int and type(value) is not float:
            raise self.error(key, f"a number expected, found {_shown(value)}")
        number = float(value)
        if not math.isfinite(number) or (positive and number <= 0):
            raise self.error(key, f"{number} is not a finite number{' above zero' if positive else ''}")
        return number


def _keys(keys: str | Sequence[str]) -> Sequence[str]:
    return (keys,) if isinstance(keys, str) else keys


def _shown(value: object) -> str:
    return printable(repr(value), 40)
