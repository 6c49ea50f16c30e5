"""Builds on a Dask cluster whose workers are killed, see other files, or are left alone by the runner."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelbuild.digest import digest_of
from modelbuild.engine.build import BuildRequest, build_recipe
from modelbuild.engine.executor import KnownFile, RunTask, executor_named
from modelbuild.engine.run_options import RunOptions
from modelbuild.errors import ModelbuildError
from modelbuild.events import ignore_event
from modelbuild.extras import install_hint
from modelbuild.plan.action import FileInput
from modelbuild.plan.resources import Resources
from modelbuild.store.state import FileStat, State
from tests import cluster as workers
from tests.cluster import Cluster, dask_cluster
from tests.small_gguf import TENSORS, write_gguf
from tests.space import Space
from tests.tinydocs import copy_checkpoint

dask_module = pytest.importorskip("modelbuild.engine.dask_cluster")
pytest.importorskip("distributed", reason="the extra `dask` is not installed")

RECIPE = """models:
  imported: {from: ./weights.gguf, system: One.}
  packed: {from: ./checkpoint, quantize: Q8_0}
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with dask_cluster(tmp_path_factory.mktemp("cluster-cache")) as cluster:
        yield cluster


@pytest.fixture
def place(space: Space) -> Space:
    """Weights to import and weights to pack."""
    space.write("weights.gguf", write_gguf())
    copy_checkpoint(space.root / "checkpoint")
    space.recipe(RECIPE)
    return space


def _files(place: Space) -> dict[str, bytes]:
    blobs = (place.store / "blobs").iterdir()
    return {path.name: path.read_bytes() for path in blobs}


