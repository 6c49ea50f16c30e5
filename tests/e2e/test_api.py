"""The Python API: the same results as the command line, typed, and loaded only when used."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

import modelbuild
from modelbuild import api
from modelbuild.engine.build import BuildRequest
from modelbuild.engine.ledger import RunSummary
from modelbuild.errors import ModelbuildError, UsageError
from modelbuild.events import ActionFinished, ActionStarted, Emit, Event, ModelFinished, RunStarted
from modelbuild.recipe.request import RequestError
from modelbuild.store.state import State
from modelbuild.store.store import Store
from modelbuild.watch.loop import Round
from tests.small_gguf import write_gguf
from tests.space import ROOT, Space

RECIPE = """
variables: {text: hello}
models:
  base: {from: ./base.gguf}
  child: {from: {model: base}, system: "${text}"}
"""


@pytest.fixture
def place(space: Space, monkeypatch: pytest.MonkeyPatch) -> Space:
    """A recipe and its GGUF; the environment leads nowhere else."""
    for name, value in space.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(space.root)
    space.write("base.gguf", write_gguf())
    space.recipe(RECIPE)
    return space


def test_build_tells_what_it_did(place: Space) -> None:
    """Models with digests, actions that ran; the second time nothing runs."""
    events: list[Event] = []

    first = modelbuild.build("recipe.yaml", on_event=events.append)
    second = modelbuild.build("recipe.yaml")

    assert ["base:latest", "child:latest"] == [model.name for model in first.models]
    assert [True, True] == [model.is_new for model in first.models]
    assert "base:latest/publish" in first.ran
    assert 2 == sum(isinstance(event, ModelFinished) for event in events)
    assert ((), [False, False]) == (second.ran, [model.is_new for model in second.models])
    assert [model.digest for model in first.models] == [model.digest for model in second.models]


def test_models_are_in_build_order_whichever_ends_first(place: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers end in any order; whoever reads the result sees the order of the plan."""

    def build_backwards(request: BuildRequest, state: State, emit: Emit) -> RunSummary:
        emit(RunStarted(("a:latest", "b:latest"), 2))
        for name in ("b:latest", "a:latest"):
            emit(ModelFinished(name, "built", f"sha256:{'0' * 64}", 1))
        return RunSummary()

    monkeypatch.setattr(api, "build_recipe", build_backwards)

    assert ["a:latest", "b:latest"] == [model.name for model in modelbuild.build("recipe.yaml").models]


@pytest.mark.parametrize("options", [{"lock": "locekd"}, {"link": "symbolic"}, {"executor": "threads"}])
def test_options_that_do_not_exist_are_refused(place: Space, options: dict[str, str]) -> None:
    """A misspelt option is a usage error that says what is possible, before anything is read or written."""
    with pytest.raises(UsageError) as caught:
        modelbuild.build("recipe.yaml", options=modelbuild.BuildOptions(**options))  # type: ignore[arg-type]

    assert "are possible" in caught.value.hint
    assert not place.files()


def test_recipe_of_values_has_no_lock(place: Space) -> None:
    """There is no file beside which a lock could stand, so asking for one is an error and not ignored."""
    with pytest.raises(UsageError, match="has no recipe"):
        modelbuild.build({"model": "m", "from": "./base.gguf"}, options=modelbuild.BuildOptions(lock="update"))


def test_build_takes_values_instead_of_a_file(place: Space) -> None:
    """Paths start from the current directory; the result is the one a file gives."""
    made = modelbuild.build({"model": "child", "from": "./base.gguf", "system": "hello"})
    (place.root / "one.yaml").write_text("model: child\nfrom: ./base.gguf\nsystem: hello\n")

    assert made.models[0].digest == modelbuild.build("one.yaml").models[0].digest


def test_variables_and_wanted_models(place: Space) -> None:
    """As `--var` and names on the command line."""
    options = modelbuild.BuildOptions(variables={"text": "other"})
    result = modelbuild.build("recipe.yaml", ["child"], options=options)

    assert ["base:latest", "child:latest"] == [model.name for model in result.models]
    assert "other" == modelbuild.show("child").system


