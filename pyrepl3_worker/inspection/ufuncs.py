"""Signatures and docstrings of NumPy's ufuncs, which are no functions of Python."""

from pyrepl3_worker.inspection.tables import is_a, library_attribute

_KEYWORDS = "casting='same_kind', order='K', dtype=None, subok=True, signature=None"
_GENERALIZED = "axes=..., axis=..., keepdims=False"
"""Of those that work on whole axes, of which no element can be left out."""


def doc(value: object) -> object:
    """Return the docstring of a ufunc; None for anything else."""
    return library_attribute(value, "__doc__") if is_a(value, "numpy", "ufunc") else None


def signature(value: object) -> str:
    """Return the parameters of a ufunc as text; empty for anything else."""
    if not is_a(value, "numpy", "ufunc"):
        return ""
    taken, given = library_attribute(value, "nin"), library_attribute(value, "nout")
    if type(taken) is not int or type(given) is not int:
        return ""
    inputs = "x" if taken == 1 else ", ".join(f"x{i + 1}" for i in range(taken))
    inputs = f"{inputs}, /, " if inputs else ""
    out = "None" if given == 1 else f"({', '.join(['None'] * given)})"
    generalized = library_attribute(value, "signature") is not None
    return f"({inputs}out={out}, *, {_GENERALIZED if generalized else 'where=True'}, {_KEYWORDS})"
