"""Completes code at a cursor, describes the object at a cursor, and lists the variables.

The answers are read from the dictionaries of live objects (`rendering.static_lookup`), also in the
wake-up signal's handler while code runs. Only what classes define for editors is called (`own_answers`).
jedi was the alternative. It infers more where nothing has run yet, but a session's names are live: their
dictionaries know better than any inference. Its import takes 80 ms and its first answer took 2 s and 45 MB
here, it evaluates properties of live objects, and it keeps a cache on disk, which a signal handler in the
middle of the user's code must not do. The standard
library's `rlcompleter` is small, but evaluates the expression before the dot and calls `dir` and
`getattr`.

Nothing here raises: a question that can't be answered gets an empty answer.
"""

import builtins
import keyword
import re
import sys
from collections.abc import Callable, Container, Iterable, Iterator
from itertools import pairwise
from types import FunctionType
from typing import Final, NamedTuple

from pyrepl3_schemas.messages import Complete, Completions, Inspect, Inspection, Variable
from pyrepl3_worker.inspection import importable_modules, own_answers, paths, signatures, tables
from pyrepl3_worker.inspection.own_answers import Call, call_nothing
from pyrepl3_worker.inspection.scanner import Scan, Token, end_of_name, scan, start_of_primary
from pyrepl3_worker.rendering import static_lookup
from pyrepl3_worker.rendering.reprs import encodable, safe_repr, type_name
from pyrepl3_worker.rendering.static_lookup import UNKNOWN, InstanceOf

_MAX_MATCHES: Final = 500
_MAX_REPR_CHARS: Final = 2000
_MAX_VARIABLE_CHARS: Final = 200
_SIZED_TYPES: Final = frozenset({str, bytes, bytearray, list, tuple, dict, set, frozenset, range})
_BEGUN_MAGIC: Final = re.compile(r"^(?:\s*|\s*[\w., *]+=\s*)(%{1,2}\w*)$")
"""Begun at a line's start, or as a value that is assigned."""
_BRACKET_DEPTHS: Final = {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}
HIDDEN_VARIABLES: Final = frozenset({"In", "Out"})
"""Names that the list of variables leaves out by default, like those that begin with an underscore."""

type Namespace = dict[str, object]
type Magics = tuple[list[str], list[str]]
"""Names of IPython's line magics and cell magics."""


class _Match(NamedTuple):
    rank: int
    text: str
    kind: str


def complete(
    namespace: Namespace, request: Complete, call: Call = call_nothing, magics: Magics | None = None
) -> Completions:
    """Return what could stand at the cursor: at most 500 matches, the best first.

    The answer's offsets, in characters, say which part of the code a match replaces.

    Args:
        namespace: the live namespace.
        request: the code and the cursor, in characters; a cursor outside of the code is moved to its end.
        call: calls what the code's classes define for editors.
        magics: the names of IPython's magics, if its syntax is the session's.
    """
    code = request.code
    cursor = min(max(request.cursor, 0), len(code))
    try:
        matches, start = _magic_matches(code, cursor, magics) if magics else ([], cursor)
        if not matches:
            matches, start = _complete(namespace, code, cursor, call)
        # A column is an attribute too: the better of two that read the same.
        best = list({match.text: match for match in sorted(matches, key=_sort_key, reverse=True)}.values())
        best = best[: -_MAX_MATCHES - 1 : -1]
    except Exception:
        best, start = [], cursor
    return Completions(
        request_id=request.request_id,
        matches=[match.text for match in best],
        kinds=[match.kind for match in best],
        cursor_start=start,
        cursor_end=cursor,
    )


def _magic_matches(code: str, cursor: int, magics: Magics) -> tuple[list[_Match], int]:
    begun = _BEGUN_MAGIC.search(code[code.rfind("\n", 0, cursor) + 1 : cursor])
    if begun is None:
        return [], cursor
    typed = begun[1]
    start = cursor - len(typed)
    before = scan(code, start)
    if before.open_brackets or before.open_string is not None:
        return [], cursor  # it is an operator, or text
    line_magics, cell_magics = magics
    names = [f"%{name}" for name in line_magics]
    if not code[:start].strip():
        names += [f"%%{name}" for name in cell_magics]
    return [_Match(1, name, "magic") for name in names if _is_begun(name, typed)], start


def _is_begun(magic: str, typed: str) -> bool:
    """Return whether a magic begins with what is typed; a cell magic also with one `%` for two."""
    return magic.startswith(typed) or magic.removeprefix("%").startswith(typed)


