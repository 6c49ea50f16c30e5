"""Which actions make the GGUF layers of one model: imports, conversions, quantization, merging, rewriting.

Source: Ollama's create behaviour, August 2026, where it is right; a GGUF that needs no change is kept as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from modelbuild.errors import InputError, Position, RecipeError, printable
from modelbuild.formats.files import does_exist, is_directory, list_directory
from modelbuild.formats.gguf.reader import GgufHeader, open_gguf
from modelbuild.formats.gguf.types import is_quantized
from modelbuild.model_name import ModelName
from modelbuild.plan.action import ActionInput, DigestInput, FileInput, Input, Json, Kind
from modelbuild.plan.adapter_work import AdapterFiles, base_files, base_input, check_gguf_adapter, find_adapter
from modelbuild.plan.gguf_units import GgufFile, GgufUnit, group_files
from modelbuild.plan.graph import (
    COPY_PRESET,
    PROJECTOR_PART,
    Action,
    AdapterBaseFiles,
    AssembleWork,
    ImportWork,
    LayerSlot,
    SlotRole,
    source_role,
)
from modelbuild.plan.layer_kind import classify_gguf
from modelbuild.plan.located import located
from modelbuild.plan.pre_tokenizer import check_pre_tokenizer
from modelbuild.plan.weights_facts import WeightsFacts, facts_of_header, facts_of_preset
from modelbuild.plan.weights_files import (
    checkpoint_input,
    config_of,
    directories_of,
    entries_of,
    file_input,
    is_fp8,
)
from modelbuild.plan.wishes import IMATRIX_ROLE, Wishes
from modelbuild.recipe.resolved import FileEntry, FromPath, ResolvedModel
from modelbuild.similar_names import similar_names
from modelbuild.sources.identify import SourceKind, identify_files, identify_path
from modelbuild.store.store import Store

#: What FP8 weights become when no type is asked for.
_FP8_PRESET = "Q8_0"
#: How Ollama shows the type of a model that was FP8 and is kept in 16 bits.
_FP8_FILE_TYPES = ("F16", "BF16")
#: Fields that say the type of the weights, or of the draft: where errors about it are.
_QUANTIZE_FIELDS, _DRAFT_FIELDS = ("quantize", "quantization"), ("draft_quantize",)
_PROJECTOR_TYPE_KEYS = ("clip.projector_type", "clip.vision.projector_type")

WeightsInput = ActionInput | DigestInput


class Registry(Protocol):
    """Where actions go, and what is known of those that are there."""

    store: Store
    directories: list[Path]

    def add_action(self, action: Action) -> None:
        """Add an action."""

    def action(self, action_id: str) -> Action:
        """The action of that id, which has been added."""


class WeightsPlanner:
    """Plans the GGUF layers of one model.

    slots: the new layers. inputs: all layers of kind model that it will have, for models that build on it.
    replacements: for each model layer of the base the action that makes a new one, or "" to keep it; () keeps all.
    """

    def __init__(self, registry: Registry, model: ResolvedModel, name: ModelName) -> None:
        self._registry = registry
        self._store = registry.store
        self._model = model
        self._name = name
        self._check_wishes()
        self.slots: list[LayerSlot] = []
        self.inputs: list[WeightsInput] = []
        self.replacements: tuple[str, ...] = ()

    def _check_wishes(self) -> None:
        """Wishes about types have no effect where nothing is quantized; better to say so than to ignore them."""
        field = next((field for field in ("tensor_types", "imatrix") if getattr(self._model, field)), "")
        if not field:
            return
        from modelbuild.quantize.presets import find_preset

        preset = find_preset(self._model.quantize)
        if preset is None or not is_quantized(preset.default):
            message = f"{field!r} has no effect without quantization"
            hint = "add 'quantize: Q4_K_M', or remove it"
            raise RecipeError("CONFLICT", message, self._model.position_of(field) or self._model.position, hint=hint)

    # -- the base's weights ----------------------------------------------------------------------------------------

    def add_base(self, layers: Sequence[WeightsInput], file_type: str = "") -> None:
        """Take over the model layers of a base, quantized anew where the model asks for another type.

        file_type: what the base's config says, if it has one; it saves opening files of which nothing can come.
        """
        check_pre_tokenizer(self._model, is_checkpoint=False)
        self.inputs = list(layers)
        wanted = self._wanted_preset()
        if not wanted and file_type not in _FP8_FILE_TYPES and not self._model.metadata:
            return
        made = []
        for index, layer in enumerate(layers):
            facts = self._facts_of(layer)
            preset = wanted or (_FP8_PRESET if facts.is_fp8 and not facts.is_quantized else "")
            if not preset or facts.is_of_type(preset):
                preset = COPY_PRESET if self._model.metadata else ""
            if not preset:
                made.append("")
                continue
            if preset != COPY_PRESET:
                self._check_source(facts, preset)
            wishes = Wishes.of(self._model)
            action = self._assemble_gguf(f"weights-{index}", [layer], preset, wishes, keeps_embedded=facts.is_embedding)
            made.append(action)
            self.inputs[index] = ActionInput(source_role(0), made[-1])
        if any(made):
            self.replacements = tuple(made)

    def _facts_of(self, layer: WeightsInput) -> WeightsFacts:
        """What can be told now about a layer that exists or is yet to be made."""
        if isinstance(layer, DigestInput):
            return facts_of_header(open_gguf(self._store.blobs.path(layer.digest)))
        action = self._registry.action(layer.action)
        work = action.work
        if isinstance(work, ImportWork):
            return facts_of_header(open_gguf(work.path))
        if not isinstance(work, AssembleWork):
            raise AssertionError(f"{action.id} makes no weights")
        return facts_of_preset(work.preset, is_embedding=work.keeps_embedded)

    # -- files -----------------------------------------------------------------------------------------------------

    def add_files(self) -> None:
        """Plan the model's own files: a checkpoint, or GGUF files."""
        base = self._model.base
        if isinstance(base, FromPath):
            with located(base.position):
                kind = identify_path(base.path)
            check_pre_tokenizer(self._model, is_checkpoint=kind is SourceKind.CHECKPOINT)
            if kind is SourceKind.CHECKPOINT:
                self._add_checkpoint_directory(base.path, base.position)
            elif kind is SourceKind.GGUF_DIRECTORY:
                self._add_gguf_directory(base.path, base.position)
            else:
                self._add_gguf_files(entries_of(base.path, base.position), "")
            return
        files = self._model.files
        paths = {entry.name: self._path_of(entry) for entry in files}
        with located(files[0].position):
            is_checkpoint = identify_files(paths) is SourceKind.CHECKPOINT
        check_pre_tokenizer(self._model, is_checkpoint=is_checkpoint)
        if is_checkpoint:
            self._add_checkpoint(paths, [checkpoint_input(entry) for entry in files], "files", files[0].position)
        else:
            self._add_gguf_files(files, "")

    def add_adapters(self) -> None:
        """Plan the adapters, which stand behind the model's own layers."""
        entries = self._model.adapters
        if not entries:
            return
        with located(entries[0].position):
            adapter = find_adapter(entries, self._path_of)
            if adapter is not None:
                self._add_adapter(adapter)
                return
            identify_files({entry.name: self._path_of(entry) for entry in entries})
            if len(entries) > 1:
                message = "only one adapter is currently supported"
                raise InputError("ADAPTER", message, hint="merge the adapters into one file")
        self._add_gguf_files(entries, "adapter")

    def _add_adapter(self, adapter: AdapterFiles) -> None:
        """Plan the conversion of an adapter; it follows its base, whose layout it takes."""
        base = base_input(self.inputs)
        preset = "F16" if self._model.rewrite_gguf else ""  # Ollama's converter knows no other type of adapters
        work = AssembleWork(adapter.files, adapter.origin, preset, base=self._describe_base())
        action = self._assemble("adapter", work, (*adapter.inputs, base))
        self.slots.append(LayerSlot("adapter", action, "", SlotRole.EXTRA))
        if is_directory(Path(adapter.origin)):
            self._registry.directories.append(Path(adapter.origin))

    def _describe_base(self) -> AdapterBaseFiles:
        """Where the base of an adapter can be read about."""
        return base_files(base_input(self.inputs), self._registry.action, self._store.blobs.path)

    def add_drafts(self) -> None:
        """Plan the draft model, which stands last."""
        entries = self._model.draft_files
        if not entries:
            return
        origin, first = "draft_files", self._path_of(entries[0])
        if len(entries) == 1 and is_directory(first):
            origin, entries = str(first), self._list_checkpoint(first, entries[0].position)
        paths = {entry.name: self._path_of(entry) for entry in entries}
        with located(entries[0].position):
            if identify_files(paths) is not SourceKind.CHECKPOINT:
                self._add_gguf_files(entries, "draft")
                return
            config = config_of(paths)
        preset = self._wanted_of_draft()
        work = AssembleWork(paths, origin, preset or (_FP8_PRESET if is_fp8(config) else ""))
        action = self._assemble("draft", work, tuple(checkpoint_input(entry) for entry in entries))
        self._add_slot("draft", action, "", SlotRole.EXTRA)

    def _list_checkpoint(self, path: Path, position: Position) -> tuple[FileEntry, ...]:
        """The files of a checkpoint directory; the directory is watched from now on."""
        from modelbuild.convert.checkpoint import Checkpoint

        with located(position):
            checkpoint = Checkpoint.of_directory(path)
        self._registry.directories.extend(directories_of(path, checkpoint.files))
        return tuple(FileEntry(name, file, position) for name, file in checkpoint.files.items())

    def _add_checkpoint_directory(self, path: Path, position: Position) -> None:
        entries = self._list_checkpoint(path, position)
        files = {entry.name: self._path_of(entry) for entry in entries}
        self._add_checkpoint(files, [checkpoint_input(entry) for entry in entries], str(path), position)

    def _add_checkpoint(self, files: dict[str, Path], inputs: Sequence[Input], origin: str, position: Position) -> None:
        preset = self._wanted_preset()
        with located(position):
            config = config_of(files)
        preset = preset or (_FP8_PRESET if is_fp8(config) else "")
        work = AssembleWork(
            files,
            origin,
            preset,
            self._model.intermediate,
            self._model.pre_tokenizer,
            allow_requantize=self._model.allow_requantize,
            wishes=Wishes.of(self._model),
        )
        self._add_slot("model", self._assemble("weights", work, tuple(inputs)), "", SlotRole.FILES)
        from modelbuild.convert.vision_classes import has_vision_weights, projector_kind

        if projector_kind(config) and has_vision_weights(files, origin):
            vision = AssembleWork(files, origin, "", part=PROJECTOR_PART)
            self._add_slot("projector", self._assemble("projector", vision, tuple(inputs)), "", SlotRole.FILES)

    def _add_gguf_directory(self, path: Path, position: Position) -> None:
        """All GGUF files of a directory: one model, whole or in shards, with its projector."""
        self._registry.directories.append(path)
        with located(position):
            found = [item for item in list_directory(path) if item.suffix == ".gguf"]
            entries = [FileEntry(item.name, item, position) for item in found]
            models = [
                unit.name for unit in group_files([self._open(entry, "") for entry in entries]) if unit.kind == "model"
            ]
            if len(models) > 1:
                shown = ", ".join(printable(name) for name in models[:5])
                message = f"{len(models)} models in this directory: {shown}"
                raise InputError(
                    "CONFLICT", message, path=path, hint=f"name one of them, for example {path / models[0]}"
                )
        self._add_gguf_files(entries, "")

    def _add_gguf_files(self, entries: Sequence[FileEntry], role: str) -> None:
        """role: "" for the model's own files, "adapter" or "draft"."""
        files = [self._open(entry, role) for entry in entries]
        with located(entries[0].position):
            units = group_files(files)
        for unit in units:
            with located(unit.files[0].entry.position):
                if unit.kind == "adapter" and self.inputs:
                    check_gguf_adapter(unit.header, self._describe_base())
                self._add_unit(unit, role)

    def _open(self, entry: FileEntry, role: str) -> GgufFile:
        path = self._path_of(entry)
        with located(entry.position):
            header = open_gguf(path)
            kind = "draft" if role == "draft" else classify_gguf(header)
        if role == "adapter" and kind != "adapter":
            kind = "model"  # Ollama keeps a plain model given as an adapter as a second model layer
        return GgufFile(entry, header, kind)

    def _add_unit(self, unit: GgufUnit, role: str) -> None:
        what = f"{role or 'file'}:{_shown(unit.name)}"
        facts = facts_of_header(unit.header, embedding=unit.is_embedding)
        preset = self._preset_of(unit, facts)
        if preset and not facts.is_of_type(preset):
            self._check_source(facts, preset, is_draft=unit.kind == "draft")
        elif not self._must_rewrite(unit):
            action = self._import_or_complete(what, unit)
            from_ = unit.name if isinstance(self._registry.action(action).work, ImportWork) else ""
            self._add_slot(unit.kind, action, from_, SlotRole.EXTRA if role else SlotRole.FILES)
            return
        else:
            preset = COPY_PRESET
        _check_architecture(unit.header)
        sources = [file_input(file.entry, index) for index, file in enumerate(unit.files)]
        wishes = Wishes.of(self._model)
        if unit.kind != "model":  # what a recipe wishes for single tensors and keys concerns the model itself
            wishes = Wishes(ollama_rules=wishes.ollama_rules)
        action = self._assemble_gguf(what, sources, preset, wishes, keeps_embedded=unit.is_embedding)
        self._add_slot(unit.kind, action, "", SlotRole.EXTRA if role else SlotRole.FILES)

    def _preset_of(self, unit: GgufUnit, facts: WeightsFacts) -> str:
        if unit.kind == "draft":
            return self._wanted_of_draft()
        if unit.kind != "model":
            return ""
        return self._wanted_preset() or (_FP8_PRESET if facts.is_fp8 and not facts.is_quantized else "")

    def _must_rewrite(self, unit: GgufUnit) -> bool:
        """Shards have to become one file; everything else is rewritten only on demand, and where Ollama does."""
        if unit.is_sharded or (self._model.metadata and unit.kind == "model"):
            return True
        return self._model.rewrite_gguf and unit.kind == "model" and not unit.is_embedding

    def _import_or_complete(self, what: str, unit: GgufUnit) -> str:
        """Keep a file as it is; on demand a projector gets the type that Ollama would add."""
        is_typed = any(unit.header.kv.get_string(key) for key in _PROJECTOR_TYPE_KEYS)
        is_vision = unit.header.kv.get_boolean("clip.has_vision_encoder")
        if self._model.rewrite_gguf and unit.kind == "projector" and is_vision and not is_typed:
            sources = [file_input(unit.files[0].entry, 0)]
            return self._assemble_gguf(what, sources, COPY_PRESET, Wishes(), keeps_embedded=True, added=(_MLP,))
        return self._import(what, unit.files[0].entry)

    # -- actions ---------------------------------------------------------------------------------------------------

    def _add_slot(self, kind: str, action: str, from_: str, role: SlotRole) -> None:
        self.slots.append(LayerSlot(kind, action, from_, role))
        if kind == "model":
            self.inputs.append(ActionInput(source_role(0), action))

    def _import(self, what: str, entry: FileEntry) -> str:
        action = Action(
            id=f"{self._name}/{what}",
            kind=Kind.IMPORT,
            title=f"import {_shown(entry.name)}",
            inputs=(file_input(entry, 0),),
            options={},
            work=ImportWork(self._path_of(entry)),
        )
        self._registry.add_action(action)
        return action.id

    def _assemble_gguf(
        self,
        what: str,
        sources: Sequence[Input],
        preset: str,
        wishes: Wishes,
        *,
        keeps_embedded: bool = False,
        added: tuple[tuple[str, str], ...] = (),
    ) -> str:
        work = AssembleWork(
            None,
            str(self._name),
            preset,
            self._model.intermediate,
            keeps_embedded=keeps_embedded,
            added=added,
            allow_requantize=self._model.allow_requantize,
            wishes=wishes,
        )
        by_tensor = [replace(item, by_tensor=True) if isinstance(item, FileInput) else item for item in sources]
        return self._assemble(what, work, tuple(by_tensor))

    def _assemble(self, what: str, work: AssembleWork, inputs: tuple[Input, ...]) -> str:
        options: dict[str, Json] = {
            "preset": work.preset,
            "intermediate": work.intermediate,
            "pre_tokenizer": work.pre_tokenizer,
            "keeps_embedded": work.keeps_embedded,
            "part": work.part,
            "directory": _directory_name(work),
            "added": dict(work.added),
            **work.wishes.to_json(),
        }
        if work.wishes.imatrix is not None:
            inputs = (*inputs, FileInput(IMATRIX_ROLE, work.wishes.imatrix))
        action = Action(
            id=f"{self._name}/{what}",
            kind=Kind.ASSEMBLE,
            title=_title(work, len(inputs)),
            inputs=inputs,
            options={key: value for key, value in options.items() if value},
            work=work,
        )
        self._registry.add_action(action)
        return action.id

    def _path_of(self, entry: FileEntry) -> Path:
        if isinstance(entry.content, Path):
            return entry.content
        path = self._store.blobs.path(entry.content)
        if not does_exist(path):
            message = f"no blob {entry.content} in the store {self._store.root}"
            raise RecipeError("MISSING", message, entry.position, hint="give the path of the file instead of a digest")
        return path

    # -- types -----------------------------------------------------------------------------------------------------

    def _wanted_preset(self) -> str:
        return self._preset(self._model.quantize, _QUANTIZE_FIELDS)

    def _wanted_of_draft(self) -> str:
        return self._preset(self._model.draft_quantize, _DRAFT_FIELDS)

    def _preset(self, text: str, fields: Sequence[str]) -> str:
        """The name of the preset that is asked for in one of the fields; "" when none is."""
        if not text:
            return ""
        from modelbuild.quantize.presets import PRESETS, find_preset

        preset = find_preset(text)
        if preset is not None:
            return preset.name
        names = list(PRESETS)
        near = similar_names(text.upper(), names, n=3, cutoff=0.5)
        raise RecipeError(
            "UNKNOWN",
            f"unknown quantization type {printable(text)!r}",
            self._model.position_of(*fields) or self._model.position,
            hint=f"did you mean {' or '.join(near)}?" if near else f"known types: {', '.join(names)}",
        )

    def _check_source(self, facts: WeightsFacts, preset: str, *, is_draft: bool = False) -> None:
        """Quantizing what is quantized already loses quality twice, so it has to be asked for."""
        if facts.is_quantized and not self._model.allow_requantize:
            message = f"the weights are {facts.described} already; making {preset} of them would lose quality twice"
            fields = _DRAFT_FIELDS if is_draft else _QUANTIZE_FIELDS
            position = self._model.position_of(*fields) or self._model.position
            hint = "start from F32, F16 or BF16 weights, or add 'allow_requantize: true'"
            raise RecipeError("REQUANTIZEDRAFT" if is_draft else "REQUANTIZE", message, position, hint=hint)


