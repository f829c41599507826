"""Splits unfinished code into tokens, up to a cursor.

Unfinished code can be neither parsed nor tokenized, so this is a scanner of its own, which only finds
names, strings, comments and brackets. It never fails: a character that it does not know is an operator.
"""

import re
from keyword import iskeyword
from typing import Final, Literal, NamedTuple

type Kind = Literal["name", "number", "string", "operator", "newline"]

_TOKEN: Final = re.compile(
    r"""(?P<space>[ \t\f\r]+|\\\n)
      | (?P<comment>\#[^\n]*)
      | (?P<string>(?i:[rbuft]{0,2})(?:'''|\"\"\"|'|"))
      | (?P<name>[^\W\d]\w*)
      | (?P<number>(?:\d|\.\d)(?:[eE][+-]?\d|\w|\.)*)
      | (?P<newline>\n)
      | (?P<operator>:=|==|!=|<=|>=|->|[^\n])""",
    re.VERBOSE,
)
_STRING_PREFIXES: Final = "rRbBuUfFtT"
_STRING_STOPS: Final = {
    "'": re.compile(r"\\[\s\S]?|'|\n"),
    '"': re.compile(r'\\[\s\S]?|"|\n'),
    "'''": re.compile(r"\\[\s\S]?|'''"),
    '"""': re.compile(r'\\[\s\S]?|"""'),
}
_REST_OF_NAME: Final = re.compile(r"\w*")
_CLOSING_BRACKETS: Final = {"(": ")", "[": "]", "{": "}"}
_MAX_CHARS: Final = 200_000
"""Characters before the cursor that are scanned."""
_STATEMENT_START: Final = re.compile(r"(?:import|from|def|class|return|with|while|try)\b")


class Token(NamedTuple):
    """A token of the code; `start` and `end` are offsets in characters."""

    kind: Kind
    text: str
    start: int
    end: int


class Scan(NamedTuple):
    """The code before a cursor, as tokens."""

    tokens: list[Token]
    """Without blanks, comments, and newlines inside brackets."""
    open_brackets: list[int]
    """Indices in `tokens` of the brackets around the cursor, outermost first."""
    open_string: Token | None = None
    """The string literal around the cursor, from its prefix on."""
    in_comment: bool = False

    def statement(self) -> list[Token]:
        """Return the tokens of the statement at the cursor."""
        start = 0
        for index, token in enumerate(self.tokens):
            if token.kind == "newline" or (token.kind == "operator" and token.text == ";"):
                start = index + 1
        return self.tokens[start:]


def scan(code: str, cursor: int) -> Scan:
    """Scan the code before `cursor`; inside a replacement field of an f-string, only the field."""
    at = max(0, cursor - _MAX_CHARS)
    if at:
        at = code.find("\n", at, cursor) + 1 or cursor
    return _scan(code, at, cursor)


def _scan(code: str, at: int, cursor: int) -> Scan:
    tokens: list[Token] = []
    brackets: list[int] = []
    while at < cursor:
        match = _TOKEN.match(code, at, cursor)
        assert match is not None, "every character is some token"
        start, at = match.span()
        text = match.group()
        match match.lastgroup:
            case "space":
                continue
            case "comment":
                # With the cursor after its last character, the comment is still being typed.
                if at == cursor:
                    return Scan(tokens, brackets, in_comment=True)
            case "string":
                end = _end_of_string(code, at, cursor, text)
                token = Token("string", code[start : cursor if end is None else end], start, end or cursor)
                if end is None:
                    return _scan_replacement_field(code, Scan(tokens, brackets, token), text)
                tokens.append(token)
                at = end
            case "newline":
                if not brackets or _begins_statement(code, at, cursor):
                    brackets.clear()
                    tokens.append(Token("newline", text, start, at))
            case "operator":
                if text in _CLOSING_BRACKETS:
                    brackets.append(len(tokens))
                elif brackets and text == _CLOSING_BRACKETS[tokens[brackets[-1]].text]:
                    brackets.pop()
                tokens.append(Token("operator", text, start, at))
            case kind:
                tokens.append(Token("name" if kind == "name" else "number", text, start, at))
    return Scan(tokens, brackets)


def _begins_statement(code: str, at: int, cursor: int) -> bool:
    """Return whether a line surely begins a statement, although a bracket above it is still open."""
    return _STATEMENT_START.match(code, at, cursor) is not None


def _end_of_string(code: str, at: int, cursor: int, opening: str) -> int | None:
    """Return the offset after a string's closing quote; None if the cursor is inside the string."""
    quote = opening.lstrip(_STRING_PREFIXES)
    while (match := _STRING_STOPS[quote].search(code, at, cursor)) is not None:
        if match.group() == quote:
            return match.end()
        if match.group() == "\n":
            return match.start()  # it has no closing quote: an error, and the next line is code again
        at = match.end()
    return None


def _scan_replacement_field(code: str, found: Scan, opening: str) -> Scan:
    token = found.open_string
    assert token is not None
    quote = opening.lstrip(_STRING_PREFIXES)
    if not {"f", "t"} & set(opening[: len(opening) - len(quote)].lower()):
        return found
    fields: list[int] = []
    text = token.text
    at = len(opening)
    while at < len(text):
        if text[at] == "{" and not fields and text.startswith("{{", at):
            at += 2
            continue
        if text[at] in "{[(":
            if fields or text[at] == "{":
                fields.append(at)
        elif text[at] in "}])" and fields:
            fields.pop()
        at += 1
    return _scan(code, token.start + fields[0] + 1, token.end) if fields else found


def end_of_name(code: str, cursor: int) -> int:
    """Return the end of the name at the cursor; the cursor itself if there is no name."""
    match = _REST_OF_NAME.match(code, cursor)
    return cursor if match is None else match.end()


def start_of_primary(tokens: list[Token], end: int) -> int:
    """Return the first token of the primary (`a.b["c"].d`, `"text"`) before token `end`; `end` if none."""
    at = end
    while at > 0:
        token = tokens[at - 1]
        if token.kind in ("name", "string", "number"):
            at -= 1
            if at and tokens[at - 1].kind == "operator" and tokens[at - 1].text == ".":
                at -= 1
                continue
            return at
        if token.kind != "operator" or token.text not in (")", "]", "}"):
            return end
        opening = _opening_bracket(tokens, at - 1)
        if opening is None:
            return end
        at = opening
        if at == 0 or not _can_be_called_or_subscripted(tokens[at - 1]):
            return at
    return end


def _can_be_called_or_subscripted(token: Token) -> bool:
    """Return whether a bracket after this token is a call or a subscript."""
    if token.kind == "name":
        return not iskeyword(token.text)
    return token.kind == "string" or (token.kind == "operator" and token.text in (")", "]", "}"))


def _opening_bracket(tokens: list[Token], closing: int) -> int | None:
    depth = 0
    for index in range(closing, -1, -1):
        token = tokens[index]
        if token.kind == "operator" and token.text in (")", "]", "}"):
            depth += 1
        elif token.kind == "operator" and token.text in ("(", "[", "{"):
            depth -= 1
            if not depth:
                return index
    return None
