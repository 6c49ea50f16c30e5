"""Running creates: sharing, queueing, cancelling, stopping."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from modelbuild.events import ActionProgress, Event
from modelbuild.server.answers import Refusal
from modelbuild.server.builds import Build, BuildCancelled, Builds, BuildStopped, Job, Worker
from modelbuild.server.settings import Limits
from modelbuild.server.view import ActionView

LIMITS = Limits(builds=1, waiting_builds=2, shutdown_s=5.0)


class Stage:
    """Builds with jobs that do what the test tells them."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.seen: list[tuple[str, str]] = []
        self.events: list[Event] = []
        self.ended: list[type[BaseException] | None] = []
        self.builds = Builds(limits, lambda error: Refusal(418, str(error)), self._watch)
        self.go_on = threading.Event()
        self.begun = threading.Semaphore(0)

    def _watch(self, build: Build, event: Event | None) -> None:
        if event is None:
            self.seen.append((build.title, build.state))
        else:
            self.events.append(event)

    def steady(self, worker: Worker) -> None:
        """Reports until it is told to end, or ended."""
        self.begun.release()
        try:
            while not self.go_on.wait(0.005):
                worker.report({"status": "working", "total": 10, "completed": 10})
            worker.report({"status": "success"})
        except BaseException as error:
            self.ended.append(type(error))
            raise
        self.ended.append(None)

    async def until_begun(self) -> None:
        await asyncio.to_thread(self.begun.acquire, timeout=30)

    async def statuses(self, build: Build) -> list[str]:
        with self.builds.following(build) as lines:
            return [str(line["status"]) async for line in lines]


def run(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scene(), 60))


def reports(*statuses: str) -> Job:
    def job(worker: Worker) -> None:
        for status in statuses:
            worker.report({"status": status})

    return job


def test_lines_arrive_in_order() -> None:
    """A follower gets every line, and a late one gets them from the start."""

    async def scene() -> None:
        stage = Stage()
        build = stage.builds.join("k", "m", reports("a", "b", "c"))
        assert ["a", "b", "c"] == await stage.statuses(build)
        assert ["a", "b", "c"] == await stage.statuses(build)
        assert "done" == build.state

    run(scene)


def test_equal_requests_share_one_execution() -> None:
    """While a build is under way its key leads to it; afterwards a new one begins."""

    async def scene() -> None:
        stage = Stage()
        first = stage.builds.join("k", "m", stage.steady)
        second = stage.builds.join("k", "m", stage.steady)
        assert first is second
        following = asyncio.gather(stage.statuses(first), stage.statuses(second))
        await stage.until_begun()
        stage.go_on.set()
        assert ["success", "success"] == [lines[-1] for lines in await following]
        assert [None] == stage.ended
        assert first is not stage.builds.join("k", "m", reports("again"))

    run(scene)


def test_one_leaving_client_of_two_changes_nothing() -> None:
    """A build goes on as long as somebody waits for it."""

    async def scene() -> None:
        stage = Stage()
        build = stage.builds.join("k", "m", stage.steady)
        staying = asyncio.create_task(stage.statuses(build))
        leaving = asyncio.create_task(stage.statuses(build))
        await stage.until_begun()
        leaving.cancel()
        await asyncio.wait([leaving])
        stage.go_on.set()
        assert "success" == (await staying)[-1]

    run(scene)


def test_a_system_without_threads_is_too_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A build for which there is no thread is refused, and takes nobody's place."""

    async def scene() -> None:
        stage = Stage()
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", lambda _: (_ for _ in ()).throw(RuntimeError("no more threads")))
            refused = stage.builds.join("k", "m", reports("never"))
        assert [] == await stage.statuses(refused)
        assert ("failed", 503) == (refused.state, refused.refusal and refused.refusal.status)
        assert ["a"] == await stage.statuses(stage.builds.join("k", "m", reports("a")))

    run(scene)


@pytest.mark.parametrize(("actions_each", "finished"), [(1, 49), (8_000, 2)])
def test_old_builds_are_forgotten(actions_each: int, finished: int) -> None:
    """The last ones stay, and not more than can be shown; what is not over is never forgotten."""

    async def scene() -> None:
        stage = Stage()
        running = stage.builds.adopt("running")
        action = ActionView("a", "text", "system")
        for number in range(60):
            build = stage.builds.adopt(str(number))
            build.view.actions = dict.fromkeys(map(str, range(actions_each)), action)
            build.state = "done"
        last = stage.builds.adopt("last")
        kept = [running.title, *(str(number) for number in range(60 - finished, 60)), last.title]
        assert kept == [build.title for build in stage.builds.remembered.values()]

    run(scene)


def test_the_last_leaving_client_ends_the_build() -> None:
    """When nobody waits any more the job is ended at its next report, and its key is free."""

    async def scene() -> None:
        stage = Stage()
        build = stage.builds.join("k", "m", stage.steady)
        leaving = asyncio.create_task(stage.statuses(build))
        await stage.until_begun()
        leaving.cancel()
        await asyncio.wait([leaving])
        after = stage.builds.join("k", "m", reports("new"))
        assert after is not build
        assert ["waiting in line, position 1", "new"] == await stage.statuses(after)
        assert ("cancelled", [BuildCancelled]) == (build.state, stage.ended)

    run(scene)


