"""From resolved models to a plan: which actions make them, and in which order."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from modelbuild.digest import Digest, digest_of
from modelbuild.errors import InputError, Position, ProblemCollector, RecipeError, UsageError, printable
from modelbuild.formats.gguf.reader import GgufHeader, open_gguf
from modelbuild.model_name import ModelName, parse_name
from modelbuild.plan.action import ActionInput, DigestInput, FileInput, Input, Json, Kind
from modelbuild.plan.graph import (
    COPY_PRESET,
    SOURCE_ROLE,
    Action,
    AssembleWork,
    ImportWork,
    LayerSlot,
    Plan,
    PublishWork,
    TextWork,
)
from modelbuild.plan.layer_kind import classify_gguf, shard_count
from modelbuild.recipe.reference import CLOUD_HOST, split_source
from modelbuild.recipe.resolved import FileEntry, FromModel, FromName, FromPath, Recipe, ResolvedModel
from modelbuild.sources.identify import SourceKind, identify_files, identify_path
from modelbuild.store.go_json import encode_go_json
from modelbuild.store.store import Store


def make_plan(recipe: Recipe, store: Store, wanted: Sequence[str] = ()) -> Plan:
    """The plan for the wanted models (keys or names; all when empty) and what they build on.

    Reads headers and directory listings, never weights, and writes nothing. All problems are raised together.
    """
    planner = _Planner(store, {model.id: model for model in recipe.models})
    problems = ProblemCollector()
    for model in _select(recipe.models, wanted):
        with problems.collect():
            planner.add(model)
    problems.finish()
    return planner.plan()


def _select(models: Sequence[ResolvedModel], wanted: Sequence[str]) -> list[ResolvedModel]:
    if not wanted:
        return list(models)
    chosen: set[str] = set()
    for text in wanted:
        matches = [model for model in models if text in (model.id, str(model.name), str(model.name).split(":")[0])]
        if not matches:
            names = [model.id or str(model.name) for model in models]
            near = difflib.get_close_matches(text, names, n=3) or names
            raise UsageError(
                "UNKNOWN", f"no model {printable(text)!r} in the recipe", hint=f"there is {', '.join(near)}"
            )
        chosen.update(model.id for model in matches)
    by_id = {model.id: model for model in models}
    for model_id in list(chosen):
        base = by_id[model_id].base
        while isinstance(base, FromModel):
            chosen.add(base.id)
            base = by_id[base.id].base
    return [model for model in models if model.id in chosen]


@dataclass(slots=True)
class _Weights:
    """The GGUF layers that a model will have, each as an input that another model could use."""

    inputs: list[tuple[str, ActionInput | DigestInput]] = field(default_factory=list)


class _Planner:
    """Collects actions; knows which layers each planned model gets."""

    def __init__(self, store: Store, models: dict[str, ResolvedModel]) -> None:
        self.store = store
        self.models = models
        self._spellings = store.spellings()
        self._actions: dict[str, Action] = {}
        self.weights: dict[str, _Weights] = {}
        self._names: list[ModelName] = []
        self.directories: list[Path] = []
        self.manifests: list[Path] = []

    def plan(self) -> Plan:
        """What has been added so far."""
        return Plan(
            tuple(self._actions.values()),
            tuple(self._names),
            tuple(dict.fromkeys(self.directories)),
            tuple(dict.fromkeys(self.manifests)),
        )

    def add(self, model: ResolvedModel) -> None:
        """Plan one model; those it builds on were added before."""
        name = self.spelling(model.name)
        _ModelPlanner(self, model, name).add()
        self._names.append(name)
        self._spellings.add(name)

    def spelling(self, name: ModelName) -> ModelName:
        """The name as it is, or will be, spelt in the store."""
        return self._spellings.of(name)

    def add_action(self, action: Action) -> None:
        """Add an action; the same import for two models is one action."""
        self._actions[action.id] = action


class _ModelPlanner:
    """Plans one model."""

    def __init__(self, planner: _Planner, model: ResolvedModel, name: ModelName) -> None:
        self._planner = planner
        self._store = planner.store
        self._model = model
        self._name = name
        self._slots: list[LayerSlot] = []
        self._weights = _Weights()
        self._replacements: list[str] = []

    def add(self) -> None:
        """Add the actions of the model to the plan."""
        model, base_name, base_input = self._model, None, None
        remote_host, remote_model = self._remote()
        if not remote_model:
            if isinstance(model.base, FromName | FromModel):
                base_name, base_input = self._add_base(model.base)
            else:
                self._add_files()
            for entry in model.adapters:
                self._add_gguf_entry(entry, "adapter")
            for entry in model.draft_files:
                self._add_gguf_entry(entry, "draft")
        self._add_texts()
        self._planner.weights[model.id] = self._weights
        self._add_publish(base_name, base_input, remote_host, remote_model)

    def _remote(self) -> tuple[str, str]:
        """The host and the name there when the model runs on another server, else two empty texts."""
        base = self._model.base
        if not isinstance(base, FromName):
            return "", ""
        with _located(base.position):
            reference, source = split_source(base.text)
            if source == "cloud" or self._model.remote_host:
                parse_name(reference)
                return self._model.remote_host or CLOUD_HOST, reference
        return "", ""

    # -- bases ---------------------------------------------------------------------------------------------------

    def _add_base(self, base: FromName | FromModel) -> tuple[ModelName, Input]:
        if isinstance(base, FromModel):
            other = self._planner.models[base.id]
            name = self._planner.spelling(other.name)
            self._weights.inputs = list(self._planner.weights[base.id].inputs)
            base_input: Input = ActionInput("base", f"{name}/publish")
        else:
            name = parse_name(split_source(base.text)[0])
            base_input = self._stored_base(name, base)
        if self._model.quantize:
            self._quantize_base()
        return name, base_input

    def _stored_base(self, name: ModelName, base: FromName) -> Input:
        with _located(base.position):
            found = self._store.find(name)
        if found is None:
            stored = [str(item.name) for item in self._store.models()]
            near = difflib.get_close_matches(str(name), stored, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else "a file or directory is named with ./ in front"
            raise RecipeError(
                "MISSING", f"no model {str(name)!r} in the store {self._store.root}", base.position, hint=hint
            )
        manifest, digest = found
        self._planner.manifests.append(self._store.manifest_path(name))
        for layer in manifest.of_kind("model"):
            self._weights.inputs.append(("model", DigestInput(SOURCE_ROLE, layer.digest)))
        return DigestInput("base", digest)

    def _quantize_base(self) -> None:
        """Replace every model layer of the base that is not of the wanted type yet."""
        preset = self._preset()
        models = [item for kind, item in self._weights.inputs if kind == "model"]
        if all(self._has_type(item, preset) for item in models):
            return
        for index, item in enumerate(models):
            self._replacements.append(self._assemble_gguf(f"weights-{index}", item, preset))
        self._weights.inputs = [("model", ActionInput(SOURCE_ROLE, action)) for action in self._replacements]

    def _has_type(self, item: ActionInput | DigestInput, preset: str) -> bool:
        """Is this stored layer of the wanted type? Unknown (so no) for layers that are yet to be made."""
        if isinstance(item, ActionInput):
            return False
        from modelbuild.quantize.presets import find_preset

        wanted = find_preset(preset)
        file_type = open_gguf(self._store.blobs.path(item.digest)).kv.get_u32("general.file_type")
        return wanted is not None and file_type == wanted.file_type

    # -- files ---------------------------------------------------------------------------------------------------

    def _add_files(self) -> None:
        model = self._model
        if isinstance(model.base, FromPath):
            path, position = model.base.path, model.base.position
            with _located(position):
                is_checkpoint = identify_path(path) is SourceKind.CHECKPOINT
            if is_checkpoint:
                self._add_checkpoint_directory(path, position)
            else:
                self._add_gguf_entry(FileEntry(path.name, path, position), "")
        else:
            paths = {entry.name: self._path_of(entry) for entry in model.files}
            with _located(model.files[0].position):
                is_checkpoint = identify_files(paths) is SourceKind.CHECKPOINT
            if is_checkpoint:
                inputs = [
                    _checkpoint_input(entry.name, entry.content)
                    if isinstance(entry.content, Path)
                    else _file_input(entry)
                    for entry in model.files
                ]
                self._add_checkpoint(paths, inputs, "files")
            else:
                for entry in model.files:
                    self._add_gguf_entry(entry, "")

    def _add_checkpoint_directory(self, path: Path, position: Position) -> None:
        from modelbuild.convert.checkpoint import Checkpoint

        with _located(position):
            checkpoint = Checkpoint.of_directory(path)
        self._planner.directories.extend(_directories_of(path, checkpoint.files))
        inputs = [_checkpoint_input(name, file) for name, file in checkpoint.files.items()]
        self._add_checkpoint(dict(checkpoint.files), inputs, str(path))

    def _add_checkpoint(self, files: dict[str, Path], inputs: Sequence[Input], origin: str) -> None:
        model = self._model
        preset = self._preset() if model.quantize else ""
        work = AssembleWork(files, origin, preset, model.intermediate, model.pre_tokenizer)
        action = self._assemble("weights", work, tuple(inputs))
        self._slots.append(LayerSlot("model", action))
        self._weights.inputs.append(("model", ActionInput(SOURCE_ROLE, action)))

    def _add_gguf_entry(self, entry: FileEntry, wanted_kind: str) -> None:
        """Plan one GGUF file of `from`, `files`, `adapters` or `draft_files`."""
        path = self._path_of(entry)
        with _located(entry.position):
            header = open_gguf(path)
            kind = wanted_kind if wanted_kind == "draft" else classify_gguf(header)
            _refuse_shards(header)
        if wanted_kind == "adapter" and kind != "adapter":
            kind = "model"  # Ollama keeps a plain model given as an adapter as a second model layer
        source = _file_input(entry, SOURCE_ROLE)
        what = f"{wanted_kind or 'file'}:{entry.name}"
        action, from_ = self._import_or_rewrite(what, header, kind, wanted_kind, source, entry)
        self._slots.append(LayerSlot(kind, action, from_))
        self._weights.inputs.append((kind, ActionInput(SOURCE_ROLE, action)))

    def _import_or_rewrite(
        self,
        what: str,
        header: GgufHeader,
        kind: str,
        wanted_kind: str,
        source: FileInput | DigestInput,
        entry: FileEntry,
    ) -> tuple[str, str]:
        if kind == "model" and not wanted_kind:
            preset = self._preset() if self._model.quantize else ""
            if preset and not _is_of_type(header, preset):
                return self._assemble_gguf(what, source, preset), ""
            if self._model.rewrite_gguf:
                return self._assemble_gguf(what, source, COPY_PRESET), ""
        return self._import(what, source, entry), entry.name

    def _import(self, what: str, source: FileInput | DigestInput, entry: FileEntry) -> str:
        action = Action(
            id=f"{self._name}/{what}",
            kind=Kind.IMPORT,
            title=f"import {entry.name}",
            inputs=(source,),
            options={},
            work=ImportWork(self._path_of(entry)),
        )
        self._planner.add_action(action)
        return action.id

    def _assemble_gguf(self, what: str, source: Input, preset: str) -> str:
        if isinstance(source, FileInput):
            source = replace(source, by_tensor=True)
        work = AssembleWork(None, str(self._name), preset, self._model.intermediate)
        return self._assemble(what, work, (source,))

    def _assemble(self, what: str, work: AssembleWork, inputs: tuple[Input, ...]) -> str:
        verb = "rewrite" if work.preset == COPY_PRESET else "convert" if work.checkpoint is not None else "quantize"
        target = f" to {work.preset}" if work.preset not in ("", COPY_PRESET) else ""
        origin = Path(work.origin).name if work.checkpoint is not None else work.origin
        options: dict[str, Json] = {
            "preset": work.preset,
            "intermediate": work.intermediate,
            "pre_tokenizer": work.pre_tokenizer,
        }
        action = Action(
            id=f"{self._name}/{what}",
            kind=Kind.ASSEMBLE,
            title=f"{verb} {origin}{target}",
            inputs=inputs,
            options={key: value for key, value in options.items() if value},
            work=work,
        )
        self._planner.add_action(action)
        return action.id

    def _path_of(self, entry: FileEntry) -> Path:
        if isinstance(entry.content, Path):
            return entry.content
        path = self._store.blobs.path(entry.content)
        if not path.exists():
            message = f"no blob {entry.content} in the store {self._store.root}"
            raise RecipeError("MISSING", message, entry.position, hint="give the path of the file instead of a digest")
        return path

    def _preset(self) -> str:
        from modelbuild.quantize.presets import PRESETS, find_preset

        preset = find_preset(self._model.quantize)
        if preset is not None:
            return preset.name
        names = list(PRESETS)
        near = difflib.get_close_matches(self._model.quantize.upper(), names, n=3, cutoff=0.5)
        raise RecipeError(
            "UNKNOWN",
            f"unknown quantization type {printable(self._model.quantize)!r}",
            self._model.quantize_position or self._model.position,
            hint=f"did you mean {' or '.join(near)}?" if near else f"known types: {', '.join(names)}",
        )

    # -- texts and the manifest ----------------------------------------------------------------------------------

    def _add_texts(self) -> None:
        model = self._model
        texts: list[tuple[str, str, bytes]] = []
        if model.template:
            texts.append(("template", "template", model.template.encode()))
        if model.system:
            texts.append(("system", "system", model.system.encode()))
        texts += [("license", f"license-{index}", text.encode()) for index, text in enumerate(model.licenses)]
        if model.messages:
            texts.append(("messages", "messages", encode_go_json(model.messages) + b"\n"))
        for kind, what, data in texts:
            action = Action(
                id=f"{self._name}/{what}",
                kind=Kind.TEXT,
                title=f"store {what}",
                inputs=(DigestInput("content", digest_of(data)),),
                options={},
                work=TextWork(data),
            )
            self._planner.add_action(action)
            self._slots.append(LayerSlot(kind, action.id))

    def _add_publish(
        self, base_name: ModelName | None, base_input: Input | None, remote_host: str, remote_model: str
    ) -> None:
        model = self._model
        inputs: list[Input] = [] if base_input is None else [base_input]
        inputs += [ActionInput(f"base model layer {i}", action) for i, action in enumerate(self._replacements)]
        inputs += [ActionInput(_role(slot, self._name), slot.action) for slot in self._slots]
        options: dict[str, Json] = {
            "name": str(self._name),
            "base": "" if base_name is None else str(base_name),
            "layers": [[slot.kind, slot.from_] for slot in self._slots],
            "parameters": cast("Json", model.parameters),  # plain values of a recipe or request
            "info": cast("Json", model.info),
            "renderer": model.renderer,
            "parser": model.parser,
            "requires": model.requires,
            "remote_host": remote_host,
            "remote_model": remote_model,
        }
        work = PublishWork(
            model,
            self._name,
            base_name,
            tuple(self._replacements),
            tuple(self._slots),
            remote_host,
            remote_model,
        )
        self._planner.add_action(
            Action(
                id=f"{self._name}/publish",
                kind=Kind.PUBLISH,
                title=f"publish {self._name}",
                inputs=tuple(inputs),
                options={key: value for key, value in options.items() if value not in ("", None)},
                work=work,
            )
        )


@contextmanager
def _located(position: Position) -> Iterator[None]:
    """Give errors of input files a place in the recipe."""
    try:
        yield
    except InputError as error:
        message = f"{error.where}: {error.message}" if error.where else error.message
        raise RecipeError(error.code, message, position, hint=error.hint) from error


def _role(slot: LayerSlot, name: ModelName) -> str:
    return slot.action.removeprefix(f"{name}/")


def _file_input(entry: FileEntry, role: str = "") -> FileInput | DigestInput:
    if isinstance(entry.content, Path):
        return FileInput(role or entry.name, entry.content)
    return DigestInput(role or entry.name, Digest(entry.content))


def _checkpoint_input(name: str, path: Path) -> FileInput:
    """Weights are followed tensor by tensor, so that one changed tensor does not repack the others."""
    return FileInput(name, path, by_tensor=path.suffix == ".safetensors")


def _directories_of(root: Path, files: Iterable[str]) -> list[Path]:
    below = {root / Path(name).parent for name in files}
    return [root, *sorted(below - {root})]


def _is_of_type(header: GgufHeader, preset: str) -> bool:
    from modelbuild.quantize.presets import find_preset

    wanted = find_preset(preset)
    return wanted is not None and header.kv.get_u32("general.file_type") == wanted.file_type


def _refuse_shards(header: GgufHeader) -> None:
    count = shard_count(header)
    if count > 1:
        raise InputError(
            "SHARDS",
            f"one of {count} shards; merging shards is not supported yet",
            path=header.path,
            hint="merge them with 'llama-gguf-split --merge' first",
        )
