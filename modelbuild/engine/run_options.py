"""How a plan is run: what every door that builds has to say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from modelbuild.engine.executor import InlineExecutor, MakeExecutor
from modelbuild.engine.publish import Approve, approve_all
from modelbuild.records import record


def _go_on() -> None:
    """The check of a run that nobody ends."""


@record
class RunOptions:
    """How to run.

    link: one of store.link_mode.LINK_MODES. force: run everything. workers: cores that actions may use together.
    keep_going: after an error, go on with what does not depend on it.
    allow_nonfinite: pack weights that are infinite or no number as llama.cpp's functions do, instead of refusing them.
    check: called again and again while others work; may end the run by an exception, as `emit` may.
    approve: called with a model's name and its manifest's digest before it is published; may refuse by an exception.
    executor: makes what runs the actions, see `engine.executor`.
    locks: the cache whose locks the run shares; that of its state when None.
    """

    link: str = "auto"
    force: bool = False
    workers: int | None = None
    keep_going: bool = False
    allow_nonfinite: bool = False
    check: Callable[[], None] = _go_on
    approve: Approve = approve_all
    executor: MakeExecutor = InlineExecutor
    locks: Path | None = None
