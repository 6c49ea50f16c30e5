"""The part of the parser that reads pipelines, commands and operands; see `parser`."""

from __future__ import annotations

from modelbuild.template.errors import TemplateError
from modelbuild.template.functions import FUNCTIONS
from modelbuild.template.hints import hint_for
from modelbuild.template.lexer import Token, TokenKind
from modelbuild.template.nodes import (
    BoolNode,
    ChainNode,
    CommandNode,
    DotNode,
    FieldNode,
    IdentifierNode,
    ListNode,
    NilNode,
    NumberNode,
    Operand,
    PipeNode,
    StringNode,
    VariableNode,
    is_blank,
    position_at,
)
from modelbuild.template.number import parse_character, parse_complex, parse_number
from modelbuild.template.quoting import LiteralSyntaxError, quote, unquote
from modelbuild.template.tokens import TokenStream

#: Blocks and parentheses within each other; each costs a few frames of the interpreter's stack.
MAX_NESTING = 64
#: Without it, a megabyte of `{{.}}` would become objects of a hundred megabytes.
MAX_NODES = 50_000

_NUMBER_PARSERS = {
    TokenKind.NUMBER: parse_number,
    TokenKind.CHARACTER: parse_character,
    TokenKind.COMPLEX: parse_complex,
}
_STARTS_OPERAND = frozenset(
    {
        TokenKind.BOOL, TokenKind.CHARACTER, TokenKind.COMPLEX, TokenKind.DOT, TokenKind.FIELD, TokenKind.IDENTIFIER,
        TokenKind.NUMBER, TokenKind.NIL, TokenKind.RAW_STRING, TokenKind.STRING, TokenKind.VARIABLE,
        TokenKind.LEFT_PAREN,
    }
)  # fmt: skip
#: Values that cannot take the result of the command before them.
_NOT_EXECUTABLE = (BoolNode, DotNode, NilNode, NumberNode, StringNode)


class Source:
    """What the trees of one text share: tokens, definitions and budgets."""

    def __init__(self, text: str, name: str) -> None:
        self.text = text
        self.name = name
        self.tokens = TokenStream(text)
        self.definitions: dict[str, ListNode] = {}
        self.depth = 0
        self.nodes = 0

    def define(self, tree: ExpressionParser, name: str, body: ListNode) -> None:
        """Give a tree its name. A blank tree never replaces another; two others collide."""
        known = self.definitions.get(name)
        if known is None or is_blank(known):
            self.definitions[name] = body
        elif not is_blank(body):
            raise tree.error(f"template: multiple definition of template {quote(name)}")

    def error(self, message: str, token: Token) -> TemplateError:
        """The refusal of the text at a token."""
        _, column = position_at(self.text, token.offset)
        hint = hint_for(message, self.text)
        return TemplateError(message, line=token.line, column=column, name=self.name, hint=hint)


