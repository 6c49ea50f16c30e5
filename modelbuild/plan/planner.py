"""From resolved models to a plan: which actions make them, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from modelbuild.digest import digest_of
from modelbuild.errors import MISTAKES_LIMIT, ProblemCollector, RecipeError, UsageError, printable
from modelbuild.formats.files import does_exist, is_directory
from modelbuild.formats.json_text import read_json_object
from modelbuild.model_name import ModelName, parse_name
from modelbuild.plan.action import ActionInput, DigestInput, Input, Json, Kind
from modelbuild.plan.graph import Action, ExportWork, LayerSlot, Plan, PublishWork, SlotRole, TextWork, source_role
from modelbuild.plan.located import located
from modelbuild.plan.missing_paths import check_paths
from modelbuild.plan.model_weights import WeightsInput, WeightsPlanner
from modelbuild.recipe.reference import CLOUD_HOST, split_source
from modelbuild.recipe.resolved import FromModel, FromName, Output, Recipe, ResolvedModel
from modelbuild.similar_names import similar_models, similar_names
from modelbuild.store.go_json import encode_go_json
from modelbuild.store.manifest import Manifest
from modelbuild.store.store import Store

_FILE_SUFFIXES = (".gguf", ".safetensors")


def make_plan(recipe: Recipe, store: Store, wanted: Sequence[str] = ()) -> Plan:
    """The plan for the wanted models (keys or names; all when empty) and what they build on.

    Reads headers and directory listings, never weights, and writes nothing. All problems are raised together.
    """
    planner = _Planner(store, {model.id: model for model in recipe.models})
    problems = ProblemCollector(MISTAKES_LIMIT)
    failed: set[str] = set()
    for model in _select(recipe, wanted):
        if isinstance(model.base, FromModel) and model.base.id in failed:
            failed.add(model.id)  # what is wrong is wrong with its base, and told there
            continue
        known = len(problems.errors)
        check_paths(model, problems)
        if len(problems.errors) == known:
            with problems.collect():
                planner.add(model)
        if len(problems.errors) > known:
            failed.add(model.id)
    problems.finish()
    return planner.plan()


def _select(recipe: Recipe, wanted: Sequence[str]) -> list[ResolvedModel]:
    models = recipe.models
    if not wanted:
        return list(models)
    chosen: set[str] = set()
    for text in wanted:
        group = recipe.groups.get(text, ())
        matches = [
            model
            for model in models
            if model.id in group or text in (model.id, str(model.name), str(model.name).rpartition(":")[0])
        ]
        if not matches:
            names = [*(model.id or str(model.name) for model in models), *recipe.groups]
            near = similar_names(text, names, n=3) or names
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


class _Planner:
    """Collects actions; knows which layers each planned model gets. It is the `Registry` of the weights planner."""

    def __init__(self, store: Store, models: dict[str, ResolvedModel]) -> None:
        self.store = store
        self.models = models
        self._spellings = store.spellings()
        self._actions: dict[str, Action] = {}
        self.weights: dict[str, list[WeightsInput]] = {}
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
        """Add an action."""
        self._actions[action.id] = action

    def action(self, action_id: str) -> Action:
        """The action of that id."""
        return self._actions[action_id]


class _ModelPlanner:
    """Plans one model: its base or files, its texts, its manifest."""

    def __init__(self, planner: _Planner, model: ResolvedModel, name: ModelName) -> None:
        self._planner = planner
        self._store = planner.store
        self._model = model
        self._name = name
        self._weights = WeightsPlanner(planner, model, name)
        self._slots: list[LayerSlot] = []

    def add(self) -> None:
        """Add the actions of the model to the plan."""
        model, base_name, base_input = self._model, None, None
        remote_host, remote_model = self._remote()
        if not remote_model:
            if isinstance(model.base, FromName | FromModel):
                base_name, base_input = self._add_base(model.base)
            else:
                self._weights.add_files()
            self._weights.add_adapters()
            self._weights.add_drafts()
        self._slots += self._weights.slots
        self._planner.weights[model.id] = self._weights.inputs
        self._add_texts()
        self._add_publish(base_name, base_input, remote_host, remote_model)
        for output in model.outputs:
            self._add_export(output)

    def _remote(self) -> tuple[str, str]:
        """The host and the name there when the model runs on another server, else two empty texts."""
        base = self._model.base
        if not isinstance(base, FromName):
            return "", ""
        with located(base.position):
            reference, source = split_source(base.text)
            if source == "cloud" or self._model.remote_host:
                parse_name(reference)
                return self._model.remote_host or CLOUD_HOST, reference
        return "", ""

    # -- bases ---------------------------------------------------------------------------------------------------

    def _add_base(self, base: FromName | FromModel) -> tuple[ModelName, Input]:
        if isinstance(base, FromModel):
            name = self._planner.spelling(self._planner.models[base.id].name)
            self._weights.add_base(self._planner.weights[base.id])
            return name, ActionInput("base", f"{name}/publish")
        with located(base.position):
            name = parse_name(split_source(base.text)[0])
            found = self._store.find(name)
        if found is None:
            raise self._missing_base(name, base)
        manifest, digest = found
        self._planner.manifests.append(self._store.manifest_path(name))
        layers = [DigestInput(source_role(0), layer.digest) for layer in manifest.of_kind("model")]
        with located(base.position):
            self._weights.add_base(layers, self._file_type_of(manifest))
        return name, DigestInput("base", digest)

    def _file_type_of(self, manifest: Manifest) -> str:
        path = self._store.blobs.path(manifest.config.digest)
        return str(read_json_object(path).get("file_type") or "")

    def _missing_base(self, name: ModelName, base: FromName) -> RecipeError:
        stored = [str(item.name) for item in self._store.models()]
        near = similar_models(str(name), stored)
        hint = f"did you mean {' or '.join(near)}?" if near else _how_to_get(name, base)
        message = f"no model {str(name)!r} in the store {self._store.root}, and nothing is downloaded while building"
        return RecipeError("NETWORK", message, base.position, hint=hint)

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
            self._slots.append(LayerSlot(kind, action.id, role=SlotRole.TEXTS))

    def _add_publish(
        self, base_name: ModelName | None, base_input: Input | None, remote_host: str, remote_model: str
    ) -> None:
        model = self._model
        inputs: list[Input] = [] if base_input is None else [base_input]
        replaced = [(index, action) for index, action in enumerate(self._weights.replacements) if action]
        inputs += [ActionInput(f"base model layer {index}", action) for index, action in replaced]
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
            "cleared": sorted(model.cleared),
        }
        work = PublishWork(
            model,
            self._name,
            base_name,
            self._weights.replacements,
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
                options={key: value for key, value in options.items() if value not in ("", None, [])},
                work=work,
            )
        )

    def _add_export(self, output: Output) -> None:
        """Plan a file beside the store; it is made from the finished model."""
        if output.kind == "gguf" and len(self._weights.inputs) != 1:
            count = len(self._weights.inputs)
            message = f"the model has {count} weights layers, one is needed to write them to a file"
            raise RecipeError("CONFLICT", message, output.position, hint="remove 'outputs.gguf'")
        if is_directory(output.path):
            message = f"{printable(str(output.path))}: a directory, and a file is to be written"
            hint = "name a file in it: PATH/NAME.gguf" if output.kind == "gguf" else "name a file in it: PATH/Modelfile"
            raise RecipeError("OUTPUT", message, output.position, hint=hint)
        self._planner.add_action(
            Action(
                id=f"{self._name}/export {output.kind}",
                kind=Kind.EXPORT,
                title=f"write {printable(output.path.name)}",
                inputs=(ActionInput("model", f"{self._name}/publish"),),
                options={"kind": output.kind, "path": str(output.path.absolute())},
                work=ExportWork(output.kind, output.path, self._name),
            )
        )


def _how_to_get(name: ModelName, base: FromName) -> str:
    """What to type when nothing in the store is like the base that a recipe names."""
    as_path = "a file or directory is named with ./ in front"
    if base.text.endswith(_FILE_SUFFIXES) or does_exist(Path(base.position.path).parent / base.text):
        return f"{as_path}: ./{printable(base.text)}"
    full = f"{name.host}/{name.namespace}/{name.model}:{name.tag}"
    return f"{as_path}; a model is built first, or fetched with 'modelbuild pull {printable(full)}'"


def _role(slot: LayerSlot, name: ModelName) -> str:
    return slot.action.removeprefix(f"{name}/")
