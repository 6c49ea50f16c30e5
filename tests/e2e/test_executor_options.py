"""`--jobs` and `--executor` at every door that runs actions."""

from __future__ import annotations

import dataclasses
from threading import current_thread, main_thread
from typing import Any

import pytest

from modelbuild.engine.local_workers import LocalWorkers
from modelbuild.engine.run_options import RunOptions
from modelbuild.engine.runner import Runner
from modelbuild.errors import UsageError
from tests.space import Space

OPTIONS = ("--jobs", "1", "--executor", "workers")
RECIPE = "model: m\nfrom: 'big:120b'\nremote_host: 'https://models.example.com'\nsystem: One.\n"


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[RunOptions]:
    """The options of each run; none gets any further: a command leaves as after Ctrl-C, a server answers an error."""
    taken: list[RunOptions] = []

    def take(self: Runner, plan: object, bench: object, options: RunOptions) -> None:
        taken.append(options)
        raise KeyboardInterrupt if current_thread() is main_thread() else UsageError("USAGE", "that was far enough")

    monkeypatch.setattr(Runner, "__init__", take)
    return taken


@pytest.mark.parametrize("command", ["build", "check", "watch"])
def test_commands_hand_them_to_the_run(space: Space, given: list[RunOptions], command: str) -> None:
    """What is typed is what the runner gets; without it all cores, in this process."""
    space.recipe(RECIPE)

    assert [130, 130] == [space.run(command, "recipe.yaml", *options).status for options in (OPTIONS, ())]
    assert [LocalWorkers, "InlineExecutor"] == [given[0].executor, getattr(given[1].executor, "__name__", "")]
    assert [1, None] == [options.workers for options in given]


def test_repairing_hands_them_to_the_run(space: Space, given: list[RunOptions]) -> None:
    """Whoever builds damaged models again may say with what."""
    space.recipe(RECIPE)
    assert 0 == space.spawn("build", "recipe.yaml").status
    blob = next(path for path in (space.store / "blobs").iterdir() if path.read_bytes() == b"One.")
    blob.write_bytes(b"Two.")

    assert 130 == space.run("verify", "--repair", "recipe.yaml", *OPTIONS).status
    assert [(LocalWorkers, 1)] == [(options.executor, options.workers) for options in given]


@pytest.mark.parametrize("command", ["serve", "watch"])
def test_servers_hand_them_to_every_creation(
    space: Space, given: list[RunOptions], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """A creation by request runs as the server was told to, also beside a watch."""
    pytest.importorskip("aiohttp", reason="the extra `server` is not installed")
    from modelbuild.server.beside import ServerBeside
    from tests.serving import running_server

    started: list[Any] = []

    def note_beside(self: ServerBeside, settings: object) -> None:
        started.append(settings)
        raise KeyboardInterrupt

    monkeypatch.setattr("modelbuild.server.run.run_server", lambda settings, announce: started.append(settings))
    monkeypatch.setattr(ServerBeside, "__init__", note_beside)
    space.recipe(RECIPE)
    space.run(command, *(["--serve"] if command == "watch" else []), *OPTIONS)

    with running_server(dataclasses.replace(started[0], port=0)) as client:
        answer = client.ask(
            "POST", "/api/create", {"model": "m", "from": "big:120b", "remote_host": "https://models.example.com"}
        )
    assert "that was far enough" in answer.body.decode()
    assert [(LocalWorkers, 1)] == [(options.executor, options.workers) for options in given]
