"""Deciding what runs: a table of worlds and the reasons that follow."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from modelbuild.digest import Digest, digest_of
from modelbuild.plan.action import ActionInput, DigestInput, FileInput, Kind
from modelbuild.plan.decide import Result, decide, mark_repeats
from modelbuild.plan.graph import Action, AssembleWork, ImportWork, TextWork

SOURCE = FileInput("model.safetensors", Path("model.safetensors"), by_tensor=True)
ASSEMBLE = Action("m/weights", Kind.ASSEMBLE, "convert", (SOURCE,), {"preset": "Q8_0"}, AssembleWork({}, ".", "Q8_0"))
DIGEST, OTHER = digest_of(b"1"), digest_of(b"2")
RESULT = Result(digest_of(b"result"), 10)


@dataclass
class World:
    """Facts from dictionaries."""

    files: dict[FileInput, Digest] = field(default_factory=dict)
    records: dict[str, tuple[str, str]] = field(default_factory=dict)
    last: dict[str, tuple[str, str]] = field(default_factory=dict)
    gone: str = ""

    def file_digest(self, item: FileInput) -> Digest | None:
        return self.files.get(item)

    def file_size(self, path: Path) -> int | None:
        return path.stat().st_size

    def unknown_file_reason(self, item: FileInput) -> str:
        return f"{item.path.name} was never read"

    def recorded(self, key: str) -> tuple[str, str] | None:
        return self.records.get(key)

    def last_recorded(self, action: Action) -> tuple[str, str] | None:
        return self.last.get(action.id)

    def missing(self, action: Action, result: Result) -> str:
        return self.gone


def _recorded(world: World, action: Action = ASSEMBLE) -> World:
    """The world after the action ran."""
    decision = decide(action, {}, world)
    assert decision.manifest is not None
    entry = (decision.manifest.encode(), RESULT.encode())
    return World(dict(world.files), {decision.manifest.key: entry}, {action.id: entry})


def test_unread_file_is_the_reason() -> None:
    """A file of unknown content leaves the key open and says so."""
    decision = decide(ASSEMBLE, {}, World())

    assert (None, ("model.safetensors was never read",)) == (decision.manifest, decision.reasons)


def test_first_time_is_never_built() -> None:
    """A known input without a record."""
    assert ("never built",) == decide(ASSEMBLE, {}, World({SOURCE: DIGEST})).reasons


def test_recorded_result_is_taken() -> None:
    """Nothing runs while the record and its blobs stand."""
    decision = decide(ASSEMBLE, {}, _recorded(World({SOURCE: DIGEST})))

    assert (False, RESULT, ()) == (decision.runs, decision.result, decision.reasons)


def test_missing_blob_is_the_reason() -> None:
    """A record whose blob is gone does not count."""
    world = _recorded(World({SOURCE: DIGEST}))
    world.gone = "blob 0123 is missing from the store"

    assert ("blob 0123 is missing from the store",) == decide(ASSEMBLE, {}, world).reasons


def test_changed_input_is_named_with_both_digests() -> None:
    """The difference to the last time is the reason."""
    world = _recorded(World({SOURCE: DIGEST}))
    world.files[SOURCE] = OTHER

    expected = f"input model.safetensors changed: {DIGEST[7:19]} → {OTHER[7:19]}"
    assert (expected,) == decide(ASSEMBLE, {}, world).reasons


def test_going_back_finds_the_old_record() -> None:
    """An edit that is taken back costs nothing: records are found by key, whatever ran last."""
    world = _recorded(World({SOURCE: DIGEST}))
    later = _recorded(World({SOURCE: OTHER}))
    both = World({SOURCE: DIGEST}, world.records | later.records, later.last)

    assert not decide(ASSEMBLE, {}, both).runs


def test_force_runs_and_says_so() -> None:
    """`--force` is a reason of its own."""
    assert ("forced",) == decide(ASSEMBLE, {}, _recorded(World({SOURCE: DIGEST})), force=True).reasons


def test_waits_for_what_has_not_run() -> None:
    """An action behind another one has no key before that one has a result."""
    child = Action("m/publish", Kind.PUBLISH, "publish", (ActionInput("weights", "m/weights"),), {}, TextWork(b""))

    assert ("waits for m/weights",) == decide(child, {}, World()).reasons
    assert decide(child, {"m/weights": RESULT}, World()).manifest is not None


def test_what_is_known_is_told_while_waiting() -> None:
    """An action that waits and has another option as well names both; what is not known yet counts as unchanged."""
    before = replace(ASSEMBLE, inputs=(ActionInput("source", "other"),))
    results = {"other": RESULT}
    decision = decide(before, results, World())
    assert decision.manifest is not None
    world = World(last={before.id: (decision.manifest.encode(), RESULT.encode())})

    assert ("waits for other",) == decide(before, {}, world).reasons
    after = replace(before, options={"preset": "Q4_0"})
    assert ("waits for other", 'option preset: "Q8_0" → "Q4_0"') == decide(after, {}, world).reasons


def test_import_and_text_follow_from_their_content(tmp_path: Path) -> None:
    """What is stored unchanged needs no record: its digest is known."""
    file = tmp_path / "a.gguf"
    file.write_bytes(b"12345")
    source = FileInput("source", file)
    importing = Action("m/file", Kind.IMPORT, "import", (source,), {}, ImportWork(file))
    text = Action("m/system", Kind.TEXT, "store", (DigestInput("content", DIGEST),), {}, TextWork(b"hello"))

    assert Result(DIGEST, 5) == decide(importing, {}, World({source: DIGEST})).result
    assert Result(DIGEST, 5) == decide(text, {}, World()).result


def test_what_an_action_before_makes_is_left_to_it() -> None:
    """Equal actions of two models run once, known input or not; so do those that build on them, and no others."""

    def of(model: str, preset: str = "Q8_0") -> Action:
        return replace(ASSEMBLE, id=f"{model}/weights", options={"preset": preset})

    def on(model: str) -> Action:
        source = ActionInput("source", f"{model}/weights")
        return Action(f"{model}/q", Kind.ASSEMBLE, "quantize", (source,), {}, AssembleWork(None, ".", "Q4_0"))

    actions = [of("a"), of("b"), of("c", "Q4_0"), on("a"), on("b"), on("c")]
    for world in (World(), World({SOURCE: DIGEST})):
        marked = mark_repeats(decide(action, {}, world) for action in actions)

        assert ["", "a/weights", "", "", "a/q", ""] == [item.made_by for item in marked]
        assert [True, False, True, True, False, True] == [item.runs for item in marked]


def test_what_is_up_to_date_is_left_to_nobody() -> None:
    """An action does not run because of an equal one that does not run either."""
    world = _recorded(World({SOURCE: DIGEST}))
    twice = [ASSEMBLE, replace(ASSEMBLE, id="b/weights")]

    assert ["", ""] == [item.made_by for item in mark_repeats(decide(action, {}, world) for action in twice)]