def test_preview_changes_nothing(place: Space) -> None:
    """What would run, with reasons and bytes."""
    rows = modelbuild.preview("recipe.yaml")

    assert all(row.runs for row in rows)
    assert not place.store.exists()


def test_store_functions(place: Space, tmp_path: Path) -> None:
    """list, show, copy, compare, verify, archive, remove."""
    modelbuild.build("recipe.yaml")
    modelbuild.copy("child", "other")
    assert ["base:latest", "child:latest", "other:latest"] == [row.name for row in modelbuild.list_models()]
    assert [] == modelbuild.compare("child", "other")
    assert ["system"] == [item.where for item in modelbuild.compare("base", "child")]
    assert modelbuild.verify().is_sound

    exported = modelbuild.export_archive(["child"], "child.tar")
    imported = modelbuild.import_archive("child.tar", store=tmp_path / "elsewhere")
    assert exported == imported
    assert modelbuild.verify(store=tmp_path / "elsewhere").is_sound

    assert 0 == modelbuild.remove("child")
    assert 0 < modelbuild.remove("base", "other")
    assert [] == modelbuild.list_models()


def test_create_carries_out_raw_requests(place: Space) -> None:
    """With the API's status lines and errors."""
    digest = Store(place.store).blobs.put(write_gguf())
    lines: list[str] = []

    made = modelbuild.create(
        {"model": "m", "files": {"m.gguf": digest}, "system": "s"}, on_status=lambda status: lines.append(status.text)
    )

    assert ("m:latest", "success") == (made.name, lines[-1])
    with pytest.raises(RequestError) as caught:
        modelbuild.create({"model": "bad name", "from": "m"})
    assert (400, "invalid model name") == (caught.value.status, caught.value.message)


def test_watching_builds_first(place: Space) -> None:
    """One round is one build."""
    rounds: list[str] = []
    modelbuild.watch_recipe("recipe.yaml", on_round=lambda item: rounds.append(item.failure), rounds=1)

    assert [""] == rounds
    assert 2 == len(modelbuild.list_models())


def test_rounds_say_what_happened_and_what_was_built(place: Space) -> None:
    """Every field that docs/python.md lists, over a start, a save and a mistake."""
    text = place.write("texts/text.txt", "One.")
    recipe = place.recipe(
        "models:\n  a: {from: ./base.gguf, system: {file: texts/text.txt}}\n  b: {from: ./base.gguf}\n"
    )
    rounds: list[Round] = []
    steps = [
        lambda: text.write_text("Two."),
        lambda: recipe.write_text("models: {a: {form: ./base.gguf}}\n"),
        lambda: None,
    ]

    def take(done: Round) -> None:
        rounds.append(done)
        steps[len(rounds) - 1]()

    events: list[Event] = []
    modelbuild.watch_recipe("recipe.yaml", on_round=take, on_event=events.append, rounds=3)

    names, paths = ("a:latest", "b:latest"), (recipe, text, recipe)
    assert [((), names), (("texts/text.txt saved",), ("a:latest",)), (("recipe.yaml saved",), ())] == [
        (done.changes, done.built) for done in rounds
    ]
    assert [(), True, True] == [done.changed and path in done.changed for done, path in zip(rounds, paths, strict=True)]
    assert [names, names, ()] == [done.models for done in rounds]
    assert [4, 2, 0] == [done.ran for done in rounds]
    assert ["", ""] == [done.failure for done in rounds[:2]]
    assert "recipe.yaml:1:" in rounds[2].failure
    assert not any(done.is_stopped for done in rounds)
    assert all(done.seconds > 0 for done in rounds)
    assert all(event.seconds >= 0 for event in events if isinstance(event, ActionFinished))


def test_an_exception_of_the_listener_ends_the_watch(place: Space) -> None:
    """It comes out as it is."""

    def take(_: Round) -> None:
        raise LookupError

    with pytest.raises(LookupError):
        modelbuild.watch_recipe("recipe.yaml", on_round=take)