_MLP = (_PROJECTOR_TYPE_KEYS[0], "mlp")


def _shown(name: str) -> str:
    """A file's name in ids and titles, which terminals and pictures show; never cut, so that two stay two."""
    return printable(name, len(name))


def _title(work: AssembleWork, source_count: int) -> str:
    if work.checkpoint is not None:
        what = "convert adapter" if work.base else "convert projector of" if work.part else "convert"
        origin = _shown(Path(work.origin).name)
    elif work.preset != COPY_PRESET:
        what, origin = "quantize", work.origin
    else:
        what, origin = "merge" if source_count > 1 else "rewrite", work.origin
    return f"{what} {origin}" if work.preset in ("", COPY_PRESET) else f"{what} {origin} to {work.preset}"


def _directory_name(work: AssembleWork) -> str:
    """The name of a checkpoint's directory, which becomes the name of the model where nothing else names it."""
    from modelbuild.convert.checkpoint import Checkpoint

    return "" if work.checkpoint is None else Checkpoint(work.checkpoint, work.origin).directory_name


def _check_architecture(header: GgufHeader) -> None:
    """llama.cpp, and with it Ollama, rewrites and quantizes only what it knows; other models may need other rules."""
    from modelbuild.plan.architectures import is_known_architecture

    arch = header.kv.get_string("general.architecture") or ""
    if not is_known_architecture(arch):
        message = f"unknown architecture {printable(arch)!r}"
        raise InputError("ARCH", message, path=header.path, key="general.architecture", hint="import it as it is")