def _sort_key(match: _Match) -> tuple[int, bool, str]:
    return match.rank, match.text.startswith("_"), match.text


def _complete(namespace: Namespace, code: str, cursor: int, call: Call) -> tuple[list[_Match], int]:
    found = scan(code, cursor)
    if found.in_comment:
        return [], cursor
    if found.open_string is not None:
        text = found.open_string.text
        typed = text.lstrip("rRuU").lstrip("\"'")
        keys = list(_key_matches(namespace, code, found, typed, call))
        if keys or (found.tokens and found.tokens[-1].text == "["):
            return keys, cursor - len(typed) if keys else cursor
        files = [_Match(0, name, "path") for name in paths.matching_paths(typed)]
        return files, cursor - len(typed.rpartition("/")[2]) if files else cursor
    tokens = found.tokens
    prefix = ""
    start = cursor
    if tokens and tokens[-1].end == cursor:
        if tokens[-1].kind == "number":
            return [], cursor
        if tokens[-1].kind == "name":
            last = tokens.pop()
            prefix, start = _normalize_identifier(last.text), last.start
    names = list(_code_matches(namespace, code, found, prefix, call))
    return [match for match in names if _is_offered(match.text, prefix)], start


def _normalize_identifier(name: str) -> str:
    """Return an identifier in the form in which the compiler stores it (NFKC)."""
    if name.isascii():
        return name
    import unicodedata

    return unicodedata.normalize("NFKC", name)


def _is_offered(name: str, prefix: str) -> bool:
    """Return whether a name begins with the prefix; a private one needs a private prefix."""
    if not name.startswith(prefix) or not name.isprintable():
        return False
    if name.startswith("__"):
        return prefix.startswith("__")
    return not name.startswith("_") or prefix.startswith("_")


def _code_matches(namespace: Namespace, code: str, found: Scan, prefix: str, call: Call) -> Iterator[_Match]:
    tokens = found.tokens
    statement = found.statement()
    before = tokens[-1].text if tokens else ""
    first = statement[0].text if statement else ""
    if first in ("import", "from"):
        yield from _import_matches(statement)
    elif before == ".":
        value = _evaluate_primary(namespace, code, tokens, len(tokens) - 1)
        if value is not UNKNOWN:
            yield from _attribute_matches(value, call)
    elif before not in ("def", "class", "as", "global", "nonlocal"):
        yield from _argument_matches(namespace, code, found)
        if not prefix:
            yield from _quoted_key_matches(namespace, code, found, call)
        yield from _name_matches(namespace, tokens)
    elif before in ("global", "nonlocal"):
        yield from _namespace_matches(namespace)


def _resolver(namespace: Namespace) -> Callable[[str], object]:
    def resolve(name: str) -> object:
        name = _normalize_identifier(name)
        if name in namespace:
            return namespace[name]
        return builtins.__dict__.get(name, UNKNOWN)

    return resolve


def _evaluate_primary(namespace: Namespace, code: str, tokens: list[Token], end: int) -> object:
    """Return the value of the primary expression that ends before token `end`; UNKNOWN if it has none."""
    start = start_of_primary(tokens, end)
    if start == end:
        return UNKNOWN
    # In brackets, because a primary may span several lines.
    primary = f"({code[tokens[start].start : tokens[end - 1].end]}\n)"
    return static_lookup.evaluate_statically(primary, _resolver(namespace), tables.column)


def _attribute_matches(value: object, call: Call) -> Iterator[_Match]:
    of_class = not static_lookup.is_module(value)
    own: Container[str] = (
        static_lookup.instance_dict(value) if of_class and type(value) is not InstanceOf else ()
    )
    attributes = static_lookup.static_attributes(value)
    for name, raw in attributes.items():
        yield _Match(1, name, static_lookup.kind_of(raw, of_class=of_class and name not in own))
    for name in own_answers.attribute_names(value, call):
        if name not in attributes and name.isidentifier():
            yield _Match(1, name, "variable")
    for key in tables.columns_of(value) or ():
        if type(key) is str and key.isidentifier():
            yield _Match(0, key, "column")


def _name_matches(namespace: Namespace, tokens: list[Token]) -> Iterator[_Match]:
    for name, kind in _bound_in_code(tokens):
        if name not in namespace:
            yield _Match(1, name, kind)
    yield from _namespace_matches(namespace)
    for name, value in list(builtins.__dict__.items()):
        if type(name) is str and name not in namespace and not keyword.iskeyword(name):
            # What is written in Python is the session's own: host functions, `display`.
            rank = 1 if type(value) is FunctionType else 2
            yield _Match(rank, name, static_lookup.kind_of(value))
    for name in (*keyword.kwlist, *keyword.softkwlist):
        if name not in namespace:
            yield _Match(2, name, "keyword")