def test_errors_are_of_one_kind(place: Space) -> None:
    """Whatever goes wrong."""
    for call in (
        lambda: modelbuild.build("missing.yaml"),
        lambda: modelbuild.build({"model": "m"}),
        lambda: modelbuild.show("nope"),
        lambda: modelbuild.remove("nope"),
        lambda: modelbuild.copy("nope", "x"),
        lambda: modelbuild.import_archive("nope.tar"),
        lambda: modelbuild.export_archive(["nope"], "x.tar"),
    ):
        with pytest.raises(ModelbuildError):
            call()


def test_the_package_loads_nothing_before_it_is_used() -> None:
    """Only the version is at hand at once; every listed name exists."""
    code = "import sys, modelbuild; print(sorted(m for m in sys.modules if m.startswith('modelbuild')))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert ["modelbuild"] == json.loads(loaded.replace("'", '"'))
    assert all(hasattr(modelbuild, name) for name in modelbuild.__all__)
    with pytest.raises(AttributeError, match="nonsense"):
        modelbuild.nonsense  # noqa: B018


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}, b"x"])
def test_values_that_no_document_holds_are_refused(place: Space, value: object) -> None:
    """A typed error, and nothing is stored."""
    for call in (modelbuild.build, modelbuild.create):
        with pytest.raises(UsageError, match="cannot be written down"):
            call({"model": "m", "from": "./base.gguf", "parameters": {"x": value}})
    assert not place.store.exists()


def test_path_objects_are_paths(place: Space) -> None:
    """A path object without a directory names a file, never a model."""
    made = modelbuild.build({"model": "m", "from": Path("base.gguf"), "system": {"file": place.write("s.txt", "hi")}})

    assert "hi" == modelbuild.show("m").system
    assert modelbuild.build({"model": "n", "from": place.root / "base.gguf", "system": "hi"}).models[0].digest == (
        made.models[0].digest
    )


def test_builds_run_in_threads_and_beside_an_event_loop(place: Space) -> None:
    """Several at once, on one store, each with its own result."""

    async def build_all() -> list[str]:
        bodies = [
            {"model": f"m{i}", "from": "./base.gguf", "quantize": kind}
            for i, kind in enumerate(("Q8_0", "Q8_0", "Q4_0"))
        ]
        modelbuild.build(bodies[0])
        made = await asyncio.gather(*(asyncio.to_thread(modelbuild.build, body) for body in bodies))
        return [result.models[0].name for result in made]

    assert ["m0:latest", "m1:latest", "m2:latest"] == asyncio.run(build_all())
    assert modelbuild.verify().is_sound


@pytest.mark.parametrize("kind", [KeyboardInterrupt, ValueError])
def test_a_listener_can_end_a_build(place: Space, kind: type[BaseException]) -> None:
    """Its exception arrives as it is; nothing is left behind, and the next build succeeds."""

    def stop(event: Event) -> None:
        if isinstance(event, ActionStarted):
            raise kind

    with pytest.raises(kind):
        modelbuild.build("recipe.yaml", on_event=stop)

    assert ["base:latest", "child:latest"] == [model.name for model in modelbuild.build("recipe.yaml").models]
    assert {"blobs", "manifests"} == {path.name for path in place.store.iterdir()}


def test_rewriting_is_an_option_of_files_and_values_alike(place: Space) -> None:
    """As `rewrite_gguf: true` in the recipe, and as the same option of a raw request."""
    body: dict[str, object] = {"model": "m", "from": "./base.gguf"}
    (place.root / "one.json").write_text(json.dumps(body))
    options = modelbuild.BuildOptions(rewrite_gguf=True)

    wanted = modelbuild.build({**body, "rewrite_gguf": True}).models[0].digest
    assert wanted != modelbuild.build(body).models[0].digest
    assert wanted == modelbuild.build(body, options=options).models[0].digest
    assert wanted == modelbuild.build("one.json", options=options).models[0].digest
    blob = Store(place.store).blobs.put((place.root / "base.gguf").read_bytes())
    assert wanted == modelbuild.create({"model": "n", "files": {"m.gguf": blob}}, rewrite_gguf=True).digest
