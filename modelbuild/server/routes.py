"""Path and method to handler, with the answers Ollama's router gives to everything else."""

from __future__ import annotations

import posixpath
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import field
from html import escape
from urllib.parse import unquote

from aiohttp import web

from modelbuild.records import record
from modelbuild.server.answers import answer, text_answer

#: Gets the request and the last part of its path where the route has a parameter there, else an empty text.
Handler = Callable[[web.BaseRequest, str], Awaitable[web.StreamResponse]]
#: Stands for one path element of any text.
PARAMETER = "*"


@record
class Routes:
    """A table of handlers; `methods` keep the order in which the Allow header names them."""

    table: Mapping[str, Mapping[str, Handler]] = field(default_factory=dict)

    def find(self, method: str, path: str) -> tuple[Handler, str] | web.Response:
        """The handler of a request, or the answer where there is none: 405, a redirect, or 404.

        path: percent-encoded; a parameter is decoded once.
        """
        cleaned = _clean(path)
        if cleaned != path:
            return _moved(method, cleaned, 301)
        methods, parameter = self._methods(path)
        if methods is not None:
            return (methods[method], parameter) if method in methods else _wrong_method(methods)
        if path.endswith("/") and len(path) > 1 and method in (self._methods(path[:-1])[0] or ()):
            return _moved(method, path[:-1], 301 if method == "GET" else 307)
        return text_answer("404 page not found", 404, "text/plain")

    def _methods(self, path: str) -> tuple[Mapping[str, Handler] | None, str]:
        if path in self.table:
            return self.table[path], ""
        parent, _, name = path.rpartition("/")
        return (self.table.get(f"{parent}/{PARAMETER}"), unquote(name)) if name else (None, "")


def _wrong_method(methods: Mapping[str, Handler]) -> web.Response:
    response = text_answer("405 method not allowed", 405, "text/plain")
    response.headers["Allow"] = ", ".join(methods)
    return response


def _clean(path: str) -> str:
    """The path without `.`, `..` and doubled slashes; a slash at its end stays."""
    if "//" not in path and "/." not in path:
        return path
    cleaned = "/" + posixpath.normpath("/" + path).lstrip("/")
    return cleaned + "/" if path.endswith("/") and cleaned != "/" else cleaned


def _moved(method: str, path: str, status: int) -> web.Response:
    """The answer that sends a client to another path; only a page that is asked for has a text."""
    text = f'<a href="{escape(path)}">Moved Permanently</a>.\n\n'.encode()
    is_read = status == 301 and method in ("GET", "HEAD")
    response = answer(text, "text/html; charset=utf-8", status) if is_read else web.Response(status=status)
    response.headers["Location"] = path
    return response
