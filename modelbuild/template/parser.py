"""Tokens → parse tree, with the grammar and the error texts of Go's text/template.

One method per rule, the rule in its docstring. Depth and size are bounded, so that no input can exhaust
the stack or the memory. Source: the documentation of Go's package text/template, and its behaviour (Go 1.26).
"""

from __future__ import annotations

from modelbuild.template.errors import TemplateError
from modelbuild.template.expressions import MAX_NESTING, MAX_NODES, ExpressionParser, Source
from modelbuild.template.lexer import Token, TokenKind
from modelbuild.template.nodes import (
    ActionNode,
    BranchNode,
    Item,
    ListNode,
    LoopExitNode,
    Template,
    TemplateNode,
    TextNode,
)

__all__ = ["MAX_BYTES", "MAX_NESTING", "MAX_NODES", "parse_template"]

MAX_BYTES = 1 << 20

_TEXTS = (TokenKind.STRING, TokenKind.RAW_STRING)
_BRANCHES = {TokenKind.IF: "if", TokenKind.RANGE: "range", TokenKind.WITH: "with"}
_LOOP_EXITS = {TokenKind.BREAK: "break", TokenKind.CONTINUE: "continue"}
#: What an {{end}} or {{else}} is to the rule that reads it.
_END, _ELSE = "{{end}}", "{{else}}"


def parse_template(text: str, name: str = "") -> Template:
    """The parse tree of a template; TemplateError with line and column where Go's parser refuses it, or at a limit.

    name: what error texts call the template; Ollama leaves it empty. Takes linear time, never recurses deeper than
    MAX_NESTING blocks. Lone surrogates are read as U+FFFD, like bytes that are no UTF-8 in Go.
    """
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if not text.isascii() else text
    size = len(text.encode())
    if size > MAX_BYTES:
        message = f"{size} bytes, at most {MAX_BYTES} are allowed in a template"
        raise TemplateError(message, line=1, column=1, name=name)
    source = Source(text, name)
    tree = _TreeParser(source)
    root = tree.parse_text()
    source.define(tree, name, root)
    return Template(text, name, source.definitions.get(name, root), source.definitions)


