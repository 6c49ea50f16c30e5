"""A plan as a picture: Mermaid, Graphviz, JSON or a self-contained SVG."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

from modelbuild.plan.decide import Decision
from modelbuild.plan.graph import Action

FORMATS = ("mermaid", "dot", "json", "svg")
_BOX_WIDTH, _BOX_HEIGHT, _GAP_X, _GAP_Y = 230, 40, 60, 16


def draw_plan(decisions: Sequence[Decision], style: str) -> str:
    """The graph in one of FORMATS; actions that would run are marked."""
    return {"mermaid": _mermaid, "dot": _dot, "json": _json, "svg": _svg}[style](decisions)


def _edges(decisions: Sequence[Decision]) -> list[tuple[int, int]]:
    numbers = {decision.action.id: number for number, decision in enumerate(decisions)}
    return [
        (numbers[need], numbers[decision.action.id])
        for decision in decisions
        for need in dict.fromkeys(decision.action.needs)
        if need in numbers
    ]


def _mermaid(decisions: Sequence[Decision]) -> str:
    lines = ["graph LR"]
    for number, decision in enumerate(decisions):
        label = decision.action.title.replace('"', "#quot;")
        lines.append(f'  a{number}["{label}"]' + (":::runs" if decision.runs else ""))
    lines += [f"  a{before} --> a{after}" for before, after in _edges(decisions)]
    return "\n".join([*lines, "  classDef runs stroke-width:3px"]) + "\n"


def _dot(decisions: Sequence[Decision]) -> str:
    lines = ["digraph plan {", "  rankdir=LR; node [shape=box];"]
    for number, decision in enumerate(decisions):
        style = " style=bold" if decision.runs else ""
        lines.append(f"  a{number} [label={json.dumps(decision.action.title)}{style}];")
    lines += [f"  a{before} -> a{after};" for before, after in _edges(decisions)]
    return "\n".join([*lines, "}"]) + "\n"


def _json(decisions: Sequence[Decision]) -> str:
    rows = [
        {
            "action": decision.action.id,
            "kind": decision.action.kind,
            "title": decision.action.title,
            "needs": list(dict.fromkeys(decision.action.needs)),
            "runs": decision.runs,
            "reasons": list(decision.reasons),
        }
        for decision in decisions
    ]
    return json.dumps(rows, indent=2, ensure_ascii=False) + "\n"


def _svg(decisions: Sequence[Decision]) -> str:
    places = _places([decision.action for decision in decisions])
    width = max((x for x, _ in places), default=0) + _BOX_WIDTH + 20
    height = max((y for _, y in places), default=0) + _BOX_HEIGHT + 20
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">']
    for before, after in _edges(decisions):
        (x1, y1), (x2, y2) = places[before], places[after]
        start_x, start_y, end_y = x1 + _BOX_WIDTH, y1 + _BOX_HEIGHT // 2, y2 + _BOX_HEIGHT // 2
        middle = (start_x + x2) // 2
        curve = f"M{start_x} {start_y} C{middle} {start_y} {middle} {end_y} {x2} {end_y}"
        parts.append(f'<path d="{curve}" fill="none" stroke="#888"/>')
    for decision, (x, y) in zip(decisions, places, strict=True):
        stroke = "#c60" if decision.runs else "#393"
        parts.append(
            f'<rect x="{x}" y="{y}" width="{_BOX_WIDTH}" height="{_BOX_HEIGHT}" rx="5" fill="#fff" stroke="{stroke}"/>'
            f'<text x="{x + 8}" y="{y + 24}">{escape(_short(decision.action.title))}'
            f"<title>{escape('; '.join(decision.reasons) or 'up to date')}</title></text>"
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _short(title: str) -> str:
    return title if len(title) <= 34 else title[:33] + "…"


def _places(actions: Sequence[Action]) -> list[tuple[int, int]]:
    """Left upper corners: one column for each depth, rows in plan order."""
    depths: dict[str, int] = {}
    rows: dict[int, int] = {}
    places = []
    for action in actions:
        depth = depths[action.id] = _depth(action, depths)
        row = rows[depth] = rows.get(depth, -1) + 1
        places.append((10 + depth * (_BOX_WIDTH + _GAP_X), 10 + row * (_BOX_HEIGHT + _GAP_Y)))
    return places


def _depth(action: Action, depths: Mapping[str, int]) -> int:
    return max((depths.get(need, -1) + 1 for need in action.needs), default=0)
