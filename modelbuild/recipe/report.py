"""What is wrong with a recipe, as JSON and as SARIF, for editors and for continuous integration."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from urllib.parse import quote

from modelbuild import __version__
from modelbuild.errors import ModelbuildError, Problems, RecipeError, printable
from modelbuild.recipe.resolved import Recipe, RecipeWarning
from modelbuild.records import record

#: Raised when a field changes its meaning or goes away.
REPORT_VERSION = 1
_MESSAGE_LIMIT = 10_000
_SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


@record
class Finding:
    """One error or warning. line and column count from 1; 0 when it has no place in a recipe."""

    severity: str
    code: str
    message: str
    hint: str = ""
    path: str = ""
    line: int = 0
    column: int = 0


def findings_of(*found: ModelbuildError | RecipeWarning) -> list[Finding]:
    """Errors and warnings as findings, groups of errors one by one."""
    return [item for one in found for item in _findings(one)]


def _findings(found: ModelbuildError | RecipeWarning) -> Iterable[Finding]:
    if isinstance(found, RecipeWarning):
        place = found.position
        yield Finding("warning", found.code, found.message, "", place.path, place.line, place.column)
    elif isinstance(found, Problems):
        for error in found.errors:
            yield from _findings(error)
    elif isinstance(found, RecipeError):
        place = found.position
        yield Finding("error", found.code, found.message, found.hint, place.path, place.line, place.column)
    else:
        where = f"{found.where}: " if found.where else ""
        yield Finding("error", found.code, f"{where}{found.message}", found.hint)


def to_json(findings: Sequence[Finding], recipe: Recipe | None = None) -> dict[str, object]:
    """The report of `validate --format json`: `valid`, `findings`, and the models of a valid recipe."""
    return {
        "version": REPORT_VERSION,
        "valid": not any(finding.severity == "error" for finding in findings),
        "findings": [_finding_to_json(finding) for finding in findings],
        "models": [
            {"id": model.id, "name": str(model.name), "path": model.position.path, "line": model.position.line}
            for model in (recipe.models if recipe is not None else ())
        ],
    }


def _finding_to_json(finding: Finding) -> dict[str, object]:
    record: dict[str, object] = {
        "severity": finding.severity,
        "code": finding.code,
        "message": printable(finding.message, _MESSAGE_LIMIT),
        "hint": printable(finding.hint, _MESSAGE_LIMIT),
        "path": finding.path,
        "line": finding.line,
        "column": finding.column,
    }
    return {key: value for key, value in record.items() if value not in ("", 0)}


def to_sarif(findings: Sequence[Finding]) -> dict[str, object]:
    """The findings as a SARIF 2.1.0 log; columns count Unicode characters."""
    rules = sorted({finding.code for finding in findings})
    return {
        "$schema": _SARIF_SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "modelbuild",
                        "version": __version__,
                        "rules": [{"id": code} for code in rules],
                    }
                },
                "columnKind": "unicodeCodePoints",
                "results": [_to_sarif(finding, rules) for finding in findings],
            }
        ],
    }


def _to_sarif(finding: Finding, rules: Sequence[str]) -> dict[str, object]:
    text = finding.message + (f" ({finding.hint})" if finding.hint else "")
    result: dict[str, object] = {
        "ruleId": finding.code,
        "ruleIndex": rules.index(finding.code),
        "level": finding.severity,
        "message": {"text": printable(text, _MESSAGE_LIMIT)},
    }
    if finding.line:
        region = {"startLine": finding.line, "startColumn": finding.column}
        artifact = {"uri": quote(finding.path)}
        result["locations"] = [{"physicalLocation": {"artifactLocation": artifact, "region": region}}]
    return result
