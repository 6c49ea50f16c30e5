"""Pages, the OpenAPI document, events and numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import jsonschema
import pytest

from modelbuild import __version__
from modelbuild.recipe import request as create_request
from modelbuild.recipe.go_binding import Dictionary, Flag, Items, Kind, Record, Text
from modelbuild.recipe.schema import load_schema
from modelbuild.server.openapi import OPERATIONS
from modelbuild.server.settings import ServerSettings
from tests.serving import Client, running_server

PAGES = ("/ui/", "/ui/ui.js", "/ui/page.css", "/docs/", "/docs/docs.js")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    place = tmp_path_factory.mktemp("server")
    with running_server(ServerSettings(place / "models", place / "cache", port=0, token="secret")) as client:
        yield client


@pytest.mark.parametrize("path", PAGES)
def test_pages_need_no_token_and_load_nothing_from_elsewhere(client: Client, path: str) -> None:
    """A page is answered to everybody, forbids foreign content, and names none."""
    answer = client.ask("GET", path)

    assert 200 == answer.status
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert [] == [url for url in re.findall(rb"https?://[^\"' ]+", answer.body) if url != b"http://www.w3.org/2000/svg"]


def test_a_name_without_slash_leads_to_the_page(client: Client) -> None:
    """/ui and /docs may be typed without the slash."""
    assert ["/ui/", "/docs/"] == [client.ask("GET", path).headers["location"] for path in ("/ui", "/docs")]


def test_everything_else_needs_the_token(client: Client) -> None:
    """Whatever shows state of the server asks for the token."""
    paths = ("/builds", "/events", "/disk", "/metrics", "/api/version", "/")

    assert [401] * len(paths) == [client.ask("GET", path).status for path in paths]


def test_openapi_is_a_sound_document(client: Client) -> None:
    """The document names its version, has unique operation ids, and every reference leads somewhere."""
    document = client.ask("GET", "/openapi.json").json

    assert ("3.1.0", __version__) == (document["openapi"], document["info"]["version"])
    ids = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(ids) == len(set(ids))
    for name in re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)):
        assert name in document["components"]["schemas"]
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_every_route_is_described(client: Client) -> None:
    """Each described operation is one that the server has: it is not answered with 404 or 405."""
    headers = {"Authorization": "Bearer secret"}
    for operation in OPERATIONS:
        if operation.path == "/events":
            continue
        path = operation.path.replace("{digest}", "sha256:0")
        answer = client.ask(operation.method.upper(), path, b"", headers)
        assert answer.status != 405, operation
        assert b"404 page not found" != answer.body, operation


def test_the_create_schema_agrees_with_what_is_read() -> None:
    """The published schema and the binding of requests know the same fields with the same types."""
    properties = load_schema("create-request.schema.json")["properties"]
    fields = create_request.CREATE_REQUEST.fields

    assert set(fields) == set(properties)
    for name, kind in fields.items():
        assert _accepts(kind) is None or _accepts(kind) in properties[name]["type"], name
    messages = fields["messages"]
    assert isinstance(messages, Items)
    assert isinstance(messages.of, Record)
    schema = load_schema("create-request.schema.json")["$defs"]["message"]
    assert set(messages.of.fields) == set(schema["properties"])


def _accepts(kind: Kind) -> str | None:
    types = {Text: "string", Flag: "boolean", Dictionary: "object", Items: "array"}
    return types.get(type(kind))


def test_events_stream(client: Client) -> None:
    """/events begins at once, as server-sent events."""
    with client.connect() as connection:
        connection.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer secret\r\n\r\n")
        received = b""
        while b": modelbuild" not in received:
            received += connection.recv(1000)

    assert b"text/event-stream" in received


def test_health_and_metrics(client: Client) -> None:
    """A supervisor sees that the server lives without a token, numbers need it."""
    headers = {"Authorization": "Bearer secret"}
    metrics = client.ask("GET", "/metrics", headers=headers)

    assert {"status": "ok"} == client.ask("GET", "/health").json
    assert b"modelbuild_builds_running 0\n" in metrics.body
    assert b'modelbuild_requests_total{status="200"}' in client.ask("GET", "/metrics", headers=headers).body


def test_disk(client: Client) -> None:
    """Store and cache are measured by name, without their paths."""
    answer = client.ask("GET", "/disk", headers={"Authorization": "Bearer secret"})

    assert {"store", "cache"} == set(answer.json)
    assert str(client.store).encode() not in answer.body