def _namespace_matches(namespace: Namespace) -> Iterator[_Match]:
    for name, value in list(namespace.items()):
        if type(name) is str and name.isidentifier():
            yield _Match(1, name, static_lookup.kind_of(value))


def _bound_in_code(tokens: list[Token]) -> Iterator[tuple[str, str]]:
    """Yield the names, and their kinds, that the code before the cursor binds: it has not run yet."""
    seen: set[str] = set()
    depth = 0
    for index, token in enumerate(tokens):
        if token.text in _BRACKET_DEPTHS and token.kind == "operator":
            depth = max(depth + _BRACKET_DEPTHS[token.text], 0)
        if token.kind != "name" or token.text in seen or keyword.iskeyword(token.text):
            continue
        before = tokens[index - 1].text if index else ""
        after = tokens[index + 1].text if index + 1 < len(tokens) else ""
        if before in ("def", "class"):
            kind = "function" if before == "def" else "class"
        elif (
            before in ("as", "for", "import")
            or after == ":="
            or (after == "=" and before != "." and not depth)
        ):
            kind = "variable"
        else:
            continue
        seen.add(token.text)
        yield token.text, kind


# --- imports --------------------------------------------------------------------------------------------


def _import_matches(statement: list[Token]) -> Iterator[_Match]:
    texts = [token.text for token in statement]
    if texts[-1] == "as":
        return
    if texts[0] == "from" and "import" in texts:
        module = "".join(texts[1 : texts.index("import")])
        if texts[-1] in ("import", ",", "(") and not module.startswith("."):
            yield from _from_import_matches(module)
    elif texts[-1] in ("import", "from", ","):
        for name in importable_modules.top_level_modules():
            yield _Match(1, name, "module")
    elif texts[-1] == ".":
        package = _dotted_name(texts[:-1])
        if package:
            for name in importable_modules.submodules(package):
                yield _Match(1, name, "module")
    elif statement[-1].kind == "name":
        yield _Match(1, "import" if texts[0] == "from" else "as", "keyword")


def _dotted_name(texts: list[str]) -> str:
    start = len(texts)
    while start > 0 and texts[start - 1] not in ("import", "from", ","):
        start -= 1
    return "".join(texts[start:])


def _from_import_matches(name: str) -> Iterator[_Match]:
    module = sys.modules.get(name)
    if module is not None:
        for attribute, value in static_lookup.static_attributes(module).items():
            yield _Match(1, attribute, static_lookup.kind_of(value))
    for submodule in importable_modules.submodules(name):
        yield _Match(1, submodule, "module")


# --- inside brackets ------------------------------------------------------------------------------------


def _innermost_call(namespace: Namespace, code: str, found: Scan) -> tuple[object, int]:
    """Return the object that the innermost call around the cursor calls, and the index of its bracket."""
    tokens = found.tokens
    for index in reversed(found.open_brackets):
        start = start_of_primary(tokens, index)
        if tokens[index].text == "(" and start < index:
            if start and tokens[start - 1].text in ("def", "class"):
                break
            value = _evaluate_primary(namespace, code, tokens, index)
            if value is not UNKNOWN:
                return value, index
    return UNKNOWN, 0


def _argument_matches(namespace: Namespace, code: str, found: Scan) -> Iterator[_Match]:
    tokens = found.tokens
    if not found.open_brackets or tokens[-1].text not in ("(", ","):
        return
    value, bracket = _innermost_call(namespace, code, found)
    if value is UNKNOWN or bracket != found.open_brackets[-1]:
        return
    inside = tokens[bracket:]
    given = {name.text for name, sign in pairwise(inside) if sign.text == "="}
    for name in signatures.keyword_names(value):
        if name not in given:
            yield _Match(0, f"{name}=", "argument")


def _subscripted_keys(namespace: Namespace, code: str, tokens: list[Token], call: Call) -> Iterable[str]:
    """Return those keys of the dict that is subscripted at the cursor that are strings."""
    if not tokens or tokens[-1].text != "[":
        return []
    value = _evaluate_primary(namespace, code, tokens, len(tokens) - 1)
    keys = [*(tables.keys_of(value) or ()), *own_answers.keys(value, call)]
    return [key for key in keys if type(key) is str and key.isprintable()]


