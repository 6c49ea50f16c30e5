"""A real browser for tests: Chromium without a window, driven over its DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_WAIT_S = 120.0


class Page:
    """One tab."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self.problems: list[str] = []

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command and its result; what the page complains about meanwhile is kept in `problems`."""
        number = next(self._ids)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            message = json.loads((await self._socket.receive(timeout=_WAIT_S)).data)
            if message.get("id") == number:
                assert "error" not in message, message
                return dict(message["result"])
            self._note(message)

    async def open(self, url: str) -> None:
        """Go to a page."""
        await self.call("Page.enable")
        await self.call("Runtime.enable")
        await self.call("Log.enable")
        await self.call("Page.navigate", url=url)
        await self.wait_for(f"location.href === {json.dumps(url)} && document.readyState === 'complete'")

    async def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page."""
        result = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def wait_for(self, expression: str) -> Any:
        """The value of an expression once it is true."""
        deadline_s = time.monotonic() + _WAIT_S
        while not (value := await self.evaluate(expression)):
            assert time.monotonic() < deadline_s, f"{expression} stays false"
            await asyncio.sleep(0.05)
        return value

    async def text(self) -> str:
        """All text that the page shows."""
        return str(await self.evaluate("document.body.innerText"))

    async def screenshot(self, path: Path) -> None:
        """A picture of the page."""
        path.write_bytes(base64.b64decode((await self.call("Page.captureScreenshot", format="png"))["data"]))

    def _note(self, message: dict[str, Any]) -> None:
        if message.get("method") == "Runtime.exceptionThrown":
            self.problems.append(message["params"]["exceptionDetails"]["exception"].get("description", ""))
        elif message.get("method") == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
            self.problems.append(message["params"]["entry"]["text"])


@asynccontextmanager
async def browser_page(profile: Path) -> AsyncIterator[Page]:
    """A tab of a new browser."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--window-size=1100,900"]
    options += [  # nothing is to be asked of machines elsewhere
        "--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync"
    ]  # fmt: skip
    command = [str(PROGRAM), *options, f"--user-data-dir={profile}", "--remote-debugging-port=0", "about:blank"]
    # It leaves files behind; and with a longer path than this one it could not make a socket among them.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        async with _tab(command, place, profile) as socket:
            yield Page(socket)


@asynccontextmanager
async def _tab(command: list[str], place: str, profile: Path) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    environment = os.environ | {"TMPDIR": place}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        port = await _debugging_port(profile / "DevToolsActivePort")
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json") as response:
                tab = next(item for item in await response.json() if item["type"] == "page")
            async with session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                yield socket
    finally:
        process.terminate()
        process.wait(60)


async def _debugging_port(path: Path) -> int:
    deadline_s = time.monotonic() + _WAIT_S
    while not (path.exists() and (lines := path.read_text().splitlines())):
        assert time.monotonic() < deadline_s, "the browser did not start"
        await asyncio.sleep(0.05)
    return int(lines[0])
