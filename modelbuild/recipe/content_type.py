"""What a file holds, judged by its first bytes as Go's net/http does it.

Source: WHATWG MIME Sniffing; the documentation of Go's http.DetectContentType, and its behaviour (Go 1.26).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from modelbuild.formats.files import open_input

TEXT, BINARY, ZIP = "text/plain", "application/octet-stream", "application/zip"
#: So many bytes are looked at.
SNIFFED_BYTES = 512

_BLANKS = b"\t\n\x0c\r "
_HTML = (b"<!doctype html", b"<html", b"<head", b"<script", b"<iframe", b"<h1", b"<div", b"<font", b"<table", b"<a",
         b"<style", b"<title", b"<b", b"<body", b"<br", b"<p", b"<!--")  # fmt: skip
#: Bytes that no text has.
_BINARY_BYTES = frozenset([*range(0x09), 0x0B, *range(0x0E, 0x1B), *range(0x1C, 0x20)])
#: In the order in which they are tried: what stands at which place, and how long the file has to be.
_SIGNATURES: Sequence[tuple[Sequence[tuple[int, bytes]], int, str]] = (
    (((0, b"%PDF-"),), 0, "application/pdf"),
    (((0, b"%!PS-Adobe-"),), 0, "application/postscript"),
    (((0, b"\xfe\xff"),), 4, TEXT),
    (((0, b"\xff\xfe"),), 4, TEXT),
    (((0, b"\xef\xbb\xbf"),), 4, TEXT),
    (((0, b"\x00\x00\x01\x00"),), 0, "image/x-icon"),
    (((0, b"\x00\x00\x02\x00"),), 0, "image/x-icon"),
    (((0, b"BM"),), 0, "image/bmp"),
    (((0, b"GIF87a"),), 0, "image/gif"),
    (((0, b"GIF89a"),), 0, "image/gif"),
    (((0, b"RIFF"), (8, b"WEBPVP")), 0, "image/webp"),
    (((0, b"\x89PNG\r\n\x1a\n"),), 0, "image/png"),
    (((0, b"\xff\xd8\xff"),), 0, "image/jpeg"),
    (((0, b"FORM"), (8, b"AIFF")), 0, "audio/aiff"),
    (((0, b"ID3"),), 0, "audio/mpeg"),
    (((0, b"OggS\x00"),), 0, "application/ogg"),
    (((0, b"MThd\x00\x00\x00\x06"),), 0, "audio/midi"),
    (((0, b"RIFF"), (8, b"AVI ")), 0, "video/avi"),
    (((0, b"RIFF"), (8, b"WAVE")), 0, "audio/wave"),
    (((0, b"\x1a\x45\xdf\xa3"),), 0, "video/webm"),
    (((34, b"LP"),), 0, "application/vnd.ms-fontobject"),
    (((0, b"\x00\x01\x00\x00"),), 0, "font/ttf"),
    (((0, b"OTTO"),), 0, "font/otf"),
    (((0, b"ttcf"),), 0, "font/collection"),
    (((0, b"wOFF"),), 0, "font/woff"),
    (((0, b"wOF2"),), 0, "font/woff2"),
    (((0, b"\x1f\x8b\x08"),), 0, "application/x-gzip"),
    (((0, b"PK\x03\x04"),), 0, ZIP),
    (((0, b"Rar!\x1a\x07\x00"),), 0, "application/x-rar-compressed"),
    (((0, b"Rar!\x1a\x07\x01\x00"),), 0, "application/x-rar-compressed"),
    (((0, b"\x00asm"),), 0, "application/wasm"),
)
_WEBM = "video/webm"


def sniff(path: Path) -> str:
    """The content type that the first bytes of a file suggest."""
    with open_input(path) as source:
        return content_type(source.read_at(0, min(SNIFFED_BYTES, source.size_bytes)))


def content_type(head: bytes) -> str:
    """The content type that some first bytes suggest, without parameters."""
    text = head.lstrip(_BLANKS)
    if any(text[: len(tag)].lower() == tag and text[len(tag) : len(tag) + 1] in (b" ", b">") for tag in _HTML):
        return "text/html"
    if text.startswith(b"<?xml"):
        return "text/xml"
    for marks, least_bytes, kind in _SIGNATURES:
        if kind == _WEBM and _is_mp4(head):
            return "video/mp4"
        if len(head) >= least_bytes and all(head.startswith(mark, at) for at, mark in marks):
            return kind
    return BINARY if _BINARY_BYTES.intersection(text) else TEXT


def _is_mp4(head: bytes) -> bool:
    """Does a box of file types stand first, with a brand that begins with mp4?"""
    size = int.from_bytes(head[:4], "big")
    if len(head) < max(12, size) or size % 4 or head[4:8] != b"ftyp":
        return False
    return any(head[at : at + 3] == b"mp4" for at in range(8, size, 4) if at != 12)
