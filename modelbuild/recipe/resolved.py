"""What a recipe says about each model once everything is resolved; plan and engine see nothing else of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from modelbuild.digest import Digest
from modelbuild.errors import Position
from modelbuild.model_name import ModelName


@dataclass(frozen=True, slots=True)
class FromName:
    """`from: NAME`: a model in the store (or, with a remote host, on another server)."""

    text: str
    position: Position


@dataclass(frozen=True, slots=True)
class FromPath:
    """`from: ./PATH`: a GGUF file or a checkpoint directory."""

    path: Path
    position: Position


@dataclass(frozen=True, slots=True)
class FromModel:
    """`from: {model: ID}`: another model of the same recipe."""

    id: str
    position: Position


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of `files`, `adapters` or `draft_files`: the name it goes by, and where its content is."""

    name: str
    content: Path | Digest
    position: Position


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """One model to build. Empty text fields mean "as the base has it".

    id: the model's key in the recipe. Exactly one of `base` and `files` is set.
    cleared: what the model must not take over from its base: "template", "system", "license", "parameters", "messages",
    "adapters", "draft_files", "renderer", "parser", "requires", "capabilities", or "parameters.NAME" for one of them.
    parameters: values as they are stored, None included.
    allow_requantize: quantize weights that are quantized already.
    """

    id: str
    name: ModelName
    position: Position
    base: FromName | FromPath | FromModel | None = None
    files: tuple[FileEntry, ...] = ()
    adapters: tuple[FileEntry, ...] = ()
    draft_files: tuple[FileEntry, ...] = ()
    quantize: str = ""
    quantize_position: Position | None = None
    draft_quantize: str = ""
    allow_requantize: bool = False
    intermediate: str = ""
    pre_tokenizer: str = ""
    rewrite_gguf: bool = False
    remote_host: str = ""
    template: str = ""
    system: str = ""
    licenses: tuple[str, ...] = ()
    parameters: Mapping[str, object] | None = None
    messages: tuple[Mapping[str, object], ...] = ()
    renderer: str = ""
    parser: str = ""
    requires: str = ""
    info: Mapping[str, object] | None = None
    cleared: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Recipe:
    """A resolved recipe: its models in an order where each comes after those it builds on."""

    path: Path
    models: tuple[ResolvedModel, ...]
    files: tuple[Path, ...]
    warnings: tuple[str, ...] = ()
