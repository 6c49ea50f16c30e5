"""adapter_config.json of a LoRA adapter: how strong each change is, and what an adapter file cannot express.

Sources: PEFT (LoraConfig, get_pattern_key) and mlx-lm (lora_parameters), October 2026.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TypeVar

from modelbuild.convert.checkpoint import ADAPTER_CONFIG, Checkpoint
from modelbuild.convert.config import Config
from modelbuild.errors import InputError, UnsupportedError, printable
from modelbuild.late_pattern import late_pattern
from modelbuild.records import record

T = TypeVar("T", int, float)
#: Names of modules with dots between their parts, as people and the library write them; it takes them as expressions.
_PLAIN_NAME = late_pattern(r"(?:\^|\^?\.\*\\\.)?([A-Za-z0-9_]+(?:\\?\.[A-Za-z0-9_]+)*)\$?", re.ASCII)
_WHOLE, _PART = "^", "."
_PATTERN_LIMIT = 100_000
#: First words of `init_lora_weights` whose matrices are split off those of the base, which lose as much.
_SPLITTING = ("pissa", "corda", "olora", "loftq", "lora_ga")


@record
class AdapterConfig:
    """alpha: `adapter.lora.alpha`. rank: of modules that no pattern names. invocation_tokens: what switches it on.

    ranks, alphas: by name of a module or its end, the first that fits counts; alphas as the file gives them.
        A name that begins with "^" is the whole one, one that begins with a dot never is.
    parameters: names of changed parameters that are no modules, or their ends.
    """

    path: str
    alpha: float
    rank: int
    plain_alpha: float
    is_rank_stabilized: bool = False
    ranks: Mapping[str, int] | None = None
    alphas: Mapping[str, float] | None = None
    invocation_tokens: tuple[int, ...] = ()
    parameters: frozenset[str] = frozenset()

    def rank_of(self, module: str) -> int:
        """The rank that a module must have."""
        return _first_fit(self.ranks or {}, module, self.rank)

    def does_target(self, parameter: str) -> bool:
        """Is this parameter, which is no module of its own, changed?"""
        parts = parameter.split(".")
        return any(".".join(parts[start:]) in self.parameters for start in range(len(parts)))

    def factor_of(self, module: str) -> float:
        """What B is multiplied by, because the runtime scales all modules by alpha divided by their rank."""
        rank, alpha = self.rank_of(module), _first_fit(self.alphas or {}, module, self.plain_alpha)
        share = alpha / self.plain_alpha
        return share * math.sqrt(rank / self.rank) if self.is_rank_stabilized else share


def read_adapter_config(files: Checkpoint) -> AdapterConfig:
    """The configuration of an adapter.

    Raises InputError CONFIG for what is missing or malformed; UnsupportedError ADAPTER, by name, for what an adapter
    file cannot express: DoRA, replaced modules, biases, a base that was changed as well.
    """
    path = files.files.get(ADAPTER_CONFIG)
    if path is None:
        message = f"open {ADAPTER_CONFIG}: no such file or directory"
        raise InputError("CONFIG", message, path=files.origin, hint="an adapter needs it beside its weights")
    config = Config(path, files.read_object(ADAPTER_CONFIG, nonfinite=True))
    _refuse_other_methods(config)
    mlx = config.section("lora_parameters")
    if mlx is not None:
        return _mlx(config, mlx)
    rank, alpha = config.integer("r", "head_dimension"), config.number("lora_alpha", positive=False)
    _check_alpha(config, "lora_alpha", alpha)
    is_stabilized = config.boolean("use_rslora", False)
    tokens = tuple(config.integers("alora_invocation_tokens") or ())
    if config.get("invocation_string") and not tokens:
        hint = "write the ids of its tokens as alora_invocation_tokens"
        raise config.error("invocation_string", "a text that switches the adapter on, but not its tokens", hint)
    return AdapterConfig(
        str(path),
        alpha * math.sqrt(rank) if is_stabilized else alpha,
        rank,
        alpha,
        is_stabilized,
        {name: _rank(config, name, value) for name, value in _patterns(config, "rank_pattern").items()},
        {name: _alpha(config, name, value) for name, value in _patterns(config, "alpha_pattern").items()},
        tokens,
        frozenset(config.texts("target_parameters") or ()),
    )


def _mlx(config: Config, settings: Config) -> AdapterConfig:
    """Its scale is the whole factor, whatever the rank.

    Until June 2024 it was multiplied by alpha divided by the rank; `lora_layers` became `num_layers` in September, and
    adapters that have an alpha under the old name are of that time.
    """
    rank = settings.integer("rank", "head_dimension")
    scale = settings.optional_number("scale", positive=False)
    alpha = settings.optional_number("alpha", positive=False)
    if scale is not None:
        is_old = alpha is not None and config.has("lora_layers")
        alpha = scale * (alpha if alpha is not None and is_old else rank)
    elif alpha is None:
        alpha = settings.number("scale", positive=False)
    _check_alpha(settings, "scale", alpha)
    return AdapterConfig(str(config.path), alpha, rank, alpha)


def _check_alpha(config: Config, key: str, alpha: float) -> None:
    if not alpha:
        raise config.error(
            key, "0 means that the adapter changes nothing; the runtime would take it for no scale at all"
        )


def _refuse_other_methods(config: Config) -> None:
    kind = config.text(("peft_type", "fine_tune_type"), "LORA")
    reasons = {
        "peft_type": "" if kind.upper() == "LORA" else f"an adapter of type {printable(kind)!r}",
        "use_dora": "DoRA, which also scales the rows of its modules" if config.boolean("use_dora", False) else "",
        "modules_to_save": "whole modules that were trained" if config.get("modules_to_save") else "",
        "bias": "biases that were trained" if config.text("bias", "none") != "none" else "",
        "lora_bias": "biases of its own" if config.boolean("lora_bias", False) else "",
        "init_lora_weights": _splitting(config.get("init_lora_weights")),
        "layer_replication": "a base with blocks that are repeated" if config.get("layer_replication") else "",
        "trainable_token_indices": "embeddings of single tokens" if config.get("trainable_token_indices") else "",
        "use_qalora": "QALoRA, which averages inputs" if config.boolean("use_qalora", False) else "",
        "use_bdlora": "BD-LoRA, whose matrices are made of blocks" if config.get("use_bdlora") else "",
        "kasa_config": "KaSA, which cuts the base's matrices" if config.get("kasa_config") else "",
    }
    for key, what in reasons.items():
        if what:
            raise UnsupportedError(
                "ADAPTER",
                f"the adapter has {what}; an adapter file holds pairs of small matrices alone",
                path=config.path,
                key=key,
                hint="merge the adapter into its base model and build from the merged checkpoint",
            )


def _splitting(kind: object) -> str:
    if not isinstance(kind, str) or not kind.lower().startswith(_SPLITTING):
        return ""
    return f"matrices that began as parts of the base's ({printable(kind)}), which was changed with them"


def _patterns(config: Config, key: str) -> Mapping[str, object]:
    section = config.section(key)
    values = section.values if section is not None else {}
    if len(values) > _PATTERN_LIMIT:
        raise config.error(key, f"{len(values):,} patterns, at most {_PATTERN_LIMIT:,} allowed")
    for name in values:
        if not _PLAIN_NAME.fullmatch(name):
            hint = "name the modules, for example 'q_proj' or 'layers.0.self_attn.q_proj'"
            raise config.error(key, f"{printable(name)!r} is an expression, which is not evaluated", hint)
    return {_spelled(name): value for name, value in values.items()}


def _spelled(pattern: str) -> str:
    """The name in a pattern, behind a sign of how much of a module's name it must be."""
    match = _PLAIN_NAME.fullmatch(pattern)
    assert match is not None, f"{pattern} is no plain name"
    start = pattern[: match.start(1)]
    return f"{_PART if '*' in start else start}{match[1]}".replace("\\.", ".")


def _rank(config: Config, name: str, value: object) -> int:
    return Config(config.path, {f"rank_pattern.{name}": value}).integer(f"rank_pattern.{name}", "head_dimension")


def _alpha(config: Config, name: str, value: object) -> float:
    return Config(config.path, {f"alpha_pattern.{name}": value}).number(f"alpha_pattern.{name}", positive=False)


def _first_fit(patterns: Mapping[str, T], module: str, default: T) -> T:
    """The value of the first pattern that is the module's name or the end of it at a dot."""
    return next((value for name, value in patterns.items() if _fits(name, module)), default)


def _fits(name: str, module: str) -> bool:
    if name.startswith(_WHOLE):
        return module == name.removeprefix(_WHOLE)
    return module.endswith(name) if name.startswith(_PART) else f".{module}".endswith(f".{name}")
