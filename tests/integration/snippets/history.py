"""What a session keeps of its past: `_`, `In`, `Out` and their kin. Run in a session of their own."""

from tests.integration.snippets import Snippet

ROWS = [
    Snippet(name="the last value", before=("6 * 7",), code="_ + 1", value=43),
    Snippet(name="the three last values", before=("'a'", "'b'", "'c'"), code="(_, __, ___)", value=["c", "b", "a"]),
    Snippet(name="None does not count", before=("'kept'", "None", "print()"), code="_", value="kept", stdout=""),
    Snippet(name="an assignment does not count", before=("'kept'", "h1 = 'assigned'", "h2 = h3 = 1; h2 += 1", "h4: int = 4"), code="_", value="kept"),
    Snippet(name="nor is it in Out", before=("n1 = len(In) - 1",), code="n1 in Out", value=False),
    Snippet(name="the source of the cell before", before=("1+1 # a comment",), code="_i", value="1+1 # a comment"),
    Snippet(name="the sources before that", before=("'first'", "'second'", "'third'"), code="(_i, _ii, _iii)", value=["'third'", "'second'", "'first'"]),
    Snippet(name="In holds every cell, this one too", before=("mark = 1",), code="In[-2:]", value=["mark = 1", "In[-2:]"]),
    Snippet(name="Out by number", before=("n0 = len(In)\n'numbered'",), code="Out[n0 - 1] if n0 - 1 in Out else Out[n0]", value="numbered"),
    Snippet(name="a name of one's own wins", before=("__ = 'mine'; None", "'x'", "'y'"), code="__", value="mine"),
]