def test_a_worker_that_is_killed_costs_no_build(
    place: Space, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another worker goes on, and the result is that of a build on this machine; nothing is left behind."""
    monkeypatch.setattr(dask_module, "work_on", workers.die_at_first_progress)

    done = place.run("build", "recipe.yaml", "--executor", cluster.address)

    assert 0 == done.status, done.stderr
    assert (cluster.cache / "died").exists()
    found = _files(place)
    place.store = place.root / "inline"
    assert 0 == place.run("build", "recipe.yaml", "--force").status
    assert _files(place) == found
    assert not (place.root / "models" / ".modelbuild").exists()


def test_a_task_that_kills_every_worker_is_an_error(
    place: Space, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is given up after a few, with the action's name; the store stays whole."""
    monkeypatch.setattr(dask_module, "work_on", workers.always_die)

    done = place.run("build", "recipe.yaml", "packed", "--executor", cluster.address)

    assert 1 == done.status
    assert "convert checkpoint to Q8_0: the workers that tried it were lost" in done.stderr
    assert "hint: if memory is short" in done.stderr


def test_ctrl_c_takes_a_task_back(place: Space, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker ends the task at its next event, although nobody can kill the thread that does it."""
    monkeypatch.setattr(dask_module, "work_on", workers.never_end)

    def check() -> None:
        if (cluster.cache / "begun").exists():
            raise KeyboardInterrupt

    executor = executor_named(cluster.address)
    request = BuildRequest(
        place.root / "recipe.yaml", place.store, place.cache, ("packed",), RunOptions(executor=executor, check=check)
    )
    state = State(place.cache)
    with pytest.raises(KeyboardInterrupt):
        build_recipe(request, state, ignore_event)
    state.close()

    deadline_s = time.monotonic() + 20
    while not (cluster.cache / "taken back").exists() and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert (cluster.cache / "taken back").exists()


def test_a_lost_cluster_is_an_error(place: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scheduler that goes away ends the build at once, with one error for each action under `keep_going`."""
    monkeypatch.setattr(dask_module, "work_on", workers.never_end)
    place.recipe("models:\n  a: {from: ./checkpoint, quantize: Q8_0}\n  b: {from: ./weights.gguf}\n")

    with dask_cluster(tmp_path) as cluster:

        def check() -> None:
            if (tmp_path / "begun").exists():
                cluster.process.kill()

        options = RunOptions(executor=executor_named(cluster.address), check=check, keep_going=True)
        request = BuildRequest(place.root / "recipe.yaml", place.store, place.cache, (), options)
        state = State(place.cache)
        with pytest.raises(ModelbuildError, match="the connection to the cluster was lost"):
            build_recipe(request, state, ignore_event)
        state.close()


def test_what_a_worker_read_is_known_here(place: Space, cluster: Cluster) -> None:
    """The digest of a large file that was read elsewhere is recorded in this cache, so the next build reads nothing."""
    large = place.write("large.gguf", write_gguf(tensors=TENSORS | {"blk.0.ffn_gate.weight": (1024, 1024)}))
    place.recipe("model: m\nfrom: ./large.gguf\n")
    assert 0 == place.run("build", "recipe.yaml", "--executor", cluster.address).status

    state = State(place.cache)

    assert digest_of(large.read_bytes()) == state.last_file_digest(str(large), FileInput("weights", large).scheme)
    state.close()
    assert "nothing to do" in place.run("build", "recipe.yaml").stderr


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "tcp://nowhere", "tls://127.0.0.1:1"])
def test_a_cluster_that_is_not_there(place: Space, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One clear error before any work."""
    monkeypatch.setattr(dask_module, "_CONNECT_S", 0.3)

    done = place.run("build", "recipe.yaml", "--executor", address)

    assert 1 == done.status
    assert f"error: no Dask scheduler answers at {address}\n  hint: is the address right" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_cluster_needs_its_extra(place: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Dask the command that installs it is named."""
    monkeypatch.setitem(sys.modules, "distributed", None)

    done = place.run("build", "recipe.yaml", "--executor", "tcp://127.0.0.1:1")

    assert 2 == done.status
    assert f"error: a Dask cluster needs the extra 'dask'\n  hint: {install_hint('dask')}" in done.stderr


# -- files that machines see differently ------------------------------------------------------------------------------


def _task(*known: KnownFile) -> RunTask:
    return RunTask((), {}, known, Resources(cores=8))


def test_a_worker_takes_its_own_record_of_a_file(tmp_path: Path) -> None:
    """Device, inode and ctime are another machine's; size and time agree, so the digest counts. So do its cores."""
    path = tmp_path / "weights"
    path.write_bytes(b"x")
    ours = FileStat.of(path.stat())
    theirs = ours._replace(device=ours.device + 1, inode=1, ctime_ns=1)

    fitted = dask_module._fitted(_task(KnownFile(FileInput("weights", path), digest_of(b"x"), theirs)), 2)

    assert ours == fitted.known[0].stat
    assert 2 == fitted.need.cores


@pytest.mark.parametrize("change", [{"size_bytes": 7}, {"mtime_ns": 7}])
def test_a_worker_refuses_another_version_of_a_file(tmp_path: Path, change: dict[str, int]) -> None:
    """A digest of other content must not be used."""
    path = tmp_path / "weights"
    path.write_bytes(b"x")
    theirs = FileStat.of(path.stat())._replace(**change)

    with pytest.raises(dask_module._Unreachable, match=r"sees another version of .*weights"):
        dask_module._fitted(_task(KnownFile(FileInput("weights", path), digest_of(b"x"), theirs)), 2)


def test_a_worker_that_does_not_see_a_file_says_so(tmp_path: Path) -> None:
    """It names itself and the first path that is missing: the store, or an input."""
    path = tmp_path / "weights"
    task = _task(KnownFile(FileInput("weights", path), digest_of(b"x"), None))

    with pytest.raises(dask_module._Unreachable, match=r"the machine \S+ has no .*weights"):
        dask_module._check_reach(tmp_path, task)
    with pytest.raises(dask_module._Unreachable, match=r"has no .*store"):
        dask_module._check_reach(tmp_path / "store", task)
