"""Matplotlib's figures: as pictures, at `plt.show()`, and at a cell's end.

Like `rendering.display`, this keeps no state, and a cancel may raise inside it.
"""

import sys
from io import BytesIO
from typing import Any, Final

from pyrepl3_schemas.display_budget import PLAIN_TEXT
from pyrepl3_worker.rendering.display import Publisher, add_representation
from pyrepl3_worker.rendering.reprs import bounded_repr, error_line

PYPLOT: Final = "matplotlib.pyplot"
_MAX_REPR_CHARS: Final = 1000


def figure_png(figure: Any) -> bytes | None:
    """Return a figure as a PNG file, None if there is nothing in it: a notebook shows no blank area."""
    if len(figure.get_children()) <= 1:  # its background
        return None
    buffer = BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight")
    return buffer.getvalue()


def show_figure(publisher: Publisher, figure: Any, name: object) -> None:
    """Show a figure. For one that cannot be drawn, a text that says why is shown.

    Args:
        publisher: sends it.
        figure: the figure.
        name: what that text calls it.
    """
    data: dict[str, str] = {}
    try:
        picture = figure_png(figure)
        if picture is not None:
            add_representation(data, "image/png", picture)
        data[PLAIN_TEXT] = bounded_repr(figure, _MAX_REPR_CHARS)[0]
    except TimeoutError:
        raise  # what a timeout raises
    except Exception as error:
        data = {PLAIN_TEXT: f"<figure {name} can't be drawn: {error_line(error)}>"}
    publisher.show(data, {})


def flush_figures(publisher: Publisher) -> None:
    """Show all open figures of matplotlib and close them, if the code has imported matplotlib."""
    pyplot: Any = sys.modules.get(PYPLOT)
    if pyplot is None:
        return
    try:
        numbers = list(pyplot.get_fignums())
    except Exception as error:
        publisher.show({PLAIN_TEXT: f"<the open figures are not known: {error_line(error)}>"}, {})
        return
    for number in numbers:
        try:
            show_figure(publisher, pyplot.figure(number), number)
        finally:
            _close(publisher, pyplot, number)


def _close(publisher: Publisher, pyplot: Any, number: object) -> None:
    try:
        pyplot.close(number)
    except Exception as error:
        publisher.show({PLAIN_TEXT: f"<figure {number} can't be closed: {error_line(error)}>"}, {})
