"""A Dask cluster of two workers on this machine, each a process with a cache of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from modelbuild.events import ActionProgress, Event


@dataclass(frozen=True)
class Cluster:
    """The address of its scheduler, the process that it is, and the cache of the workers, which are its children."""

    address: str
    process: subprocess.Popen[str]
    cache: Path


@contextmanager
def dask_cluster(cache: Path) -> Iterator[Cluster]:
    """A cluster that ends with the block."""
    pytest.importorskip("distributed", reason="the extra `dask` is not installed")
    environment = os.environ | {"MODELBUILD_CACHE": str(cache), "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.cluster"],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            yield Cluster(process.stdout.readline().strip(), process, cache)
        finally:
            process.communicate(timeout=60)


def main() -> None:
    """Run a cluster until standard input ends; its address is the first line of what this prints."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2, threads_per_worker=2, host="127.0.0.1", dashboard_address=":0", silence_logs="CRITICAL"
    ) as cluster:
        sys.stdout.write(f"{cluster.scheduler_address}\n")
        sys.stdout.flush()
        sys.stdin.read()


def die_at_first_progress(parcel: bytes) -> bytes:
    """Instead of `work_on`: the first worker that packs a block kills itself."""
    from modelbuild.engine import dask_cluster

    marker = Path(os.environ["MODELBUILD_CACHE"]) / "died"
    real = dask_cluster.Teller

    class Dying(real):  # type: ignore[misc,valid-type]
        def __call__(self, event: Event) -> None:
            super().__call__(event)
            if isinstance(event, ActionProgress) and event.done_bytes and not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dask_cluster, "Teller", Dying)
        return dask_cluster.work_on(parcel)


def always_die(parcel: bytes) -> bytes:
    """Instead of `work_on`: no worker survives it."""
    del parcel
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def never_end(parcel: bytes) -> bytes:
    """Instead of `work_on`: emits until the task is taken back, and notes that it was."""
    from distributed import get_worker

    from modelbuild.engine.dask_cluster import _unless_taken_back

    del parcel
    cache = Path(os.environ["MODELBUILD_CACHE"])
    emit = _unless_taken_back(get_worker(), lambda event: (cache / "begun").touch())
    try:
        while True:
            emit(ActionProgress("a", 1, 2))
            time.sleep(0.02)
    finally:
        (cache / "taken back").touch()


if __name__ == "__main__":
    main()