class _TreeParser(ExpressionParser):
    """Reads one tree: the text itself, a {{define}} or a {{block}}; they share no variables and no loops."""

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self.loops = 0

    # Lists of items.

    def parse_text(self) -> ListNode:
        """text: (define | item)* EOF."""
        nodes: list[Item] = []
        first = self.tokens.peek()
        while self.tokens.peek().kind is not TokenKind.EOF:
            if not self._parse_definition():
                item = self.parse_item()
                if isinstance(item, str):
                    raise self.error(f"unexpected {item}")
                nodes.append(item)
        return ListNode(first.offset, tuple(nodes))

    def _parse_definition(self) -> bool:
        """define: {{define name}} item* {{end}}; False when something else follows."""
        if self.tokens.peek().kind is not TokenKind.LEFT_DELIMITER:
            return False
        delimiter = self.tokens.next()
        keyword = self.tokens.next_non_space()
        if keyword.kind is not TokenKind.DEFINE:
            self.tokens.put_back(delimiter, keyword)
            return False
        tree = _TreeParser(self.source)
        token = tree.expect("define clause", *_TEXTS)
        name = tree.unquoted(token)
        tree.expect("define clause", TokenKind.RIGHT_DELIMITER)
        body, stop = tree.parse_list()
        if stop != _END:
            raise self.error(f"unexpected {stop} in define clause")
        self.source.define(tree, name, body)
        return True

    def parse_list(self) -> tuple[ListNode, str]:
        """list: item*, and the {{end}} or {{else}} that closes it."""
        nodes: list[Item] = []
        first = self.tokens.peek_non_space()
        while self.tokens.peek_non_space().kind is not TokenKind.EOF:
            item = self.parse_item()
            if isinstance(item, str):
                self.count()
                return ListNode(first.offset, tuple(nodes)), item
            nodes.append(item)
        raise self.error("unexpected EOF")

    def parse_item(self) -> Item | str:
        """item: text | action."""
        token = self.tokens.next_non_space()
        if token.kind is TokenKind.TEXT:
            self.count()
            return TextNode(token.offset, token.value)
        if token.kind is not TokenKind.LEFT_DELIMITER:
            raise self.unexpected(token, "input")
        self.action_line = token.line
        item = self.parse_action()
        self.action_line = 0
        return item

    # Actions.

    def parse_action(self) -> Item | str:
        """action: (control | pipeline) }}."""
        token = self.tokens.next_non_space()
        self.count()
        if token.kind in _BRANCHES:
            return self.parse_branch(_BRANCHES[token.kind], token)
        if token.kind in _LOOP_EXITS:
            return self._parse_loop_exit(_LOOP_EXITS[token.kind], token)
        if token.kind is TokenKind.END:
            self.expect("end", TokenKind.RIGHT_DELIMITER)
            return _END
        if token.kind is TokenKind.ELSE:
            return self._parse_else()
        if token.kind is TokenKind.TEMPLATE:
            return self._parse_call()
        if token.kind is TokenKind.BLOCK:
            return self._parse_block()
        self.tokens.put_back(token)
        return ActionNode(token.offset, self.parse_pipeline("command", TokenKind.RIGHT_DELIMITER))

    def parse_branch(self, keyword: str, token: Token) -> BranchNode:
        """branch: (if|range|with) pipeline }} list [else list] {{end}}."""
        self.enter()
        known_variables = len(self.variables)
        pipe = self.parse_pipeline(keyword, TokenKind.RIGHT_DELIMITER)
        self.loops += keyword == "range"
        body, stop = self.parse_list()
        self.loops -= keyword == "range"
        otherwise = self._parse_otherwise(keyword) if stop == _ELSE else None
        del self.variables[known_variables:]
        self.leave()
        return BranchNode(token.offset, keyword, pipe, body, otherwise)

    def _parse_otherwise(self, keyword: str) -> ListNode:
        """otherwise: list {{end}} | the branch of an {{else if}} or {{else with}}, whose {{end}} closes both."""
        token = self.tokens.peek()
        if keyword != "range" and _BRANCHES.get(token.kind) == keyword:
            self.tokens.next()
            self.count(2)
            return ListNode(token.offset, (self.parse_branch(keyword, token),))
        body, stop = self.parse_list()
        if stop != _END:
            raise self.error(f"expected end; found {stop}")
        return body

    def _parse_else(self) -> str:
        """else: }} | if | with; the last two are left for `_parse_otherwise`."""
        if self.tokens.peek_non_space().kind not in (TokenKind.IF, TokenKind.WITH):
            self.expect("else", TokenKind.RIGHT_DELIMITER)
        return _ELSE

    def _parse_loop_exit(self, keyword: str, token: Token) -> LoopExitNode:
        """loop_exit: (break|continue) }}, inside a range."""
        self.expect(f"{{{{{keyword}}}}}", TokenKind.RIGHT_DELIMITER)
        if not self.loops:
            raise self.error(f"{{{{{keyword}}}}} outside {{{{range}}}}", token)
        return LoopExitNode(token.offset, keyword)

    def _parse_call(self) -> TemplateNode:
        """call: template name [pipeline] }}."""
        token = self.tokens.next_non_space()
        name = self._template_name(token, "template clause")
        following = self.tokens.next_non_space()
        if following.kind is TokenKind.RIGHT_DELIMITER:
            return TemplateNode(token.offset, name, None)
        self.tokens.put_back(following)
        return TemplateNode(token.offset, name, self.parse_pipeline("template clause", TokenKind.RIGHT_DELIMITER))

    def _parse_block(self) -> TemplateNode:
        """block: block name pipeline }} item* {{end}}; defines a template and calls it."""
        token = self.tokens.next_non_space()
        name = self._template_name(token, "block clause")
        pipe = self.parse_pipeline("block clause", TokenKind.RIGHT_DELIMITER)
        opener = self.tokens.newest
        tree = _TreeParser(self.source)
        self.enter()
        body, stop = tree.parse_list()
        self.leave()
        if stop != _END:
            raise self.source.error(f"unexpected {stop} in block clause", opener)
        self.source.define(tree, name, body)
        return TemplateNode(token.offset, name, pipe)

    def _template_name(self, token: Token, context: str) -> str:
        if token.kind not in _TEXTS:
            raise self.unexpected(token, context)
        return self.unquoted(token)
