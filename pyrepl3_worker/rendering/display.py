"""Rich objects as MIME bundles, `display()`, and matplotlib's open figures.

The protocol is the one that IPython has made common: `_repr_html_` and similar methods. Each method is
called by itself, so that one that fails does not prevent the others; the metadata then says why it failed.
The functions here keep no state, so a cancel may raise inside them (`pyrepl3_worker.interrupts.signals`).
"""

import os
import sys
from binascii import b2a_base64
from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from typing import Any, Final, cast

import msgspec

from pyrepl3_schemas.messages import Display
from pyrepl3_worker.rendering.reprs import bounded_repr, encodable, error_line, type_name
from pyrepl3_worker.rendering.static_lookup import UNKNOWN, find_in_mro, instance_dict

_METHODS: Final = {
    "_repr_html_": "text/html",
    "_repr_markdown_": "text/markdown",
    "_repr_svg_": "image/svg+xml",
    "_repr_png_": "image/png",
    "_repr_jpeg_": "image/jpeg",
    "_repr_latex_": "text/latex",
    "_repr_json_": "application/json",
}
_PLAIN_TEXT: Final = "text/plain"
_PLAIN_CHARS: Final = 1024 * 1024
_PYPLOT: Final = "matplotlib.pyplot"

type Bundle = dict[str, str]
"""MIME type to text: binary data in base64, JSON types as JSON."""


def mime_bundle(obj: object) -> tuple[Bundle, dict[str, str]]:
    """Return all representations that an object offers.

    Args:
        obj: what to show.

    Returns:
        The representations, always with `text/plain`, and their metadata as JSON; both by MIME type. A
        representation that raises is left out, and its metadata is `{"error": …}`.

    Raises:
        TimeoutError: raised inside the object's own code, as is any exception that is not an `Exception`.
    """
    data: Bundle = {}
    metadata: dict[str, str] = {}
    for mime, ask in _representations(obj):
        try:
            found = ask()
            given, about = cast(tuple[Any, Any], found) if type(found) is tuple else (found, None)
            if mime is None:
                for key, value in _as_mapping(given).items():
                    _add_representation(data, key, value)
                for key, value in _as_mapping(about).items():
                    metadata[encodable(str(key))] = _to_json(value)
            elif given is not None:
                _add_representation(data, mime, given)
                if about is not None:
                    metadata[mime] = _to_json(about)
        except TimeoutError:
            raise  # what a timeout raises
        except Exception as error:
            metadata[mime or "_repr_mimebundle_"] = _to_json({"error": error_line(error)})
    if _PLAIN_TEXT not in data:
        data[_PLAIN_TEXT], _ = bounded_repr(obj, _PLAIN_CHARS)
    return data, metadata


def _representations(obj: object) -> Iterator[tuple[str | None, Callable[[], Any]]]:
    """Yield MIME types and what to call for them; None as the MIME type means several at once.

    The methods are looked up statically: an object whose `__getattr__` has every name offers none of them.
    """
    own = instance_dict(obj)
    for name, mime in {"_repr_mimebundle_": None, **_METHODS}.items():
        if find_in_mro(type(obj), name) is not UNKNOWN or name in own:
            yield mime, lambda name=name: getattr(obj, name)()
    figures = sys.modules.get("matplotlib.figure")
    if figures is not None and "Figure" in instance_dict(figures) and isinstance(obj, figures.Figure):
        yield "image/png", lambda: _figure_png(obj)


def _as_mapping(value: object) -> Mapping[Any, Any]:
    return {} if value is None else cast(Mapping[Any, Any], value)


def _add_representation(data: Bundle, mime: object, value: object) -> None:
    key = encodable(str(mime))
    if isinstance(value, bytes | bytearray | memoryview):
        data[key] = b2a_base64(cast(bytes, value), newline=False).decode()
    elif isinstance(value, str):
        data[key] = encodable(str.__str__(value))
    elif key == "application/json" or key.endswith("+json"):
        data[key] = _to_json(value)
    else:
        raise TypeError(f"{key}: text or bytes are wanted, not a {type_name(value)}")


