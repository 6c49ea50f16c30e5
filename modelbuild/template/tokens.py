"""A stream of tokens with the look-ahead that the parser needs."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from modelbuild.template.lexer import Token, TokenKind, tokenize


class TokenStream:
    """Tokens of one text, readable ahead. newest: the last one that the lexer gave.

    Go's error texts name the line of `newest`, however far ahead of the fault it stands; so do ours.
    """

    def __init__(self, text: str) -> None:
        self._source: Iterator[Token] = tokenize(text)
        self._ahead: deque[Token] = deque()
        self.newest = Token(TokenKind.EOF, "", 0, 1)

    def next(self) -> Token:
        """The next token, taken away."""
        if self._ahead:
            return self._ahead.popleft()
        # After the end or an error every further token is the end of the text.
        self.newest = next(self._source, Token(TokenKind.EOF, "", self.newest.offset, self.newest.line))
        return self.newest

    def peek(self) -> Token:
        """The next token, left in place."""
        if not self._ahead:
            self._ahead.append(self.next())
        return self._ahead[0]

    def next_non_space(self) -> Token:
        """The next token that is no blank, taken away with the blanks before it."""
        token = self.next()
        while token.kind is TokenKind.SPACE:
            token = self.next()
        return token

    def peek_non_space(self) -> Token:
        """The next token that is no blank, left in place; blanks before it are taken away."""
        token = self.next_non_space()
        self.put_back(token)
        return token

    def put_back(self, *tokens: Token) -> None:
        """Make these the next tokens, in this order."""
        self._ahead.extendleft(reversed(tokens))
