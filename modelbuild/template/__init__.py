"""Chat templates: Go text/template as Ollama uses it, known chat templates, capabilities, and rendering.

    text ─ lexer, parser ─► Template ─ variables, capabilities ─► what the template needs and offers
                                     ─ evaluate, prompt ───────► the exact prompt (only for `modelbuild render`)
    tokenizer.chat_template ─ known ─► the known template it is near to
                            ─ jinja ─► the exact prompt, in a child process (only for `modelbuild render`)

Three functions are all that a build needs: `check_template`, `mistyped_fields` and `detect_template`.
"""

from modelbuild.template.errors import TemplateError
from modelbuild.template.known import Detected, detect_template
from modelbuild.template.nodes import Template
from modelbuild.template.parser import parse_template
from modelbuild.template.variables import check_template, mistyped_fields

__all__ = [
    "Detected",
    "Template",
    "TemplateError",
    "check_template",
    "detect_template",
    "mistyped_fields",
    "parse_template",
]
