"""What a recipe says about each model once everything is resolved; plan and engine see nothing else of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path

from modelbuild.digest import Digest
from modelbuild.errors import Position
from modelbuild.model_name import ModelName
from modelbuild.records import record


@record
class RecipeWarning:
    """Something in a recipe that is allowed but hardly meant."""

    code: str
    message: str
    position: Position

    def __str__(self) -> str:
        return f"{self.position}: {self.message}"


@record
class FromName:
    """`from: NAME`: a model in the store (or, with a remote host, on another server)."""

    text: str
    position: Position


@record
class FromPath:
    """`from: ./PATH`: a GGUF file or a checkpoint directory."""

    path: Path
    position: Position


@record
class FromModel:
    """`from: {model: ID}`: another model of the same recipe."""

    id: str
    position: Position


@record
class FileEntry:
    """One file of `files`, `adapters` or `draft_files`: the name it goes by, and where its content is."""

    name: str
    content: Path | Digest
    position: Position


@record
class TensorTypeRule:
    """One rule of `tensor_types`: tensors whose name has a match of the pattern get the type, in upper case."""

    pattern: str
    type: str
    position: Position


@record
class MetadataValue:
    """A GGUF key to set, or to remove (None). type: GGUF's name for it, e.g. "uint32"; empty when it follows."""

    value: str | int | float | bool | Sequence[str | int | float | bool] | None
    type: str
    position: Position


@record
class Output:
    """A file to write beside the store. kind: "gguf" or "modelfile"."""

    kind: str
    path: Path
    position: Position


@record
class ResolvedModel:
    """One model to build. Empty text fields mean "as the base has it".

    id: the model's key in the recipe, for a variant followed by `:` and the values of its matrix. key: the key alone.
    Exactly one of `base` and `files` is set.
    cleared: what the model must not take over from its base: "template", "system", "license", "parameters", "messages",
    "adapters", "draft_files", "renderer", "parser", "requires", "capabilities", or "parameters.NAME" for one of them.
    parameters: values as they are stored, None included.
    allow_requantize: quantize weights that are quantized already.
    tensor_types: in order, the first rule that matches decides. metadata: by GGUF key.
    positions: where the value of each field stands, for errors that show later.
    """

    id: str
    name: ModelName
    position: Position
    base: FromName | FromPath | FromModel | None = None
    files: tuple[FileEntry, ...] = ()
    adapters: tuple[FileEntry, ...] = ()
    draft_files: tuple[FileEntry, ...] = ()
    quantize: str = ""
    draft_quantize: str = ""
    allow_requantize: bool = False
    intermediate: str = ""
    tensor_types: tuple[TensorTypeRule, ...] = ()
    imatrix: Path | None = None
    pre_tokenizer: str = ""
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)
    rewrite_gguf: bool = False
    outputs: tuple[Output, ...] = ()
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
    key: str = ""
    positions: Mapping[str, Position] = field(default_factory=dict)

    def position_of(self, *fields: str) -> Position | None:
        """Where the first of these fields stands that the recipe has; None when it has none of them."""
        return next((self.positions[name] for name in fields if name in self.positions), None)


@record
class Recipe:
    """A resolved recipe: its models in an order where each comes after those it builds on.

    files: everything that was read, directories: everything that was listed; a change of one is a change of the recipe.
    environment: the variables of the environment that were asked for, None where there was no such variable.
    groups: names for sets of models, each with the ids of its models; a model with a matrix is such a name, too.
    """

    path: Path
    models: tuple[ResolvedModel, ...]
    files: tuple[Path, ...]
    warnings: tuple[RecipeWarning, ...] = ()
    directories: tuple[Path, ...] = ()
    environment: tuple[tuple[str, str | None], ...] = ()
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
