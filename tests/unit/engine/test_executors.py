"""One suite for everything that runs actions; the last one shows what an executor elsewhere has to be."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from modelbuild.engine.build import BuildRequest, build_recipe
from modelbuild.engine.executor import InlineExecutor, MakeExecutor, Outcome, Task, executor_named
from modelbuild.engine.run_options import RunOptions
from modelbuild.engine.workbench import Workbench
from modelbuild.errors import InputError, Position, Problems, RecipeError, UsageError
from modelbuild.events import ActionFinished, ActionProgress, ActionStarted, Event, RunFinished, ignore_event
from modelbuild.store.state import State
from modelbuild.store.store import Store
from tests.checkpoints import write_checkpoint
from tests.cluster import dask_cluster
from tests.small_gguf import write_gguf
from tests.space import Space

RECIPE = """models:
  imported: {from: ./weights.gguf, system: One., outputs: {gguf: ./copy.gguf}}
  packed:
    model: packed:${quantize}
    from: ./checkpoint
    pre_tokenizer: llama-bpe
    matrix: {quantize: [Q8_0, Q4_0]}
  child: {from: {model: imported}, system: Two.}
"""


class ElsewhereExecutor:
    """Stands for one on other machines: a task and its outcome travel as bytes, and share nothing but the store."""

    other_machines = 4

    def __init__(self, bench: Workbench) -> None:
        self._places = bench.store.root, bench.state.path.parent, bench.options
        self._pool = ThreadPoolExecutor(4)
        self._running: dict[Future[bytes], Task] = {}

    def start(self, task: Task) -> None:
        """Send a task."""
        self._running[self._pool.submit(_work_elsewhere, pickle.dumps((task, *self._places)))] = task

    def wait(self, timeout_s: float) -> tuple[Task, Outcome] | None:
        """The next outcome that arrives."""
        ended = next(iter(wait(self._running, timeout_s, FIRST_COMPLETED).done), None) if self._running else None
        return None if ended is None else (self._running.pop(ended), pickle.loads(ended.result()))

    def close(self) -> None:
        """Let go of the machines."""
        self._pool.shutdown(cancel_futures=True)


def _work_elsewhere(parcel: bytes) -> bytes:
    task, store, cache, options = pickle.loads(parcel)
    state = State(cache)
    try:
        return pickle.dumps(Workbench(Store(store), state, ignore_event, options).attempt(task))
    finally:
        state.close()


EXECUTORS: dict[str, MakeExecutor] = {
    "inline": InlineExecutor,
    "workers": executor_named("workers"),
    "elsewhere": ElsewhereExecutor,
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with dask_cluster(tmp_path_factory.mktemp("cluster-cache")) as cluster:
        yield cluster.address


@pytest.fixture(params=[*EXECUTORS, "dask"])
def executor(request: pytest.FixtureRequest) -> MakeExecutor:
    """Each executor in turn."""
    name: str = request.param
    if name == "dask":
        return executor_named(request.getfixturevalue("cluster"))
    return EXECUTORS[name]


@pytest.fixture
def place(space: Space) -> Space:
    """A recipe with every kind of action."""
    space.write("weights.gguf", write_gguf())
    write_checkpoint(space.root / "checkpoint")
    space.recipe(RECIPE)
    return space


def _build(space: Space, options: RunOptions, *wanted: str) -> list[Event]:
    events: list[Event] = []
    request = BuildRequest(space.root / "recipe.yaml", space.store, space.cache, wanted, options)
    state = State(space.cache)
    try:
        build_recipe(request, state, events.append)
    finally:
        state.close()
    return events


def _digests(events: list[Event]) -> dict[str, str]:
    return {event.action: event.digest for event in events if isinstance(event, ActionFinished)}


def test_every_executor_gives_the_same_results(place: Space, executor: MakeExecutor) -> None:
    """Each action runs once and ends once, the results are the same, and the second time nothing runs."""
    other = Space(place.root)
    other.store, other.cache = place.root / "other-models", place.root / "other-cache"
    inline = _build(other, RunOptions())

    events = _build(place, RunOptions(executor=executor))

    started = [event.action for event in events if isinstance(event, ActionStarted)]
    assert len(started) == len(set(started))
    assert _digests(inline) == _digests(events)
    again = _build(place, RunOptions(executor=executor))
    assert [0] == [event.ran for event in again if isinstance(event, RunFinished)]


def test_an_error_stops_only_what_depends_on_it(place: Space, executor: MakeExecutor) -> None:
    """With `keep_going` the rest is built; the error is the one that was raised."""
    weights = place.root / "checkpoint" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-2] + b"\xc0\x7f")  # a BF16 that is no number
    with pytest.raises(InputError, match="rows 0 to"):
        _build(place, RunOptions(executor=executor, keep_going=True))

    assert ["child:latest", "imported:latest"] == [str(model.name) for model in Store(place.store).models()]


@pytest.mark.parametrize(
    "error",
    [
        InputError("SHAPE", "wrong", path=Path("a.gguf"), offset=7, key="x", hint="do this"),
        RecipeError("FIELD", "wrong", Position("recipe.yaml", 3, 4), hint="do that"),
        Problems([UsageError("ONE", "one"), RecipeError("TWO", "two", Position("r", 1, 1))]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_travel_whole(error: Exception) -> None:
    """An error that was sent says the same."""
    sent = pickle.loads(pickle.dumps(error))

    assert (type(error), str(error), error.__dict__.keys()) == (type(sent), str(sent), sent.__dict__.keys())


def test_unknown_executor_is_refused() -> None:
    """The Python API takes a name."""
    with pytest.raises(UsageError, match="no executor 'cloud'"):
        executor_named("cloud")


def test_progress_of_an_export_says_how_much_there_is(place: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a file has to be copied, its size is known from the start."""

    def refuse(*arguments: object) -> int:
        raise OSError

    monkeypatch.setattr("fcntl.ioctl", refuse)
    events = _build(place, RunOptions(), "imported")

    copied = [event for event in events if isinstance(event, ActionProgress) and "export" in event.action]
    size_bytes = (place.root / "copy.gguf").stat().st_size
    assert (size_bytes, size_bytes) == (copied[-1].done_bytes, copied[-1].total_bytes)
