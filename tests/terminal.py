"""`modelbuild watch` on a terminal of its own, as a person types it."""

from __future__ import annotations

import fcntl
import os
import pty
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from contextlib import suppress

from tests.space import Space

PATIENCE_S = 60.0
# What a person's shell says of the terminal, whatever runs the tests says of its own: CI may set CI, TERM or NO_COLOR.
TERMINAL = {"TERM": "xterm", "COLUMNS": "200", "CI": "", "NO_COLOR": ""}
_running: list[subprocess.Popen[bytes]] = []


class Command:
    """A running watch on a terminal of its own; everything it writes is gathered."""

    def __init__(self, space: Space, *arguments: str, wrapped_in: Sequence[str] = ()) -> None:
        self.text = ""
        self._terminal, inside = pty.openpty()
        os.set_blocking(self._terminal, False)
        self.process = subprocess.Popen(
            [*wrapped_in, sys.executable, "-m", "modelbuild", "watch", *arguments],
            cwd=space.root,
            env=space.environment() | TERMINAL,
            stdin=inside,
            stdout=inside,
            stderr=inside,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(inside)
        _running.append(self.process)

    def wait_for(self, text: str) -> str:
        """Everything from here on up to where a text appears."""
        deadline_s = time.monotonic() + PATIENCE_S
        while text not in self.text:
            assert time.monotonic() < deadline_s, self.text
            self._read()
        before, _, self.text = self.text.partition(text)
        return before + text

    def drain(self) -> str:
        """All that was written and not read yet."""
        self._read()
        text, self.text = self.text, ""
        return text

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._terminal, keys)

    def end(self) -> int:
        """Wait for the end, however it came; what was written until then is in `text`."""
        try:
            status = self.process.wait(PATIENCE_S)
            with suppress(OSError):
                while rest := os.read(self._terminal, 65536):
                    self.text += rest.decode()
            return status
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            self.mode_at_end = self.mode()
            os.close(self._terminal)

    def mode(self) -> list[object]:
        """How the terminal treats what is typed."""
        return termios.tcgetattr(self._terminal)

    def _read(self) -> None:
        try:
            self.text += os.read(self._terminal, 65536).decode()
        except BlockingIOError:
            time.sleep(0.02)
        except OSError:
            raise AssertionError(f"it has ended: {self.text}") from None


def end_all() -> None:
    """End what a test that failed has left."""
    while _running:
        process = _running.pop()
        if process.poll() is None:
            process.kill()
            process.wait()
