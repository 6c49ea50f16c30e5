"""The pages for people: files of this package, sent with a policy that lets them load nothing from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources

from aiohttp import web

from modelbuild.server.answers import JSON_TYPE, answer
from modelbuild.server.routes import Handler

_TYPES = {"html": "text/html; charset=utf-8", "js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8"}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
#: Path → file of the package.
_FILES = {
    "/ui/": "ui.html",
    "/ui/ui.js": "ui.js",
    "/ui/page.css": "page.css",
    "/docs/": "docs.html",
    "/docs/docs.js": "docs.js",
}
#: Paths that need no token: what they hold is in the source text of this program.
PUBLIC_PATHS = frozenset({"/health", "/ui", "/docs", "/openapi.json", *_FILES})


def page_table() -> Mapping[str, Mapping[str, Handler]]:
    """The routes of all pages."""
    return {
        **{path: _get(_page(name)) for path, name in _FILES.items()},
        "/ui": _get(_redirect("/ui/")),
        "/docs": _get(_redirect("/docs/")),
        "/openapi.json": _get(_openapi),
    }


def _get(handler: Handler) -> Mapping[str, Handler]:
    return {"HEAD": handler, "GET": handler}


def _page(name: str) -> Handler:
    async def send(request: web.BaseRequest, parameter: str) -> web.StreamResponse:
        del request, parameter
        data = resources.files("modelbuild.server").joinpath("pages", name).read_bytes()
        response = answer(data, _TYPES[name.rpartition(".")[2]])
        response.headers["Content-Security-Policy"] = _POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Cache-Control"] = "no-cache"
        return response

    return send


def _redirect(target: str) -> Handler:
    async def send(request: web.BaseRequest, parameter: str) -> web.StreamResponse:
        del request, parameter
        return web.Response(status=301, headers={"Location": target})

    return send


async def _openapi(request: web.BaseRequest, parameter: str) -> web.StreamResponse:
    from modelbuild.server.openapi import openapi_document

    del request, parameter
    return answer(json.dumps(openapi_document(), ensure_ascii=False).encode(), JSON_TYPE)
