"""Creating a model from a request, as the create API promises it: checks, status lines, the model in the store.

The request becomes the same resolved model that a recipe gives; plan and engine do the work. What can be told from the
request, the headers of its files and the store is told before the first status line, so that it can still have an
HTTP status of its own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from modelbuild.digest import Digest, digest_of
from modelbuild.engine.create_answers import answer_for
from modelbuild.engine.create_files import check_file_sets
from modelbuild.engine.layer_facts import read_gguf_facts
from modelbuild.engine.publish import detect_for_files
from modelbuild.engine.run import run_plan
from modelbuild.engine.run_options import RunOptions
from modelbuild.errors import ModelbuildError, printable
from modelbuild.events import ActionFinished, ActionProgress, ActionStarted, ActionWaiting, Emit, Event, ignore_event
from modelbuild.model_name import parse_name
from modelbuild.plan.graph import COPY_PRESET, Action, AssembleWork, ImportWork, Plan, PublishWork, SlotRole
from modelbuild.plan.planner import make_plan
from modelbuild.recipe.reference import split_source
from modelbuild.recipe.request import (
    AllowPath,
    CreateRequest,
    RequestError,
    is_path,
    is_remote_request,
    resolve_create_request,
)
from modelbuild.recipe.request_checks import check_create_request, check_info, check_quantize, check_texts
from modelbuild.recipe.resolved import Recipe
from modelbuild.records import record
from modelbuild.store.manifest import Layer
from modelbuild.store.state import State
from modelbuild.store.store import Store

#: Ollama's placeholder for the digest of weights that are being made.
_NO_DIGEST = "0" * 19
#: So many unknown fields of a request are named.
_NAMED_FIELDS = 20


@record
class Status:
    """One progress line: its text; digest and counts only where something is worked on."""

    text: str
    digest: str = ""
    total: int = 0
    completed: int = 0

    def to_json(self) -> dict[str, object]:
        """The line as a JSON object; empty and zero fields are left out."""
        record: dict[str, object] = {"status": self.text}
        fields = {"digest": self.digest, "total": self.total, "completed": self.completed}
        return record | {key: value for key, value in fields.items() if value}


Report = Callable[[Status], None]


@record
class CreateOptions:
    """How requests are carried out.

    rewrite_gguf: rewrite imported GGUF files as Ollama does. allow_path: as for `check_create_request`.
    on_plan: gets the plan before it is run.
    """

    rewrite_gguf: bool = False
    allow_path: AllowPath | None = None
    run: RunOptions = RunOptions()
    on_plan: Callable[[Plan], None] | None = None


def create_model(
    request: CreateRequest,
    store: Store,
    state: State,
    report: Report,
    options: CreateOptions = CreateOptions(),
    emit: Emit = ignore_event,
) -> None:
    """Create or replace a model; RequestError with status and text for whatever prevents it.

    report: gets the status lines, the last of which is "success". As long as it was not called nothing has been
    written. emit: gets the events of the run.
    """
    try:
        check_create_request(
            request, allow_path=options.allow_path, has_model=lambda name: store.find(name) is not None
        )
        files = check_file_sets(request, store)
        request = request if _has_weights(request, store) else replace(request, quantize="")
        _check_values(request, store, options)
        plan = _plan(request, store, options)
        if options.on_plan is not None:
            options.on_plan(plan)
        _Creation(plan, _opening(request, files), store, state, report, emit).run(options.run)
    except RequestError:
        raise
    except ModelbuildError as error:
        raise answer_for(error, request) from error


def _plan(request: CreateRequest, store: Store, options: CreateOptions) -> Plan:
    model = resolve_create_request(request, allow_path=options.allow_path)
    return make_plan(Recipe(Path("request"), (replace(model, rewrite_gguf=options.rewrite_gguf),), (), ()), store)


def _check_values(request: CreateRequest, store: Store, options: CreateOptions) -> None:
    """RequestError for values of fields that are wrong; but the fault of the files, where they have one.

    Ollama reads the files, then `info`, makes the weights, and only then looks at template and licences.
    """
    bare = replace(request, info=None, template="", license=None)
    for check, before in (
        (check_info, replace(bare, quantize="", draft_quantize="")),
        (check_quantize, replace(bare, quantize="", draft_quantize="")),
        (check_texts, bare),
    ):
        try:
            check(request)
        except RequestError:
            _plan(before, store, options)
            raise


def _has_weights(request: CreateRequest, store: Store) -> bool:
    """Is there anything to pack? Not in a model that is made from one without weights."""
    if not request.from_ or is_path(request.from_) or is_remote_request(request):
        return True
    found = store.find(parse_name(split_source(request.from_)[0]))
    return found is None or bool(found[0].of_kind("model"))


class _Creation:
    """One run of the plan, with the status lines that clients of Ollama expect around it."""

    def __init__(
        self, plan: Plan, opening: tuple[Status, ...], store: Store, state: State, report: Report, emit: Emit
    ) -> None:
        self._plan = plan
        self._opening = opening
        self._store = store
        self._state = state
        self._report = report
        self._emit = emit
        self._has_begun = False
        self._actions: Mapping[str, Action] = {action.id: action for action in plan.actions}
        work = plan.actions[-1].work
        if not isinstance(work, PublishWork):
            raise AssertionError("a plan ends with publishing")
        self._publish = work

    def run(self, options: RunOptions) -> None:
        """Run the plan and report."""
        before = _blob_names(self._store)
        run_plan(self._plan, self._store, self._state, self._listen, options)
        self._begin()
        for text in (_rewriting(action) for action in self._plan.actions):
            if text:
                self._report(Status(text))
        self._report(Status("creating model layer"))
        self._report_layers(before)
        self._touch_manifest()
        self._report(Status("writing manifest"))
        self._report(Status("success"))

    def _listen(self, event: Event) -> None:
        if isinstance(event, ActionStarted | ActionFinished) and getattr(event, "outcome", "") != "failed":
            self._begin()
        if isinstance(event, ActionProgress):
            self._begin()
            self._report_progress(event)
        if isinstance(event, ActionWaiting):
            self._begin()
            self._report(Status(f"waiting for another build{'' if event.need else ' of the same weights'}"))
        self._emit(event)

    def _begin(self) -> None:
        """The lines that come before any work; not before every check has passed."""
        if self._has_begun:
            return
        self._has_begun = True
        for status in self._opening:
            self._report(status)

    def _report_progress(self, event: ActionProgress) -> None:
        what = _doing(self._actions[event.action])
        self._report(Status(what, _NO_DIGEST, event.total_bytes, event.done_bytes))

    def _report_layers(self, before: set[str]) -> None:
        found = self._store.find(self._publish.target)
        layers = found[0].layers if found is not None else ()
        detected = dict(self._detected(layers))
        seen = set(before)
        for layer in layers:
            name = self._store.blobs.path(layer.digest).name
            known = "using existing layer" if name in seen else "creating new layer"
            seen.add(name)
            is_detected = layer.kind == "template" and layer.digest in detected
            text = f"using autodetected template {detected[layer.digest]}" if is_detected else f"{known} {layer.digest}"
            self._report(Status(text))

    def _detected(self, layers: tuple[Layer, ...]) -> Iterator[tuple[Digest, str]]:
        """The template layers that were recognised rather than given, with their names."""
        if self._publish.model.template or not self._publish.slots_of(SlotRole.FILES):
            return
        files = [layer for layer in layers if layer.kind == "model"]
        facts = {layer.digest: read_gguf_facts(self._store.blobs, layer.digest, self._state) for layer in files}
        for item in detect_for_files(self._publish, files, facts):
            yield digest_of(item.template.encode()), item.name

    def _touch_manifest(self) -> None:
        """A creation that changes nothing still makes the model the most recent one, as in Ollama."""
        now_ns = time.time_ns()
        with suppress(FileNotFoundError):  # it was made, and somebody deletes it already
            os.utime(self._store.manifest_path(self._publish.target), ns=(now_ns, now_ns))


def _opening(request: CreateRequest, files: tuple[str, ...]) -> tuple[Status, ...]:
    """The lines that come before any work.

    Those about fields that mean nothing have counts, which tell programs that compare streams to skip them.
    """
    named = request.unknown[:_NAMED_FIELDS]
    texts = [f'ignoring unknown field "{printable(name)}"' for name in named]
    ignored = [Status(text, "", len(request.unknown), number) for number, text in enumerate(texts, start=1)]
    return (
        Status("parsing modelfile"), *ignored, Status("looking up model manifest"), *(Status(text) for text in files)
    )  # fmt: skip


def _doing(action: Action) -> str:
    """What is said while bytes are worked on."""
    work = action.work
    if not isinstance(work, AssembleWork):
        return "importing file" if isinstance(work, ImportWork) else "reading files"
    if work.base is not None:
        return "converting adapter"
    if work.preset not in ("", COPY_PRESET):
        return f"quantizing model to {work.preset}"
    return "validating GGUF model" if work.checkpoint is None else "converting model"


def _rewriting(action: Action) -> str:
    """The line for weights that were made: of companions and merged files with a vision tower nothing is said."""
    work = action.work
    if not isinstance(work, AssembleWork) or _is_companion(work):
        return ""
    if work.keeps_embedded and work.preset == COPY_PRESET and not work.added:
        return ""
    return "updating GGUF projector metadata" if work.added else "verifying conversion"


def _is_companion(work: AssembleWork) -> bool:
    """Is it an adapter or a projector, of whose making nothing is said?"""
    return work.base is not None or bool(work.part)


def _blob_names(store: Store) -> set[str]:
    try:
        return {entry.name for entry in os.scandir(store.blobs.blobs)}
    except OSError:
        return set()