def _key_matches(namespace: Namespace, code: str, found: Scan, typed: str, call: Call) -> Iterator[_Match]:
    for key in _subscripted_keys(namespace, code, found.tokens, call):
        # A key that needs a backslash can't be compared with what is typed.
        if key.startswith(typed) and not {"\\", '"', "'"} & set(key):
            yield _Match(0, key, "key")


def _quoted_key_matches(namespace: Namespace, code: str, found: Scan, call: Call) -> Iterator[_Match]:
    for key in _subscripted_keys(namespace, code, found.tokens, call):
        yield _Match(0, repr(key), "key")


# --- inspection -----------------------------------------------------------------------------------------


def inspect(namespace: Namespace, request: Inspect, hidden: frozenset[str] = HIDDEN_VARIABLES) -> Inspection:
    """Describe the object at the cursor, or the one that is called around it.

    With empty code, the answer lists all variables.

    Args:
        namespace: the live namespace.
        request: the code and the cursor, in characters.
        hidden: names that are not listed as variables.
    """
    try:
        if not request.code:
            return Inspection(
                request_id=request.request_id, found=True, variables=_variables(namespace, hidden)
            )
        return _inspect(namespace, request)
    except Exception:
        return Inspection(request_id=request.request_id)


def _inspect(namespace: Namespace, request: Inspect) -> Inspection:
    code = request.code
    found = scan(code, end_of_name(code, min(max(request.cursor, 0), len(code))))
    nothing = Inspection(request_id=request.request_id)
    if found.in_comment:
        return nothing
    tokens = found.tokens
    if found.open_string is None and tokens and (tokens[-1].kind == "name" or tokens[-1].text == "]"):
        start = start_of_primary(tokens, len(tokens))
        value = _evaluate_primary(namespace, code, tokens, len(tokens))
        name = code[tokens[start].start : tokens[-1].end]
        owner, attribute = _owner(namespace, code, tokens, len(tokens))
        if value is UNKNOWN and owner is not UNKNOWN:
            value = static_lookup.static_attributes(owner).get(attribute, UNKNOWN)
        if value is not UNKNOWN:
            return _describe(request.request_id, name, value, owner, attribute)
    value, bracket = _innermost_call(namespace, code, found)
    if value is UNKNOWN:
        return nothing
    start = start_of_primary(tokens, bracket)
    name = code[tokens[start].start : tokens[bracket - 1].end]
    return _describe(request.request_id, name, value, *_owner(namespace, code, tokens, bracket))


def _owner(namespace: Namespace, code: str, tokens: list[Token], end: int) -> tuple[object, str]:
    """Return what the attribute that ends before token `end` is one of, and its name; or UNKNOWN."""
    if start_of_primary(tokens, end) < end - 2 and tokens[end - 2].text == ".":
        return _evaluate_primary(namespace, code, tokens, end - 2), _normalize_identifier(
            tokens[end - 1].text
        )
    return UNKNOWN, ""


def _describe(request_id: str, name: str, value: object, owner: object, attribute: str) -> Inspection:
    known = type(value) is not InstanceOf
    return Inspection(
        request_id=request_id,
        found=True,
        name=encodable(name),
        type_name=type_name(value) if known else encodable(type.__dict__["__name__"].__get__(value.cls)),
        signature=signatures.signature(value),
        doc=signatures.doc(value, owner, attribute),
        source=signatures.source(value),
        repr=safe_repr(value, _MAX_REPR_CHARS) if known else "",
    )


def _variables(namespace: Namespace, hidden: frozenset[str]) -> list[Variable]:
    return [
        _variable(name, value)
        for name, value in list(namespace.items())
        if type(name) is str and not name.startswith("_") and name not in hidden
    ]


def _variable(name: str, value: object) -> Variable:
    try:
        return _describe_variable(name, value)
    except Exception:  # its metaclass's, for example, where it forbids a hash: the others are listed
        return Variable(name=encodable(name), type_name=type_name(value), repr=f"<{type_name(value)} object>")


def _describe_variable(name: str, value: object) -> Variable:
    facts = tables.facts_of(value)
    return Variable(
        name=encodable(name),
        type_name=type_name(value),
        repr=safe_repr(value, _MAX_VARIABLE_CHARS),
        size=sys.getsizeof(value) if type(value) in _SIZED_TYPES else facts.size,
        length=facts.length,
        shape=facts.shape,
        dtype=encodable(facts.dtype),
    )
