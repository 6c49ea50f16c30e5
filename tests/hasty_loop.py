"""An event loop for tests that are about waiting, and should not wait."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")


class _HastyLoop(asyncio.SelectorEventLoop):
    """Its clock jumps to the next timer when there is nothing else to do."""

    _now_s = 0.0

    def time(self) -> float:
        return self._now_s

    def _run_once(self) -> None:
        timers = self._scheduled  # type: ignore[attr-defined]
        if timers and not self._ready:  # type: ignore[attr-defined]
            self._now_s = max(self._now_s, timers[0].when())
        super()._run_once()  # type: ignore[misc]


def run_at_once(work: Coroutine[Any, Any, _T]) -> _T:
    """What a coroutine gives, without waiting for any clock."""
    with asyncio.Runner(loop_factory=_HastyLoop) as runner:
        return runner.run(work)
