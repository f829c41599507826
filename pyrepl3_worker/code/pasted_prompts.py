"""Takes pasted prompts off code: `>>> ` and `... ` of Python, `In [3]: ` and `   ...: ` of IPython.

As IPython does it: prompts are looked for only where the first line has one, then in every line; a line
without one (what the pasted code printed) stays as it is, and is code. Neither prompt begins a line of a
program: `>>>` is no Python, and `In [3]: x` would annotate an item of a variable `In`.
"""

import re
from typing import Final

# Strings, which `re` compiles when they are first used: each worker's start would pay for it otherwise.
_PYTHON_FIRST: Final = r"(?:[ \t\f]*\r?\n)*([ \t]*)>>>(?: |\r?$)"
_IPYTHON_FIRST: Final = r"(?:[ \t\f]*\r?\n)*([ \t]*)In \[\d+\]: "
_PYTHON_PROMPT: Final = r"(?:>>>|\.\.\.)(?: |(?=\r?$))"
_IPYTHON_PROMPT: Final = r"(?:In \[\d+\]: ?| +\.\.\.+: ?)"


def strip_prompts(source: str) -> str:
    """Return code without the prompts that its lines begin with; code without them as it is.

    Each line stays on its line.

    Args:
        source: a cell as it was sent.
    """
    if ">>>" in source:
        found = re.match(_PYTHON_FIRST, source, re.MULTILINE)
        if found is not None:
            return _strip(source, found[1], _PYTHON_PROMPT)
    if "In [" in source:
        found = re.match(_IPYTHON_FIRST, source)
        if found is not None:
            return _strip(source, found[1], _IPYTHON_PROMPT)
    return source


def has_lines_without_prompt(source: str) -> bool:
    """Return whether code with prompts has a line without one, which may be what the pasted code printed."""
    if strip_prompts(source) == source:
        return False
    lines = [line for line in source.splitlines() if line.strip()]
    return any(re.match(rf"[ \t]*(?:{_PYTHON_PROMPT}|{_IPYTHON_PROMPT})", line) is None for line in lines)


def _strip(source: str, margin: str, prompt: str) -> str:
    pattern = re.compile(f"^(?:{margin})?{prompt}", re.MULTILINE)
    return pattern.sub("", source)
