"""The plan: actions in an order where each follows those it depends on, and what the engine needs to run them."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path

from modelbuild.model_name import ModelName
from modelbuild.plan.action import ActionInput, FileInput, Input, Json, Kind
from modelbuild.plan.wishes import Wishes
from modelbuild.recipe.resolved import ResolvedModel
from modelbuild.records import record


@record
class ImportWork:
    """Make a file a blob, unchanged."""

    path: Path


@record
class TextWork:
    """Store small content."""

    data: bytes


#: Role of the input that holds the GGUF an assemble action starts from; further shards have a number behind it.
SOURCE_ROLE = "source"
#: Preset that only rewrites a GGUF in the canonical order, as `llama-quantize COPY` does.
COPY_PRESET = "COPY"
#: Part of a checkpoint that becomes a projector.
PROJECTOR_PART = "projector"


@record
class AdapterBaseFiles:
    """Where the model that an adapter belongs to is described: the files of its checkpoint, or a GGUF."""

    gguf: Path | None = None
    checkpoint: Mapping[str, Path] | None = None
    origin: str = ""


@record
class AssembleWork:
    """Make one GGUF: convert a checkpoint or an adapter, or re-type or rewrite a GGUF.

    checkpoint: relative file names and where each file is; None when the sources are the GGUF inputs (`source_role`).
    base: of an adapter, whose files then stand in `checkpoint`; None for everything else.
    part: of a checkpoint that makes several files: "" for the text model, PROJECTOR_PART for the vision part.
    preset: the type to make, "" for the source's own precision, COPY_PRESET to rewrite only.
    keeps_embedded: lay the file out as Ollama's own writer does, with the tensors that llama.cpp does not know.
    added: text keys to add to the metadata. allow_requantize: quantize what is quantized already.
    wishes: types of single tensors, an importance matrix, metadata.
    """

    checkpoint: Mapping[str, Path] | None
    origin: str
    preset: str
    intermediate: str = ""
    pre_tokenizer: str = ""
    keeps_embedded: bool = False
    added: tuple[tuple[str, str], ...] = ()
    allow_requantize: bool = False
    wishes: Wishes = field(default_factory=Wishes)
    base: AdapterBaseFiles | None = None
    part: str = ""


def source_role(index: int) -> str:
    """The role of source number `index`, from 0."""
    return SOURCE_ROLE if index == 0 else f"{SOURCE_ROLE}-{index + 1}"


class SlotRole(enum.StrEnum):
    """Where a new layer of a model belongs, in this order."""

    FILES = "files"
    EXTRA = "extra"
    TEXTS = "texts"


@record
class LayerSlot:
    """A layer to be: its kind, the action that makes its blob, and the `from` text it carries.

    role: FILES for the model's own GGUF files, EXTRA for adapters and drafts, TEXTS for template, system and so on.
    """

    kind: str
    action: str
    from_: str = ""
    role: SlotRole = SlotRole.FILES


@record
class PublishWork:
    """Put a model together and write its manifest.

    target: the name it is published under, spelt as on disk. base: the stored model whose layers it takes over, if any.
    replacements: for each model layer of the base the action that makes a new one, or ""; () keeps all.
    slots: new layers in final order.
    remote_model: set for a remote model, which has no base layers.
    """

    model: ResolvedModel
    target: ModelName
    base: ModelName | None
    replacements: tuple[str, ...]
    slots: tuple[LayerSlot, ...]
    remote_host: str = ""
    remote_model: str = ""

    def slots_of(self, role: SlotRole) -> tuple[LayerSlot, ...]:
        """The new layers of one role, in order."""
        return tuple(slot for slot in self.slots if slot.role is role)


@record
class ExportWork:
    """Write a file beside the store. kind: "gguf" for the weights, "modelfile" for the model `target`."""

    kind: str
    path: Path
    target: ModelName


Work = ImportWork | TextWork | AssembleWork | PublishWork | ExportWork


@record
class Action:
    """One cacheable step. `id` is unique in a plan and stable between runs; `work` is not part of the key."""

    id: str
    kind: Kind
    title: str
    inputs: tuple[Input, ...]
    options: Mapping[str, Json]
    work: Work

    @property
    def needs(self) -> tuple[str, ...]:
        """The ids of the actions whose results it uses."""
        return tuple(item.action for item in self.inputs if isinstance(item, ActionInput))


@record
class Plan:
    """All actions for the wanted models, dependencies first.

    watched_directories: directories whose listing decided something.
    base_manifests: stored manifests that the plan was made from.
    """

    actions: tuple[Action, ...]
    models: tuple[ModelName, ...]
    watched_directories: tuple[Path, ...] = ()
    base_manifests: tuple[Path, ...] = ()

    @property
    def input_files(self) -> tuple[Path, ...]:
        """Every file of the user that the plan reads, sorted."""
        paths = {item.path for action in self.actions for item in action.inputs if isinstance(item, FileInput)}
        return tuple(sorted(paths))
