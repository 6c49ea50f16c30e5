"""Where a character of a quoted text stands in the file, when escapes stand before it."""

from __future__ import annotations

import re
from itertools import islice

from modelbuild.late_pattern import late_pattern

#: What gives one character: an escape of YAML or JSON, both halves of a surrogate pair, or the character itself.
_UNIT = late_pattern(
    r"""\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}
    | \\(?:x[0-9a-fA-F]{2} | u[0-9a-fA-F]{4} | U[0-9a-fA-F]{8} | .)
    | .""",
    re.VERBOSE | re.DOTALL,
)


def offset_of_character(quoted: str, index: int) -> int:
    """How many characters of the file stand before character `index` of the text that `quoted` means.

    quoted: what stands between the quotes. An index behind the end gives the end.
    """
    return next((match.start() for match in islice(_UNIT.finditer(quoted), index, None)), len(quoted))
