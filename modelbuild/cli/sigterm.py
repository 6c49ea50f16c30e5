"""What SIGTERM does while the terminal looks different from how it was found."""

from __future__ import annotations

import signal
import threading


def interrupt_on_sigterm() -> None:
    """Let SIGTERM do what Ctrl-C does, so that whoever has changed the terminal can put it back.

    Where somebody ignores it or handles it, as a server does, and outside of the main thread, nothing changes.
    """
    is_ours = (
        threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    )
    if is_ours:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
