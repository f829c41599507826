"""What stands before a cursor: the code that an editor asks about, scanned as far as it has been typed.

Unfinished code neither parses nor tokenizes, so this is a scanner of its own that only has to know where
names, strings, comments and brackets are. It never fails: what it can't make sense of is an operator.
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
_PREFIXES: Final = "rRbBuUfFtT"
_STOPS: Final = {
    "'": re.compile(r"\\[\s\S]?|'|\n"),
    '"': re.compile(r'\\[\s\S]?|"|\n'),
    "'''": re.compile(r"\\[\s\S]?|'''"),
    '"""': re.compile(r'\\[\s\S]?|"""'),
}
_REST_OF_NAME: Final = re.compile(r"\w*")
_CLOSERS: Final = {"(": ")", "[": "]", "{": "}"}
_LONGEST: Final = 200_000
"""Characters before the cursor that are looked at."""
_STATEMENT: Final = re.compile(r"(?:import|from|def|class|return|with|while|try)\b")


class Token(NamedTuple):
    """A piece of code, by character offsets."""

    kind: Kind
    text: str
    start: int
    end: int


class Scan(NamedTuple):
    """The code before a cursor."""

    tokens: list[Token]
    """Without blanks and comments; newlines inside of brackets are left out too."""
    open_brackets: list[int]
    """Indices of the brackets in `tokens` that the cursor is in, outermost first."""
    open_string: Token | None = None
    """The string literal that the cursor is in, from its prefix on."""
    in_comment: bool = False

    def statement(self) -> list[Token]:
        """Give the tokens of the statement that the cursor is in."""
        start = 0
        for index, token in enumerate(self.tokens):
            if token.kind == "newline" or (token.kind == "operator" and token.text == ";"):
                start = index + 1
        return self.tokens[start:]


def scan(code: str, cursor: int) -> Scan:
    """Scan what stands before `cursor`. Inside a replacement field of an f-string, scan the field."""
    at = max(0, cursor - _LONGEST)
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
                # Right behind its last character, one still writes on it.
                if at == cursor:
                    return Scan(tokens, brackets, in_comment=True)
            case "string":
                end = _end_of_string(code, at, cursor, text)
                token = Token("string", code[start : cursor if end is None else end], start, end or cursor)
                if end is None:
                    return _in_string(code, Scan(tokens, brackets, token), text)
                tokens.append(token)
                at = end
            case "newline":
                if not brackets or _begins_statement(code, at, cursor):
                    brackets.clear()
                    tokens.append(Token("newline", text, start, at))
            case "operator":
                if text in _CLOSERS:
                    brackets.append(len(tokens))
                elif brackets and text == _CLOSERS[tokens[brackets[-1]].text]:
                    brackets.pop()
                tokens.append(Token("operator", text, start, at))
            case kind:
                tokens.append(Token("name" if kind == "name" else "number", text, start, at))
    return Scan(tokens, brackets)


def _begins_statement(code: str, at: int, cursor: int) -> bool:
    """Whether a line is surely no continuation: an open bracket above it was then left unfinished."""
    return _STATEMENT.match(code, at, cursor) is not None


def _end_of_string(code: str, at: int, cursor: int, opening: str) -> int | None:
    """Give the offset behind a string's closing quote; None when the cursor is inside of it."""
    quote = opening.lstrip(_PREFIXES)
    while (match := _STOPS[quote].search(code, at, cursor)) is not None:
        if match.group() == quote:
            return match.end()
        if match.group() == "\n":
            return match.start()  # never closed: an error, and the next line is code again
        at = match.end()
    return None


def _in_string(code: str, found: Scan, opening: str) -> Scan:
    token = found.open_string
    assert token is not None
    quote = opening.lstrip(_PREFIXES)
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
    """Give the end of the name that the cursor is in or behind; the cursor itself when it is in none."""
    match = _REST_OF_NAME.match(code, cursor)
    return cursor if match is None else match.end()


def primary_before(tokens: list[Token], end: int) -> int:
    """Give where the primary (`a.b["c"].d`, `"text"`) before token `end` begins; `end` if there is none."""
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
        opening = _opening_of(tokens, at - 1)
        if opening is None:
            return end
        at = opening
        if at == 0 or not _continues(tokens[at - 1]):
            return at
    return end


def _continues(token: Token) -> bool:
    """Whether a bracket behind this token calls or subscripts it."""
    if token.kind == "name":
        return not iskeyword(token.text)
    return token.kind == "string" or (token.kind == "operator" and token.text in (")", "]", "}"))


def _opening_of(tokens: list[Token], closing: int) -> int | None:
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
