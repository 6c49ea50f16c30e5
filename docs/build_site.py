"""Builds the documentation as a web site that needs no network, and checks every link in it and in the pages above it.

usage: python docs/build_site.py DIRECTORY
"""

from __future__ import annotations

import html
import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
STYLE = """
:root { color-scheme: light dark; --line: color-mix(in srgb, CanvasText 18%, Canvas); }
body { margin: 0 auto; max-width: 76rem; display: grid; grid-template-columns: 15rem minmax(0, 1fr); gap: 2.5rem;
  padding: 1.5rem; font: 1rem/1.55 system-ui, sans-serif; }
nav { font-size: .92rem; position: sticky; top: 1.5rem; align-self: start; max-height: 95vh; overflow: auto; }
nav b { display: block; margin-top: 1rem; } nav a { display: block; padding: .1rem 0; text-decoration: none; }
nav a[aria-current] { font-weight: 600; color: inherit; }
main { min-width: 0; } h1, h2, h3 { line-height: 1.25; } h2 { margin-top: 2.2rem; }
pre { padding: .8rem 1rem; overflow-x: auto; border: 1px solid var(--line); border-radius: .4rem; }
code, pre { font: .88em/1.5 ui-monospace, monospace; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
td, th { border: 1px solid var(--line); padding: .3rem .6rem; text-align: left; vertical-align: top; }
@media (max-width: 50rem) { body { display: block; } nav { position: static; } }
"""
#: Headings of the navigation → the pages below it, by file or by directory.
SECTIONS = {
    "Start": ("index", "tutorial", "transcript"),
    "How to": ("howto/",),
    "Reference": (
        "recipe", "cli", "errors", "quantization", "models", "templates", "serve", "watch", "python", "rebuilds",
    ),
    "Trust": ("fidelity", "security", "benchmarks"),
    "Architecture": ("architecture/",),
}  # fmt: skip


class BrokenLinkError(Exception):
    """Links that lead nowhere, one a line."""


@dataclass(frozen=True, slots=True)
class Page:
    """A Markdown file, its syntax tree and the names of its headings."""

    path: Path
    tokens: tuple[Token, ...]
    anchors: frozenset[str]

    @property
    def title(self) -> str:
        """The text of the first heading."""
        place = next(index for index, token in enumerate(self.tokens) if token.type == "heading_open")
        return self.tokens[place + 1].content

    @property
    def target(self) -> str:
        """Where the page stands in the site."""
        return self.path.relative_to(DOCS).with_suffix(".html").as_posix()


def build(target: Path) -> list[Path]:
    """Write the site; the pages written. BrokenLinkError, and nothing written, when a link leads nowhere."""
    parser = MarkdownIt("commonmark").enable("table")
    pages = {path: _read(path, parser) for path in sorted(DOCS.rglob("*.md"))}
    known = pages | {path: _read(path, parser) for path in sorted(ROOT.glob("*.md"))}
    broken = [line for page in known.values() for line in _broken_links(page, known)]
    if broken:
        raise BrokenLinkError("\n".join(broken))
    shutil.rmtree(target, ignore_errors=True)
    written = []
    for page in pages.values():
        path = target / page.target
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_render(page, pages, parser), "utf-8")
        written.append(path)
    return written


def _read(path: Path, parser: MarkdownIt) -> Page:
    tokens = parser.parse(path.read_text("utf-8"))
    anchors = []
    for index, token in enumerate(tokens):
        if token.type == "heading_open":
            anchors.append(_anchor(tokens[index + 1].content))
            token.attrSet("id", anchors[-1])
    return Page(path, tuple(tokens), frozenset(anchors))


def _anchor(heading: str) -> str:
    """The name that code hosts give a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _links(page: Page) -> Iterator[Token]:
    for token in page.tokens:
        yield from (child for child in token.children or () if child.type == "link_open")


def _broken_links(page: Page, pages: dict[Path, Page]) -> Iterator[str]:
    for link in _links(page):
        address = str(link.attrGet("href"))
        if re.match(r"[a-z]+:", address):
            continue
        name, _, anchor = address.partition("#")
        path = (page.path.parent / name).resolve() if name else page.path
        if not path.exists():
            yield f"{page.path.relative_to(ROOT)}: {address} is not there"
        elif anchor and path in pages and anchor not in pages[path].anchors:
            yield f"{page.path.relative_to(ROOT)}: {address} has no such heading"


def _render(page: Page, pages: dict[Path, Page], parser: MarkdownIt) -> str:
    for link in _links(page):
        name, mark, anchor = str(link.attrGet("href")).partition("#")
        path = (page.path.parent / name).resolve()
        if name and path in pages:
            link.attrSet("href", name.removesuffix(".md") + ".html" + mark + anchor)
    body = parser.renderer.render(list(page.tokens), parser.options, {})
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(page.title)} · modelbuild</title>\n<style>{STYLE}</style>\n"
        f"<nav>{''.join(_navigation(page, pages))}</nav>\n<main>\n{body}</main>\n</html>\n"
    )


def _navigation(page: Page, pages: dict[Path, Page]) -> Iterator[str]:
    for heading, names in SECTIONS.items():
        yield f"<b>{heading}</b>"
        for other in pages.values():
            name = other.target.removesuffix(".html")
            if any(name == entry or (entry.endswith("/") and name.startswith(entry)) for entry in names):
                address = os.path.relpath(other.target, Path(page.target).parent)
                mark = ' aria-current="page"' if other is page else ""
                yield f'<a href="{address}"{mark}>{html.escape(other.title)}</a>'


def main() -> int:
    """Build into the directory that is named; the exit status."""
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        written = build(Path(sys.argv[1]))
    except BrokenLinkError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{len(written)} pages in {sys.argv[1]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