class ExpressionParser:
    """Reads the expressions of one tree. A tree is the text itself, a {{define}} or a {{block}}; each has variables
    of its own. Source of grammar and texts: Go's package text/template (1.26).
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.tokens = source.tokens
        self.variables = ["$"]
        self.action_line = 0

    def error(self, message: str, at: Token | None = None) -> TemplateError:
        """The refusal in Go's words, at a token if it stands on the line that Go names, else at the newest one."""
        newest = self.tokens.newest
        return self.source.error(message, at if at is not None and at.line == newest.line else newest)

    def unexpected(self, token: Token, context: str) -> TemplateError:
        """The refusal of a token, or the lexer's complaint."""
        if token.kind is not TokenKind.ERROR:
            return self.error(f"unexpected {token.shown()} in {context}", token)
        extra = ""
        if self.action_line not in (0, token.line):
            start = "started at" if token.value.endswith(" action") else "in action started at"
            extra = f" {start} {self.source.name}:{self.action_line}"
        return self.error(token.value + extra, token)

    def expect(self, context: str, *kinds: TokenKind) -> Token:
        """The next token, which must be of one of these kinds."""
        token = self.tokens.next_non_space()
        if token.kind not in kinds:
            raise self.unexpected(token, context)
        return token

    def count(self, node_count: int = 1) -> None:
        """Charge nodes against the budget."""
        self.source.nodes += node_count
        if self.source.nodes > MAX_NODES:
            raise self.error(f"more than {MAX_NODES} nodes")

    def enter(self) -> None:
        """Go one level deeper."""
        self.source.depth += 1
        if self.source.depth > MAX_NESTING:
            raise self.error(f"blocks and parentheses are nested deeper than {MAX_NESTING}")

    def leave(self) -> None:
        """Come back up one level."""
        self.source.depth -= 1

    def unquoted(self, token: Token) -> str:
        """The value of a text constant."""
        try:
            return unquote(token.value)
        except LiteralSyntaxError as error:
            raise self.error(str(error), token) from error

    def parse_pipeline(self, context: str, end: TokenKind) -> PipeNode:
        """pipeline: [declarations] command (| command)*, up to and with its end."""
        first = self.tokens.peek_non_space()
        self.count()
        variables, is_assignment = self._parse_declarations(context)
        commands: list[CommandNode] = []
        while (token := self.tokens.next_non_space()).kind is not end:
            if token.kind not in _STARTS_OPERAND:
                raise self.unexpected(token, context)
            self.tokens.put_back(token)
            commands.append(self.parse_command())
        if not commands:
            raise self.error(f"missing value for {context}")
        for stage, command in enumerate(commands[1:], start=2):
            if isinstance(command.operands[0], _NOT_EXECUTABLE):
                raise self.error(f"non executable command in pipeline stage {stage}")
        return PipeNode(first.offset, variables, is_assignment, tuple(commands))

    def _parse_declarations(self, context: str) -> tuple[tuple[VariableNode, ...], bool]:
        """declarations: variable [, variable] (:= | =); only a range takes two."""
        found: list[VariableNode] = []
        while (token := self.tokens.peek_non_space()).kind is TokenKind.VARIABLE:
            self.tokens.next()
            after = self.tokens.peek()
            following = self.tokens.peek_non_space()
            is_comma = following.kind is TokenKind.CHAR and following.value == ","
            if not is_comma and following.kind not in (TokenKind.ASSIGN, TokenKind.DECLARE):
                # A variable used as a value; the blank after it ends the operand.
                self.tokens.put_back(token, *((after,) if after.kind is TokenKind.SPACE else ()))
                break
            self.tokens.next_non_space()
            found.append(VariableNode(token.offset, tuple(token.value.split("."))))
            self.count()
            self.variables.append(token.value)
            if not is_comma:
                return tuple(found), following.kind is TokenKind.ASSIGN
            self._check_second_variable(context, len(found))
        return tuple(found), False

    def _check_second_variable(self, context: str, found: int) -> None:
        """After the comma in a declaration."""
        if context != "range" or found > 1:
            raise self.error(f"too many declarations in {context}")
        allowed = (TokenKind.VARIABLE, TokenKind.RIGHT_DELIMITER, TokenKind.RIGHT_PAREN)
        if self.tokens.peek_non_space().kind not in allowed:
            raise self.error("range can only initialize variables")

    def parse_command(self) -> CommandNode:
        """command: operand (blank operand)*; takes the | after it, leaves a closing token."""
        first = self.tokens.peek_non_space()
        self.count()
        operands: list[Operand] = []
        while True:
            self.tokens.peek_non_space()
            operand = self.parse_operand()
            if operand is not None:
                operands.append(operand)
            token = self.tokens.next()
            if token.kind is TokenKind.SPACE:
                continue
            if token.kind in (TokenKind.RIGHT_DELIMITER, TokenKind.RIGHT_PAREN):
                self.tokens.put_back(token)
            elif token.kind is not TokenKind.PIPE:
                raise self.unexpected(token, "operand")
            break
        if not operands:
            raise self.error("empty command")
        return CommandNode(first.offset, tuple(operands))

    def parse_operand(self) -> Operand | None:
        """operand: term field*; None when no term follows."""
        node = self.parse_term()
        first = self.tokens.peek() if node is not None else None
        if node is None or first is None or first.kind is not TokenKind.FIELD:
            return node
        names: list[str] = []
        while self.tokens.peek().kind is TokenKind.FIELD:
            names.append(self.tokens.next().value[1:])
            self.count()
        match node:
            case FieldNode():
                return FieldNode(first.offset, (*node.names, *names))
            case VariableNode():
                return VariableNode(first.offset, (*node.names, *names))
            case BoolNode() | StringNode() | NumberNode() | NilNode() | DotNode():
                raise self.error(f"unexpected . after term {quote(str(node))}", first)
            case _:
                return ChainNode(first.offset, node, tuple(names))

    def parse_term(self) -> Operand | None:
        """term: constant | function | . | .field | $variable | ( pipeline ); None when none of them follows."""
        token = self.tokens.next_non_space()
        if token.kind is TokenKind.LEFT_PAREN:
            self.enter()
            pipe = self.parse_pipeline("parenthesized pipeline", TokenKind.RIGHT_PAREN)
            self.leave()
            return pipe
        if token.kind not in _STARTS_OPERAND:
            self.tokens.put_back(token)
            return None
        self.count()
        return self._parse_constant(token) or self._parse_name(token)

    def _parse_constant(self, token: Token) -> Operand | None:
        match token.kind:
            case TokenKind.DOT:
                return DotNode(token.offset)
            case TokenKind.NIL:
                return NilNode(token.offset)
            case TokenKind.BOOL:
                return BoolNode(token.offset, token.value == "true")
            case TokenKind.STRING | TokenKind.RAW_STRING:
                return StringNode(token.offset, token.value, self.unquoted(token))
            case TokenKind.NUMBER | TokenKind.CHARACTER | TokenKind.COMPLEX:
                try:
                    return NumberNode(token.offset, token.value, _NUMBER_PARSERS[token.kind](token.value))
                except LiteralSyntaxError as error:
                    raise self.error(str(error), token) from error
            case _:
                return None

    def _parse_name(self, token: Token) -> Operand:
        if token.kind is TokenKind.FIELD:
            return FieldNode(token.offset, (token.value[1:],))
        if token.kind is TokenKind.VARIABLE:
            if token.value not in self.variables:
                raise self.error(f"undefined variable {quote(token.value)}", token)
            return VariableNode(token.offset, (token.value,))
        if token.value not in FUNCTIONS:
            raise self.error(f"function {quote(token.value)} not defined", token)
        return IdentifierNode(token.offset, token.value)
