"""Everything that a create request can be refused for without looking at files."""

from __future__ import annotations

from modelbuild.recipe.request import CreateRequest
from modelbuild.recipe.request_checks import check_create_request, check_info, check_quantize, check_texts


def check_request(request: CreateRequest) -> None:
    """All checks of a request, in their order."""
    for check in (check_create_request, check_info, check_quantize, check_texts):
        check(request)