def test_waiting_builds_know_their_place() -> None:
    """Builds beyond the limit wait in order, say so, move up, and beyond the queue are refused."""

    async def scene() -> None:
        stage = Stage()
        first = stage.builds.join("1", "first", stage.steady)
        second = stage.builds.join("2", "second", reports("two"))
        third = stage.builds.join("3", "third", reports("three"))
        assert [0, 1, 2] == [build.position for build in (first, second, third)]
        with pytest.raises(Refusal) as refused:
            stage.builds.join("4", "fourth", reports("four"))
        assert 503 == refused.value.status
        assert second is stage.builds.join("2", "second", reports("two"))
        following = asyncio.gather(*(stage.statuses(build) for build in (first, second, third)))
        await stage.until_begun()
        stage.go_on.set()
        lines = await following
        assert ["waiting in line, position 1", "two"] == lines[1]
        assert "three" == lines[2][-1]

    run(scene)


def test_a_waiting_build_leaves_the_line_when_its_client_leaves() -> None:
    """It never starts, and those behind it move up."""

    async def scene() -> None:
        stage = Stage()
        first = stage.builds.join("1", "first", stage.steady)
        second = stage.builds.join("2", "second", stage.steady)
        third = stage.builds.join("3", "third", reports("three"))
        with stage.builds.following(second):
            pass
        assert ("cancelled", 1) == (second.state, third.position)
        await stage.until_begun()
        stage.go_on.set()
        await stage.statuses(first)
        await stage.statuses(third)
        assert [None] == stage.ended

    run(scene)


def test_a_failing_job_is_an_answer() -> None:
    """What a job raises becomes a refusal; the lines before it stay."""

    async def scene() -> None:
        stage = Stage()

        def job(worker: Worker) -> None:
            worker.report({"status": "a"})
            raise ValueError("broken")

        build = stage.builds.join("k", "m", job)
        assert ["a"] == await stage.statuses(build)
        assert build.refusal is not None
        assert ("failed", 418, "broken") == (build.state, build.refusal.status, build.refusal.text)

    run(scene)


def test_progress_is_kept_once() -> None:
    """Of many progress lines about the same bytes a late follower gets the last one only."""

    async def scene() -> None:
        stage = Stage()

        def job(worker: Worker) -> None:
            for completed in range(1, 101):
                worker.report({"status": "packing", "digest": "0", "total": 100, "completed": completed})
            worker.report({"status": "success"})

        build = stage.builds.join("k", "m", job)
        await stage.statuses(build)
        assert [100, None] == [line.get("completed") for _, line in build.lines]

    run(scene)


def test_events_are_passed_on_without_a_flood() -> None:
    """Watchers get the engine's events; of progress in quick succession only the first and the last."""

    async def scene() -> None:
        stage = Stage()

        def job(worker: Worker) -> None:
            for done in range(1, 1001):
                worker.emit(ActionProgress("a", done, 1000))

        await stage.statuses(stage.builds.join("k", "m", job))
        done = [event.done_bytes for event in stage.events if isinstance(event, ActionProgress)]
        assert (1, 1000) == (done[0], done[-1])
        assert len(done) < 20
        assert [("m", "running"), ("m", "done")] == stage.seen

    run(scene)


def test_stopping_ends_everything() -> None:
    """When the server stops, waiting builds are dropped and running ones ended in the way that keeps partial files."""

    async def scene() -> None:
        stage = Stage()
        first = stage.builds.join("1", "first", stage.steady)
        second = stage.builds.join("2", "second", stage.steady)
        following = asyncio.gather(stage.statuses(first), stage.statuses(second))
        await stage.until_begun()
        await stage.builds.shutdown()
        await following
        assert ["cancelled", "cancelled"] == [first.state, second.state]
        assert [BuildStopped] == stage.ended

    run(scene)


def test_a_client_that_leaves_a_stopping_server_costs_nothing() -> None:
    """What a build has made stays for the next run when the server stops, whoever leaves before its next report."""

    async def scene() -> None:
        stage = Stage()

        def pack(worker: Worker) -> None:
            stage.begun.release()
            stage.go_on.wait(30)
            try:
                worker.check()
            except BaseException as error:
                stage.ended.append(type(error))
                raise

        following = asyncio.create_task(stage.statuses(stage.builds.join("1", "m", pack)))
        await stage.until_begun()
        stopping = asyncio.create_task(stage.builds.shutdown())
        await asyncio.sleep(0)
        following.cancel()
        await asyncio.wait([following])
        stage.go_on.set()
        await stopping
        assert [BuildStopped] == stage.ended

    run(scene)


def test_a_stopping_server_begins_nothing() -> None:
    """Who asks on a connection that is still open is told so, instead of being cut off later."""

    async def scene() -> None:
        stage = Stage()
        await stage.builds.shutdown()
        with pytest.raises(Refusal) as refused:
            stage.builds.join("1", "m", reports("new"))
        assert (503, "the server is stopping") == (refused.value.status, refused.value.text)

    run(scene)
