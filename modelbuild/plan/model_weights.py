"""Which actions make the GGUF layers of one model: imports, conversions, quantization, merging, rewriting.

Source: Ollama's create behaviour, August 2026, where it is right; a GGUF that needs no change is kept as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from modelbuild.errors import InputError, Position, printable
from modelbuild.formats.files import is_directory, list_directory
from modelbuild.formats.gguf.reader import GgufHeader, open_gguf
from modelbuild.model_name import ModelName
from modelbuild.plan.action import ActionInput, DigestInput, Input
from modelbuild.plan.adapter_work import AdapterFiles, base_files, base_input, check_gguf_adapter, find_adapter
from modelbuild.plan.gguf_units import GgufFile, GgufUnit, group_files
from modelbuild.plan.graph import (
    COPY_PRESET,
    PROJECTOR_PART,
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
from modelbuild.plan.wanted_types import WantedTypes
from modelbuild.plan.weights_actions import Registry, WeightsActions, shown_name
from modelbuild.plan.weights_facts import WeightsFacts, facts_of_header, facts_of_preset
from modelbuild.plan.weights_files import checkpoint_input, config_of, directories_of, entries_of, file_input
from modelbuild.plan.wishes import Wishes
from modelbuild.recipe.resolved import FileEntry, FromPath, ResolvedModel
from modelbuild.sources.identify import SourceKind, identify_files, identify_path

#: How Ollama shows the type of a model that was FP8 and is kept in 16 bits.
_FP8_FILE_TYPES = ("F16", "BF16")
_PROJECTOR_TYPE_KEYS = ("clip.projector_type", "clip.vision.projector_type")

WeightsInput = ActionInput | DigestInput


class WeightsPlanner:
    """Plans the GGUF layers of one model.

    slots: the new layers. inputs: all layers of kind model that it will have, for models that build on it.
    replacements: for each model layer of the base the action that makes a new one, or "" to keep it; () keeps all.
    """

    def __init__(self, registry: Registry, model: ResolvedModel, name: ModelName) -> None:
        self._registry = registry
        self._store = registry.store
        self._model = model
        self._types = WantedTypes(model)
        self._types.check_wishes()
        self._actions = WeightsActions(registry, model, name)
        self.slots: list[LayerSlot] = []
        self.inputs: list[WeightsInput] = []
        self.replacements: tuple[str, ...] = ()

    # -- the base's weights ----------------------------------------------------------------------------------------

    def add_base(self, layers: Sequence[WeightsInput], file_type: str = "") -> None:
        """Take over the model layers of a base, quantized anew where the model asks for another type.

        file_type: what the base's config says, if it has one; it saves opening files of which nothing can come.
        """
        check_pre_tokenizer(self._model, is_checkpoint=False)
        self.inputs = list(layers)
        if not self._types.weights and file_type not in _FP8_FILE_TYPES and not self._model.metadata:
            return
        made = []
        for index, layer in enumerate(layers):
            facts = self._facts_of(layer)
            preset = self._types.of_gguf(facts)
            if not preset or facts.is_of_type(preset):
                preset = COPY_PRESET if self._model.metadata else ""
            if not preset:
                made.append("")
                continue
            if preset != COPY_PRESET:
                self._types.check_source(facts, preset)
            what, wishes = f"weights-{index}", Wishes.of(self._model)
            action = self._actions.assemble_gguf(what, [layer], preset, wishes, keeps_embedded=facts.is_embedding)
            made.append(action)
            self.inputs[index] = ActionInput(source_role(0), action)
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
        paths = {entry.name: self._actions.path_of(entry) for entry in files}
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
            adapter = find_adapter(entries, self._actions.path_of)
            if adapter is not None:
                self._add_adapter(adapter)
                return
            identify_files({entry.name: self._actions.path_of(entry) for entry in entries})
            if len(entries) > 1:
                message = "only one adapter is currently supported"
                raise InputError("ADAPTER", message, hint="merge the adapters into one file")
        self._add_gguf_files(entries, "adapter")

    def _add_adapter(self, adapter: AdapterFiles) -> None:
        """Plan the conversion of an adapter; it follows its base, whose layout it takes."""
        base = base_input(self.inputs)
        preset = "F16" if self._model.rewrite_gguf else ""  # Ollama's converter knows no other type of adapters
        work = AssembleWork(adapter.files, adapter.origin, preset, base=self._describe_base())
        action = self._actions.assemble("adapter", work, (*adapter.inputs, base))
        self.slots.append(LayerSlot("adapter", action, "", SlotRole.EXTRA))
        if adapter.directory is not None:
            self._registry.directories.append(adapter.directory)

    def _describe_base(self) -> AdapterBaseFiles:
        """Where the base of an adapter can be read about."""
        return base_files(base_input(self.inputs), self._registry.action, self._store.blobs.path)

    def add_drafts(self) -> None:
        """Plan the draft model, which stands last."""
        entries = self._model.draft_files
        if not entries:
            return
        origin, first = "draft_files", self._actions.path_of(entries[0])
        if len(entries) == 1 and is_directory(first):
            origin, entries = str(first), self._list_checkpoint(first, entries[0].position)
        paths = {entry.name: self._actions.path_of(entry) for entry in entries}
        with located(entries[0].position):
            if identify_files(paths) is not SourceKind.CHECKPOINT:
                self._add_gguf_files(entries, "draft")
                return
            config = config_of(paths)
        work = AssembleWork(paths, origin, self._types.of_checkpoint(config, is_draft=True))
        action = self._actions.assemble("draft", work, tuple(checkpoint_input(entry) for entry in entries))
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
        files = {entry.name: self._actions.path_of(entry) for entry in entries}
        self._add_checkpoint(files, [checkpoint_input(entry) for entry in entries], str(path), position)

    def _add_checkpoint(self, files: dict[str, Path], inputs: Sequence[Input], origin: str, position: Position) -> None:
        with located(position):
            config = config_of(files)
        work = AssembleWork(
            files,
            origin,
            self._types.of_checkpoint(config),
            self._model.intermediate,
            self._model.pre_tokenizer,
            allow_requantize=self._model.allow_requantize,
            wishes=Wishes.of(self._model),
        )
        self._add_slot("model", self._actions.assemble("weights", work, tuple(inputs)), "", SlotRole.FILES)
        from modelbuild.convert.vision_classes import has_vision_weights, projector_kind

        if projector_kind(config) and has_vision_weights(files, origin):
            vision = AssembleWork(files, origin, "", part=PROJECTOR_PART)
            self._add_slot("projector", self._actions.assemble("projector", vision, tuple(inputs)), "", SlotRole.FILES)

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
        path = self._actions.path_of(entry)
        with located(entry.position):
            header = open_gguf(path)
            kind = "draft" if role == "draft" else classify_gguf(header)
        if role == "adapter" and kind != "adapter":
            kind = "model"  # Ollama keeps a plain model given as an adapter as a second model layer
        return GgufFile(entry, header, kind)

    def _add_unit(self, unit: GgufUnit, role: str) -> None:
        what = f"{role or 'file'}:{shown_name(unit.name)}"
        facts = facts_of_header(unit.header, embedding=unit.is_embedding)
        preset = self._type_of(unit, facts)
        if preset and not facts.is_of_type(preset):
            self._types.check_source(facts, preset, is_draft=unit.kind == "draft")
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
        action = self._actions.assemble_gguf(what, sources, preset, wishes, keeps_embedded=unit.is_embedding)
        self._add_slot(unit.kind, action, "", SlotRole.EXTRA if role else SlotRole.FILES)

    def _type_of(self, unit: GgufUnit, facts: WeightsFacts) -> str:
        if unit.kind == "draft":
            return self._types.draft
        return self._types.of_gguf(facts) if unit.kind == "model" else ""

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
            return self._actions.assemble_gguf(what, sources, COPY_PRESET, Wishes(), keeps_embedded=True, added=(_MLP,))
        return self._actions.take_over(what, unit.files[0].entry)

    # -- actions ---------------------------------------------------------------------------------------------------

    def _add_slot(self, kind: str, action: str, from_: str, role: SlotRole) -> None:
        self.slots.append(LayerSlot(kind, action, from_, role))
        if kind == "model":
            self.inputs.append(ActionInput(source_role(0), action))


_MLP = (_PROJECTOR_TYPE_KEYS[0], "mlp")


def _check_architecture(header: GgufHeader) -> None:
    """llama.cpp, and with it Ollama, rewrites and quantizes only what it knows; other models may need other rules."""
    from modelbuild.plan.architectures import is_known_architecture

    arch = header.kv.get_string("general.architecture") or ""
    if not is_known_architecture(arch):
        message = f"unknown architecture {printable(arch)!r}"
        raise InputError("ARCH", message, path=header.path, key="general.architecture", hint="import it as it is")
