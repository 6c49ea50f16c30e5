"""What those who look are told, and what it costs."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from types import SimpleNamespace

import pytest

from modelbuild.events import ActionFinished, ActionStarted
from modelbuild.server import hub as hubs
from modelbuild.server import observe
from modelbuild.server.builds import Build
from modelbuild.server.hub import Hub, Message
from modelbuild.server.observe import Observer
from modelbuild.server.places import Places
from modelbuild.server.settings import ServerSettings
from tests.hasty_loop import run_at_once
from tests.serving import Client, running_server


def _observer(hub: Hub) -> Observer:
    return Observer(hub, Places(ServerSettings(Path("/models"), Path("/cache"))))


def _build() -> Build:
    return Build(1, "", "many", lambda _: None, 0.0, state="running")


async def _sent(hub: Hub, after: int | None = 0) -> Sequence[Message]:
    """All messages of a closed hub."""
    async with aclosing(hub.follow(after)) as messages:
        found = []
        while (message := await anext(messages)) is not None:
            found.append(message)
        return found


def test_a_build_of_many_actions_is_shown_a_few_times() -> None:
    """What happens at once is shown at once, not each time with everything that was there before."""

    async def scene() -> list[dict[str, object]]:
        hub, build = Hub(), _build()
        observer = _observer(hub)
        for number in range(200):
            observer.watch(build, ActionStarted(f"a{number}", "text", "system", (), 1))
            observer.watch(build, ActionFinished(f"a{number}", "text", "system", "ran", "sha256:0", 1, 0.1))
        await asyncio.sleep(60)
        build.state = "done"
        observer.watch(build, None)
        return [json.loads(message.data) for message in await _sent(hub) if message.name == "build"]

    gathered, last = run_at_once(scene())

    assert [("running", 200), ("done", 200)] == [(each["state"], len(each["actions"])) for each in (gathered, last)]
    assert {"ran"} == {action["state"] for action in gathered["actions"]}


def test_the_end_of_a_build_is_the_last_that_is_shown_of_it() -> None:
    """It is not shown again by what was gathered before."""

    async def scene() -> Sequence[Message]:
        hub, build = Hub(), _build()
        observer = _observer(hub)
        observer.watch(build, ActionStarted("a", "text", "system", (), 1))
        build.state = "failed"
        observer.watch(build, None)
        await asyncio.sleep(60)
        return await _sent(hub)

    assert ["engine", "build"] == [message.name for message in run_at_once(scene())]


def test_showing_takes_a_small_share_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A build that takes a second to show is shown every twenty."""
    seconds = itertools.count()
    monkeypatch.setattr(observe, "time", SimpleNamespace(perf_counter=lambda: next(seconds)))

    async def scene() -> int:
        hub, build = Hub(), _build()
        observer = _observer(hub)
        for _ in range(60):
            observer.watch(build, ActionStarted("a", "text", "system", (), 1))
            await asyncio.sleep(1)
        return [message.name for message in await _sent(hub)].count("build")

    assert 4 == run_at_once(scene())  # the first, and one for each twenty seconds


def test_kept_messages_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """By their number, and by their size; the newest stays however large it is."""
    monkeypatch.setattr(hubs, "_KEPT", 5)
    monkeypatch.setattr(hubs, "_KEPT_BYTES", 100)

    async def scene() -> list[list[int]]:
        hub = Hub()
        found = []
        for count, size in ((9, 1), (1, 80), (1, 200)):
            for _ in range(count):
                hub.publish("m", {"t": "x" * size})
            found.append([message.number for message in await _sent(hub)])
        return found

    assert [[5, 6, 7, 8, 9], [9, 10], [11]] == run_at_once(scene())


def test_who_is_slow_holds_nothing_that_the_others_have_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixty-four slow clients would else keep as many sets of old messages in memory."""
    monkeypatch.setattr(hubs, "_KEPT", 3)

    async def scene() -> list[int]:
        hub, taken = Hub(), []
        async with aclosing(hub.follow(0)) as messages:
            for _ in range(3):
                for _ in range(3):
                    hub.publish("m", {})
                message = await anext(messages)
                assert message is not None
                taken.append(message.number)
        return taken

    assert [1, 4, 7] == asyncio.run(scene())


def test_what_is_said_last_is_heard() -> None:
    """How builds end when the server stops is said right before all streams end."""

    async def scene() -> list[int]:
        hub = Hub()
        hub.publish("m", {})
        hub.publish("m", {})
        hub.close()
        return [message.number async for message in hub.follow(0) if message is not None]

    assert [1, 2] == asyncio.run(scene())


@pytest.mark.parametrize(("after", "expected"), [(None, []), (0, [1, 2]), (1, [2]), (2, []), (77, [1, 2])])
def test_who_comes_back_gets_what_was_missed(after: int | None, expected: list[int]) -> None:
    """Also when the server began anew meanwhile, and counts from one again."""

    async def scene() -> list[int]:
        hub = Hub()
        hub.publish("m", {})
        hub.publish("m", {})
        return [message.number for message in await _sent(hub, after)]

    assert expected == run_at_once(scene())


@pytest.mark.parametrize("number", ["9" * 5000, "-1", "x", "\u0663"])
def test_what_is_no_number_of_a_message(tmp_path: Path, number: str) -> None:
    """It is as good as none."""
    with (
        running_server(ServerSettings(tmp_path / "models", tmp_path / "cache", port=0)) as client,
        client.connect() as connection,
    ):
        connection.sendall(
            b"GET /events HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: " + number.encode() + b"\r\n\r\n"
        )
        received = b""
        while b": modelbuild" not in received and (part := connection.recv(1000)):
            received += part

    assert received.startswith(b"HTTP/1.1 200 ")


def test_the_disk_is_measured_while_files_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory or file that is gone in the middle counts as nothing."""
    (tmp_path / "models" / "sub").mkdir(parents=True)
    (tmp_path / "models" / "blob").write_bytes(b"x")
    scandir = observe.os.scandir

    def vanish(place: str) -> object:
        if str(place).endswith("sub"):
            raise FileNotFoundError(place)
        return scandir(place)

    monkeypatch.setattr(observe.os, "scandir", vanish)
    with running_server(ServerSettings(tmp_path / "models", tmp_path / "cache", port=0)) as client:
        assert 1 == _disk(client)["store"]["files"]


def _disk(client: Client) -> dict[str, dict[str, int]]:
    answer = client.ask("GET", "/disk")
    assert 200 == answer.status
    return dict(answer.json)
