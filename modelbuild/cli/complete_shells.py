"""What bash evaluates to complete `modelbuild`: click's script cuts words at colons, and models' names have one."""

from __future__ import annotations

import os

from click.shell_completion import BashComplete, add_completion_class, split_arg_string

#: Asks with the line up to the cursor. bash replaces only what stands after the last colon, so only that is offered.
_BASH = r"""%(complete_func)s() {
    local line="${COMP_LINE:0:COMP_POINT}" word type value before=""
    word="${line##*[[:space:]]}"
    if [[ $word == *:* && $COMP_WORDBREAKS == *:* ]]; then before="${word%%"${word##*:}"}"; fi
    COMPREPLY=()
    while IFS=, read -r type value; do
        case $type in
            plain) COMPREPLY+=("${value#"$before"}") ;;
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
        esac
    done < <(COMP_WORDS="$line" %(complete_var)s=bash_complete "$1")
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""


class _Bash(BashComplete):
    """Completes the last word of a line, colons and all."""

    source_template = _BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the last one, and the last one, which is empty after a space."""
        line = os.environ["COMP_WORDS"]
        _, *words = split_arg_string(line)
        return (words, "") if line[-1:].isspace() or not words else (words[:-1], words[-1])


def use_own_completion() -> None:
    """Let click answer bash with this class."""
    add_completion_class(_Bash)
