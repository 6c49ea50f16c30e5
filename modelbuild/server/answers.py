"""Answers in the form that Ollama's clients know: compact JSON, plain texts, errors as one object."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from modelbuild.errors import Blame, ModelbuildError, SpaceError
from modelbuild.server.places import Places
from modelbuild.store.go_json import encode_go_json

JSON_TYPE = "application/json; charset=utf-8"
#: The content types of create, pull and push carry no charset.
BARE_JSON_TYPE = "application/json"
STREAM_TYPE = "application/x-ndjson"
TEXT_TYPE = "text/plain; charset=utf-8"

SERVER_NAME = "modelbuild"
#: Where a request keeps the headers that each of its answers carries.
COMMON_HEADERS = web.RequestKey("common_headers", dict[str, str])


class Refusal(Exception):
    """Ends a request with a status and an error text; close: the connection ends with it."""

    def __init__(
        self, status: int, text: str, *, close: bool = False, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.close = close
        self.headers = headers or {}


def answer(body: bytes, content_type: str, status: int = 200) -> web.Response:
    """A whole body of one content type."""
    return web.Response(body=body, status=status, headers={"Content-Type": content_type})


def json_answer(value: object, status: int = 200, content_type: str = JSON_TYPE) -> web.Response:
    """A JSON value, without a final newline, as Ollama sends it."""
    return answer(encode_go_json(value), content_type, status)


def text_answer(text: str, status: int = 200, content_type: str = TEXT_TYPE) -> web.Response:
    """A plain text."""
    return answer(text.encode(), content_type, status)


def empty_answer(status: int = 200) -> web.Response:
    """No body and no content type."""
    return web.Response(status=status)


async def begin(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Send the head of an answer now, with the headers that every answer to this request carries."""
    response.headers.update(request.get(COMMON_HEADERS, {}))
    await response.prepare(request)


def refuse(refusal: Refusal, content_type: str = JSON_TYPE) -> web.Response:
    """The answer to a request that cannot be done."""
    response = json_answer({"error": refusal.text}, refusal.status, content_type)
    response.headers.update(refusal.headers)
    if refusal.close:
        response.force_close()
    return response


def refusal_of(error: ModelbuildError, places: Places) -> Refusal:
    """The answer to an error that no handler gave one: whose fault it is decides the status.

    The text has neither hints, which name command line options, nor directories of this machine.
    """
    text = places.hide(error.message)
    if isinstance(error, SpaceError):
        return Refusal(507, text)
    # Requests are checked before; a file that is not what it should be is one of the store's.
    return Refusal(400 if error.blame is Blame.RECIPE else 500, text)
