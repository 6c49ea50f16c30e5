"""Running a server: listen, serve until a signal, end in good order."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from modelbuild.errors import StoreError, UsageError
from modelbuild.server.app import Application
from modelbuild.server.connection import Connections
from modelbuild.server.guard import is_loopback
from modelbuild.server.settings import ServerSettings

#: Connections that the system holds for us, and how many of them are accepted before anything else is done: all at once
#: would need as many open files.
_BACKLOG, _ACCEPTED_AT_ONCE = 1024, 32


def run_server(settings: ServerSettings, announce: Callable[[str, int], None]) -> None:
    """Serve until SIGINT or SIGTERM; `announce` gets the address once connections are accepted.

    UsageError AUTH when it would be open to other machines without a token; StoreError ADDRESS when the address is not
    to be had.
    """
    refuse_open(settings)
    asyncio.run(_serve(settings, announce))


def refuse_open(settings: ServerSettings) -> None:
    """UsageError AUTH when other machines could reach the server without a token."""
    if not is_loopback(settings.host) and not settings.token and not settings.without_token:
        raise UsageError(
            "AUTH",
            f"{settings.host} can be reached from other machines, and no token is set",
            hint="give --token-file FILE, or --insecure-no-auth if everybody who can reach it may change your models",
        )


async def _serve(settings: ServerSettings, announce: Callable[[str, int], None]) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    async with serving(settings) as port:
        announce(settings.host, port)
        await stopping.wait()


@asynccontextmanager
async def serving(settings: ServerSettings, application: Application | None = None) -> AsyncIterator[int]:
    """A server that answers while the block runs; gives the port it listens on."""
    application = application or Application(settings)
    connections = Connections(application.handle, settings.limits, **_log_options(settings))
    listener = await _listen(settings, connections)
    try:
        await application.start()
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        await application.shutdown()
        await connections.shutdown(settings.limits.shutdown_s)


async def _listen(settings: ServerSettings, connections: Connections) -> asyncio.Server:
    host = None if settings.host in ("", "0.0.0.0") else settings.host  # noqa: S104 - compared, not bound
    try:
        loop = asyncio.get_running_loop()
        port = settings.port or _free_port(host)
        listener = await loop.create_server(connections, host, port, backlog=_ACCEPTED_AT_ONCE, reuse_address=True)
    except (OSError, socket.gaierror) as error:
        raise StoreError(
            "ADDRESS",
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror or error}",
            hint="is another server running there? choose another port with --port",
        ) from error
    for accepting in listener.sockets:
        with socket.socket(fileno=os.dup(accepting.fileno())) as same:
            same.listen(_BACKLOG)
    return listener


def _free_port(host: str | None) -> int:
    """0 for a single address, of which the system chooses a port; else one port for all, or each gets its own."""
    try:
        ipaddress.ip_address(host or "")
    except ValueError:
        with socket.socket() as probe:
            probe.bind(("", 0))
            return int(probe.getsockname()[1])
    return 0


def _log_options(settings: ServerSettings) -> dict[str, Any]:
    from modelbuild.server.access_log import AccessLog, access_logger

    if not settings.access_log:
        return {"access_log": None}
    return {"access_log_class": AccessLog, "access_log": access_logger()}
