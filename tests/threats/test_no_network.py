"""Building never opens a connection: sockets and name lookups fail, and every command works."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from modelbuild.engine.build import BuildRequest
from modelbuild.errors import RecipeError
from modelbuild.events import ignore_event
from modelbuild.plan.planner import make_plan
from modelbuild.recipe.resolve import load_recipe
from modelbuild.store.state import State
from modelbuild.store.store import Store
from modelbuild.watch.loop import Round, WatchLoop, WatchOptions
from tests.small_gguf import write_gguf
from tests.space import Space

_attempts: list[str] = []
_watching = False


def _note_network(event: str, arguments: tuple[object, ...]) -> None:
    """Sees sockets that are made in C, too."""
    if _watching and event.startswith("socket."):
        _attempts.append(event)
        raise ConnectionRefusedError(event)


sys.addaudithook(_note_network)


@pytest.fixture
def offline() -> Iterator[list[str]]:
    """What was tried while the test ran; every attempt fails."""
    global _watching
    _attempts.clear()
    _watching = True
    yield _attempts
    _watching = False


RECIPE = """models:
  local: {from: ./base.gguf, system: Be kind.}
  far: {from: 'big:120b', remote_host: 'http://169.254.169.254/'}
"""


@pytest.fixture
def place(space: Space) -> Space:
    space.write("base.gguf", write_gguf())
    space.recipe(RECIPE)
    return space


def test_the_hook_sees_sockets(offline: list[str]) -> None:
    """The test would notice a connection."""
    import socket

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", 9))

    assert offline


def test_commands_need_no_network(place: Space, offline: list[str]) -> None:
    """R8: validate, plan, build, verify and gc open nothing; addresses of remote models are texts (r02)."""
    for arguments in (["validate", "recipe.yaml"], ["plan", "recipe.yaml"], ["build", "recipe.yaml"], ["verify"],
                      ["gc", "--older-than", "0"]):  # fmt: skip
        outcome = place.run(*arguments)
        assert 0 == outcome.status, outcome.stderr

    assert [] == offline


def test_watching_needs_no_network(place: Space, offline: list[str]) -> None:
    """R8: one round of the watch loop."""
    rounds: list[Round] = []
    state = State(place.cache)
    request = BuildRequest(place.root / "recipe.yaml", place.store, place.cache)
    try:
        WatchLoop(request, state, ignore_event, rounds.append, WatchOptions(poll=True)).run(rounds=1)
    finally:
        state.close()

    assert [""] == [done.failure for done in rounds]
    assert [] == offline


def test_unknown_base_is_not_looked_for_elsewhere(place: Space, offline: list[str]) -> None:
    """r01: a name with a typing error is an error with near names, never a download."""
    place.build()
    place.write("typo.yaml", "model: m\nfrom: locl\n")

    outcome = place.run("build", "typo.yaml")

    assert (2, True) == (outcome.status, "did you mean local" in outcome.stderr), outcome.stderr
    with pytest.raises(RecipeError) as caught:
        make_plan(load_recipe(place.root / "typo.yaml"), Store(place.store))
    assert "NETWORK" == caught.value.code
    assert [] == offline