def _to_json(value: object) -> str:
    return msgspec.json.encode(value).decode()


class DisplayHandle:
    """A display that can be replaced later."""

    __slots__ = ("_display", "display_id")

    def __init__(self, display_id: str, display: Callable[..., Any]) -> None:
        """Refer to what is shown under an id.

        Args:
            display_id: the id.
            display: the session's `display` function.
        """
        self.display_id = display_id
        self._display = display

    def display(self, obj: object, **options: Any) -> None:
        """Show an object again under the same id; `options` are those of `display`."""
        self._display(obj, display_id=self.display_id, **options)

    def update(self, obj: object, **options: Any) -> None:
        """Replace what is shown by an object; `options` are those of `display`."""
        self._display(obj, display_id=self.display_id, update=True, **options)

    def __repr__(self) -> str:
        """Return the class and the id."""
        return f"<DisplayHandle display_id={self.display_id!r}>"


def make_display(
    send: Callable[[Display], None],
    current_execution: Callable[[], str | None],
    new_id: Callable[[], str] = lambda: os.urandom(16).hex(),
) -> Callable[..., DisplayHandle | None]:
    """Return the `display` function of a session.

    Args:
        send: sends a message.
        current_execution: returns the id of the execution that runs, or None.
        new_id: returns a new display id.
    """

    def display(
        *objs: object,
        display_id: str | bool | None = None,
        update: bool = False,
        raw: bool = False,
        metadata: Mapping[str, object] | None = None,
    ) -> DisplayHandle | None:
        """Show objects with the representations that they offer, such as HTML or an image.

        Args:
            objs: what to show, one display each.
            display_id: an id under which it can be replaced later; True makes a new one.
            update: replace what is shown under `display_id`.
            raw: the objects are MIME bundles already: MIME types to text, bytes, or JSON data.
            metadata: more data about the objects, by MIME type.

        Returns:
            A handle with `update(obj)` when there is a `display_id`, else None.

        Raises:
            TypeError: `update` without a `display_id`, or a raw object that is not a MIME bundle.
        """
        if update and not display_id:
            raise TypeError("update=True needs the display_id of what is to be changed")
        name = new_id() if display_id is True else display_id or None
        for obj in objs:
            data, about = _raw_bundle(obj) if raw else mime_bundle(obj)
            for key, value in (metadata or {}).items():
                about[encodable(key)] = _to_json(value)
            send(
                Display(
                    data=data,
                    execution_id=current_execution(),
                    metadata=about,
                    display_id=name if name is None else encodable(name),
                    update=update,
                )
            )
        return None if name is None else DisplayHandle(name, display)

    return display


def _raw_bundle(obj: object) -> tuple[Bundle, dict[str, str]]:
    if not isinstance(obj, Mapping):
        raise TypeError(f"raw=True wants a dict of MIME types, not a {type_name(obj)}")
    data: Bundle = {}
    for mime, value in cast(Mapping[object, object], obj).items():
        _add_representation(data, mime, value)
    return data, {}


def flush_figures(display: Callable[..., Any]) -> None:
    """Show all open figures of matplotlib and close them, if the code has imported matplotlib.

    For a figure that cannot be drawn, a text that says why is shown.
    """
    pyplot: Any = sys.modules.get(_PYPLOT)
    if pyplot is None:
        return
    try:
        numbers = list(pyplot.get_fignums())
    except Exception as error:
        display({_PLAIN_TEXT: f"<the open figures are not known: {error_line(error)}>"}, raw=True)
        return
    for number in numbers:
        try:
            figure = pyplot.figure(number)
            bundle: dict[str, Any] = {
                "image/png": _figure_png(figure),
                _PLAIN_TEXT: bounded_repr(figure, 1000)[0],
            }
        except Exception as error:
            bundle = {_PLAIN_TEXT: f"<figure {number} can't be drawn: {error_line(error)}>"}
        display(bundle, raw=True)
        try:
            pyplot.close(number)
        except Exception as error:
            display({_PLAIN_TEXT: f"<figure {number} can't be closed: {error_line(error)}>"}, raw=True)


def _figure_png(figure: Any) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight")
    return buffer.getvalue()
