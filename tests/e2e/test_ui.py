"""The pages in a real browser, where one is installed."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from modelbuild.digest import digest_of
from modelbuild.events import ActionStarted, Warned
from modelbuild.server.settings import ServerSettings

pytest.importorskip("aiohttp", reason="the extra `server` is not installed")

from modelbuild.server.beside import ServerBeside
from tests.browser import PROGRAM, Page, browser_page
from tests.serving import Client, running_server
from tests.small_gguf import write_gguf
from tests.space import Space
from tests.terminal import Command, end_all

WATCHED = """models:
  a: {from: 'big:120b', remote_host: 'https://models.example.com', system: One.}
"""

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium is installed")


def create(client: Client, **request: object) -> None:
    answer = client.ask("POST", "/api/create", {"stream": False, **request})
    assert 200 == answer.status, answer.body


async def look(client: Client, page: Page) -> None:
    """A person opens the page, and a model is made while it is open."""
    await page.open(f"http://127.0.0.1:{client.port}/ui/")
    await page.wait_for("document.getElementById('link').textContent === 'live'")
    assert "first:latest" in await page.evaluate("document.getElementById('models').innerText")
    assert "store" in await page.evaluate("document.getElementById('disk').innerText")

    await asyncio.to_thread(create, client, model="second", system="<b>bold</b>", **{"from": "first"})

    await page.wait_for("document.getElementById('models').innerText.includes('second:latest')")
    card = await page.wait_for("document.querySelector('.build')?.innerText")
    assert "second:latest" in card
    assert "done" in card
    assert 0 < await page.evaluate("document.querySelectorAll('.build svg g.ran').length")
    await page.evaluate("document.querySelector('.build details').open = true")
    assert "never built" in await page.evaluate("document.querySelector('.build').innerText")
    if path := os.environ.get("MODELBUILD_SCREENSHOT"):
        await page.screenshot(Path(path))


async def read(client: Client, page: Page) -> None:
    """A person reads about the API."""
    await page.open(f"http://127.0.0.1:{client.port}/docs/")
    await page.wait_for("document.body.innerText.includes('/api/create')")
    assert "remote_host" in await page.text()
    if path := os.environ.get("MODELBUILD_SCREENSHOT"):
        await page.screenshot(Path(path).with_suffix(".docs.png"))


def test_pages(tmp_path: Path) -> None:
    """Models, builds with graph and reasons, and the API appear, live and without a complaint of the browser."""

    async def scene(client: Client) -> None:
        async with browser_page(tmp_path / "profile") as page:
            await look(client, page)
            await read(client, page)
            assert [] == page.problems

    with running_server(ServerSettings(tmp_path / "models", tmp_path / "cache", port=0)) as client:
        data = write_gguf()
        client.ask("POST", f"/api/blobs/{digest_of(data)}", data)
        create(client, model="first", files={"m.gguf": digest_of(data)})
        asyncio.run(asyncio.wait_for(scene(client), 300))


def fail(beside: ServerBeside, model: str) -> None:
    """A build that says something, and ends in the middle of an action."""
    beside.show(ActionStarted("a", "assemble", f"convert {'a-long-name-' * 20}", ("never built",), 100))
    beside.show(Warned("this is a warning"))
    beside.finish((model,), f"recipe.yaml:3:1: {'mistake' * 40}\n  hint: mend it")


async def follow(settings: ServerSettings, page: Page) -> None:
    """A person has the page open on a telephone while builds fail and servers come and go."""
    await page.call("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=False)
    beside = ServerBeside(settings)
    port = await asyncio.to_thread(beside.start)
    await page.open(f"http://127.0.0.1:{port}/ui/")
    await page.wait_for("document.getElementById('link').textContent === 'live'")
    assert "No models yet." in await page.text()

    fail(beside, "old:latest")
    await page.wait_for("document.body.innerText.includes('old:latest')")
    card = await page.evaluate("document.querySelector('.build').innerText")
    assert "  hint: mend it" in card
    assert "this is a warning" in card
    assert "1 stopped" in card
    await page.evaluate("document.querySelector('.build details').open = true")
    await page.wait_for("document.querySelector('.build').innerText.includes('never built')")
    assert await page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")

    await asyncio.to_thread(beside.stop)
    await page.wait_for("document.getElementById('link').textContent === 'lost'")
    beside = ServerBeside(replace(settings, port=port))
    await asyncio.to_thread(beside.start)
    fail(beside, "new:latest")
    await page.wait_for("document.body.innerText.includes('new:latest')")
    assert 1 == await page.evaluate("document.querySelectorAll('.build').length")
    await asyncio.to_thread(beside.stop)


def test_page_of_an_empty_store_on_a_small_screen(tmp_path: Path) -> None:
    """Errors, warnings and what was stopped can be read; another server's builds take the place of the first one's."""

    async def scene() -> None:
        async with browser_page(tmp_path / "profile") as page:
            await follow(ServerSettings(tmp_path / "models", tmp_path / "cache", port=0), page)

    asyncio.run(asyncio.wait_for(scene(), 300))


async def watch(address: str, space: Space, page: Page) -> None:
    """A person has the page open beside an editor."""
    await page.open(address)
    await page.wait_for("document.getElementById('link').textContent === 'live'")
    await page.wait_for("document.getElementById('models').innerText.includes('a:latest')")

    space.recipe(WATCHED + "  b: {from: 'big:120b', remote_host: 'https://models.example.com'}\n")
    await page.wait_for("document.getElementById('models').innerText.includes('b:latest')")
    card = "document.querySelector('.build')?.innerText ?? ''"
    await page.wait_for(f"({card}).includes('b:latest') && ({card}).includes('done')")

    space.recipe(WATCHED.replace("system", "sytem"))
    await page.wait_for(f"({card}).includes('failed') && ({card}).includes('sytem')")
    if path := os.environ.get("MODELBUILD_SCREENSHOT"):
        await page.screenshot(Path(path).with_suffix(".watch.png"))


@pytest.mark.skipif(sys.platform == "win32", reason="no terminals of that kind")
def test_page_beside_a_watch(space: Space, tmp_path: Path) -> None:
    """What `watch --serve` builds is pushed to the page: the new model, the build, and a mistake in the recipe."""
    space.recipe(WATCHED)
    command = Command(space, "--serve", "--port", "0")
    try:
        command.wait_for("listening on ")
        address = command.wait_for("/ui/").strip()
        command.wait_for("start: ")

        async def scene() -> None:
            async with browser_page(tmp_path / "profile") as page:
                await watch(address, space, page)
                assert [] == page.problems

        asyncio.run(asyncio.wait_for(scene(), 300))
        command.type(b"\x03")
        assert 130 == command.end()
    finally:
        end_all()
