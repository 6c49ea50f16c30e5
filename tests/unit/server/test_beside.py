"""Builds of a watch on the pages of the server that runs beside it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from modelbuild.events import RunStarted, Warned
from modelbuild.server.settings import ServerSettings

pytest.importorskip("aiohttp", reason="the extra `server` is not installed")

from modelbuild.server.app import Application
from modelbuild.server.beside import ServerBeside
from tests.serving import Client


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[ServerBeside, Client]]:
    """One that serves nothing but its pages."""
    beside = ServerBeside(ServerSettings(tmp_path / "models", tmp_path / "cache", port=0))
    port = beside.start()
    yield beside, Client(port, tmp_path / "models")
    beside.stop()


def _states(client: Client, expected: list[str]) -> list[str]:
    """The states of all builds, once they are as expected or have had the time to."""
    deadline_s = time.monotonic() + 30
    while True:
        found = [build["state"] for build in client.ask("GET", "/builds").json["builds"]]
        if found == expected or time.monotonic() > deadline_s:
            return found
        time.sleep(0.01)


def test_a_warning_alone_is_no_build(server: tuple[ServerBeside, Client]) -> None:
    """It may say why nothing is built for now, and nothing would ever end that build."""
    beside, client = server
    beside.show(Warned("a.gguf is still being written"))
    time.sleep(0.1)
    assert [] == _states(client, [])

    beside.show(RunStarted(("a:latest",), 1))
    assert ["running"] == _states(client, ["running"])


@pytest.mark.parametrize(
    ("failure", "is_stopped", "expected"),
    [("", False, "done"), ("no such file", False, "failed"), ("stopped, a.gguf changed", True, "cancelled")],
)
def test_builds_end_as_they_did(
    server: tuple[ServerBeside, Client], failure: str, is_stopped: bool, expected: str
) -> None:
    """One that was stopped for the next one is no failure; one without any event is shown too."""
    beside, client = server
    beside.show(RunStarted(("a:latest",), 1))
    beside.finish(("a:latest",), failure, is_stopped=is_stopped)
    assert [expected] == _states(client, [expected])

    beside.finish((), "recipe.yaml: no such file")
    assert [expected, "failed"] == _states(client, [expected, "failed"])


def test_warnings_without_a_build_do_not_gather(server: tuple[ServerBeside, Client]) -> None:
    """However often one comes, the next build shows the last of them."""
    beside, client = server
    for number in range(1000):
        beside.show(Warned(f"warning {number}"))
    beside.show(RunStarted(("a:latest",), 1))
    assert ["running"] == _states(client, ["running"])

    (build,) = client.ask("GET", "/builds").json["builds"]
    assert "warning 999" == build["warnings"][-1]
    assert len(build["warnings"]) < 100


def test_a_server_that_cannot_start_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever hinders it, also what nobody has thought of, comes out of `start`."""

    def fail(application: Application) -> None:
        raise OSError("rotten")

    monkeypatch.setattr(Application, "start", fail)
    beside = ServerBeside(ServerSettings(tmp_path / "models", tmp_path / "cache", port=0))
    raised: Future[BaseException] = Future()

    def start() -> None:
        try:
            beside.start()
        except OSError as error:
            raised.set_result(error)

    threading.Thread(target=start, daemon=True).start()

    assert "rotten" == str(raised.result(30))
