"""Rich objects as MIME bundles, and `display()`.

The protocol is the one that IPython has made common: `_repr_html_` and similar methods. Each method is
called by itself, so that one that fails does not prevent the others; the metadata then says why it failed.
The functions here keep no state, so a cancel may raise inside them (`pyrepl3_worker.interrupts.signals`).
"""

import inspect
import sys
from binascii import b2a_base64
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Final, Protocol, cast

import msgspec

from pyrepl3_schemas.display_budget import PLAIN_TEXT
from pyrepl3_worker.rendering.reprs import bounded_repr, encodable, error_line, type_name
from pyrepl3_worker.rendering.static_lookup import UNKNOWN, class_dict, find_in_mro, instance_dict, is_class

_METHODS: Final = {
    "_repr_html_": "text/html",
    "_repr_markdown_": "text/markdown",
    "_repr_svg_": "image/svg+xml",
    "_repr_png_": "image/png",
    "_repr_webp_": "image/webp",
    "_repr_pdf_": "application/pdf",
    "_repr_jpeg_": "image/jpeg",
    "_repr_latex_": "text/latex",
    "_repr_json_": "application/json",
    "_repr_javascript_": "application/javascript",
}
_BUNDLE: Final = "_repr_mimebundle_"
_SHOWS_ITSELF: Final = "_ipython_display_"
_PRETTY: Final = "_repr_pretty_"
_ALL_METHODS: Final = (*_METHODS, _BUNDLE, _SHOWS_ITSELF, _PRETTY)
_ANSWERS_TO_ALL: Final = "_ipython_canary_method_should_not_exist_"
"""A name that an object has only if it has every name. The word is IPython's: some proxies know it."""
_PLAIN_CHARS: Final = 1024 * 1024
_MAX_JSON_CHARS: Final = 256 * 1024 * 1024
_JSON_LEAVES: Final = frozenset({int, float, bool, type(None)})

type Bundle = dict[str, str]
"""MIME type to text: binary data in base64, JSON types as JSON."""
type Reading = tuple[str | None, Callable[[], Any]]
"""A MIME type and what to call for it; None stands for several types at once."""


class Publisher(Protocol):
    """Sends what is displayed."""

    def show(
        self, data: Bundle, metadata: Bundle, display_id: str | None = None, *, update: bool = False
    ) -> None:
        """Send a MIME bundle as a display of the execution that the caller belongs to."""

    def clear(self, *, wait: bool) -> None:
        """Take away what the execution has shown, now or when the next display comes."""

    def new_id(self) -> str:
        """Return a new display id: the same one when the same code runs again."""
        ...


def has_rich_form(value: object) -> bool:
    """Return whether a value's type, or the value itself, has a method for showing it; calls none of them.

    One that answers to every name by a `__getattr__` of its own has none, unless it is a stand-in for
    an object that has: then `mime_bundle` finds that out.
    """
    kind = type(value)
    return not is_class(value) and (
        any(_has_method(class_dict(cls)) for cls in _mro_of(kind))
        or _has_method(instance_dict(value))
        or find_in_mro(kind, "__getattr__") is not UNKNOWN
    )


def _has_method(table: Mapping[str, object]) -> bool:
    return any(name in table for name in _ALL_METHODS)


_mro_of: Final[Callable[[type], tuple[type, ...]]] = type.__dict__["__mro__"].__get__


def mime_bundle(
    obj: object, include: Collection[str] | None = None, exclude: Collection[str] | None = None
) -> tuple[Bundle, Bundle]:
    """Return the representations that an object offers.

    Args:
        obj: what to show.
        include: MIME types; no others are asked for. None means all.
        exclude: MIME types that are not asked for.

    Returns:
        The representations, with `text/plain` unless that is not asked for, and their metadata as JSON; both
        by MIME type. A representation that raises is left out, and its metadata is `{"error": …}`. Both are
        empty if the object has shown itself (`_ipython_display_`).

    Raises:
        TimeoutError: raised inside the object's own code, as is any exception that is not an `Exception`.
    """
    data: Bundle = {}
    metadata: Bundle = {}
    shell = ipython_shell()
    if shell is not None:
        # It knows what the code has registered for types, too.
        _add_several(data, metadata, lambda: shell.display_formatter.format(obj, include, exclude))
        return data, metadata
    method = _method(obj, _SHOWS_ITSELF)
    if method is not None and _shows_itself(method, metadata):
        return {}, {}
    for mime, ask in _representations(obj, include, exclude):
        if mime is None:
            _add_several(data, metadata, ask)
        elif mime not in data and _is_wanted(mime, include, exclude):
            _add_one(data, metadata, mime, ask)
    if PLAIN_TEXT not in data and _is_wanted(PLAIN_TEXT, include, exclude):
        data[PLAIN_TEXT] = _plain_text(obj)
    wanted = {mime: text for mime, text in data.items() if _is_wanted(mime, include, exclude)}
    return wanted, metadata


def ipython_shell() -> Any:
    """Return the IPython shell that there is; None if there is none, or it is a terminal's, for text."""
    module: Any = sys.modules.get("IPython.core.interactiveshell")
    if module is None or not module.InteractiveShell.initialized():
        return None
    shell = module.InteractiveShell.instance()
    return None if shell.display_formatter.active_types == [PLAIN_TEXT] else shell


def _is_wanted(mime: str, include: Collection[str] | None, exclude: Collection[str] | None) -> bool:
    return (not include or mime in include) and (not exclude or mime not in exclude)


def _shows_itself(method: Callable[[], Any], metadata: Bundle) -> bool:
    try:
        method()
    except TimeoutError:
        raise  # what a timeout raises
    except NotImplementedError:
        return False
    except Exception as error:
        metadata[_SHOWS_ITSELF] = _error_as_json(error)
        return False
    return True


def _add_several(data: Bundle, metadata: Bundle, ask: Callable[[], Any]) -> None:
    """Add what a method gives that returns a whole bundle."""
    try:
        given, about = _with_metadata(ask())
        for key, value in _as_mapping(given).items():
            if value is not None:
                add_representation(data, key, value)
        for key, value in _as_mapping(about).items():
            metadata[encodable(str(key))] = to_json(value)
    except (TimeoutError, NotImplementedError) as error:
        if isinstance(error, TimeoutError):
            raise
    except Exception as error:
        metadata[_BUNDLE] = _error_as_json(error)


def _add_one(data: Bundle, metadata: Bundle, mime: str, ask: Callable[[], Any]) -> None:
    try:
        given, about = _with_metadata(ask())
        if given is None:
            return
        add_representation(data, mime, given)
        if about is not None:
            metadata[mime] = to_json(about)
    except (TimeoutError, NotImplementedError) as error:
        if isinstance(error, TimeoutError):
            raise
    except Exception as error:
        metadata[mime] = _error_as_json(error)


def _with_metadata(found: Any) -> tuple[Any, Any]:
    given: Any = found
    pair = cast(tuple[Any, ...], found) if type(found) is tuple else ()
    return (pair[0], pair[1]) if len(pair) == 2 else (given, None)


def _error_as_json(error: Exception) -> str:
    return to_json({"error": error_line(error)})


def _representations(
    obj: object, include: Collection[str] | None, exclude: Collection[str] | None
) -> Iterator[Reading]:
    bundle = _method(obj, _BUNDLE)
    if bundle is not None:
        yield None, lambda: _call_bundle_method(bundle, include, exclude)
    for name, mime in _METHODS.items():
        method = _method(obj, name)
        if method is not None:
            yield mime, method
    figures = sys.modules.get("matplotlib.figure")
    kind: Any = None if figures is None else instance_dict(figures).get("Figure")
    if is_class(kind) and issubclass(type(obj), kind):
        from pyrepl3_worker.rendering.figures import figure_png

        yield "image/png", lambda: figure_png(obj)


def _call_bundle_method(
    method: Callable[..., Any], include: Collection[str] | None, exclude: Collection[str] | None
) -> Any:
    try:
        inspect.signature(method).bind(include=include, exclude=exclude)
    except (TypeError, ValueError):
        return method()
    return method(include=include, exclude=exclude)


def _method(obj: object, name: str) -> Callable[..., Any] | None:
    """Return an object's method for showing it, None if it has none.

    It is looked for where no code runs. An object that finds its attributes by code of its own, such as a
    stand-in for another one, is asked, unless it answers to every name.
    """
    if is_class(obj):
        return None
    kind = type(obj)
    found = find_in_mro(kind, name)
    if found is None:
        return None  # a subclass takes it back
    is_there = found is not UNKNOWN or name in instance_dict(obj)
    if not is_there and (
        find_in_mro(kind, "__getattr__") is UNKNOWN or _read(obj, _ANSWERS_TO_ALL) is not UNKNOWN
    ):
        return None
    method = _read(obj, name)
    return cast(Callable[..., Any], method) if callable(method) else None


def _read(obj: object, name: str) -> object:
    try:
        return getattr(obj, name)
    except TimeoutError:
        raise
    except Exception:
        return UNKNOWN


def _plain_text(obj: object) -> str:
    """Return an object's repr; by IPython's rules, if it has a method for these and the code IPython."""
    pretty = sys.modules.get("IPython.lib.pretty")
    if pretty is not None and _method(obj, _PRETTY) is not None:
        data: Bundle = {}
        _add_one(data, {}, PLAIN_TEXT, lambda: pretty.pretty(obj))
        if PLAIN_TEXT in data:
            return data[PLAIN_TEXT][:_PLAIN_CHARS]
    return bounded_repr(obj, _PLAIN_CHARS)[0]


def _as_mapping(value: object) -> Mapping[Any, Any]:
    return {} if value is None else cast(Mapping[Any, Any], value)


def add_representation(data: Bundle, mime: object, value: object) -> None:
    """Add one representation to a bundle.

    Raises:
        TypeError: it is neither text nor bytes, and its type is not JSON.
    """
    key = encodable(str(mime))
    if isinstance(value, bytes | bytearray | memoryview):
        data[key] = b2a_base64(cast(bytes, value), newline=False).decode()
    elif isinstance(value, str):
        data[key] = encodable(str.__str__(value))
    elif key == "application/json" or key.endswith("+json"):
        data[key] = to_json(value)
    else:
        raise TypeError(f"{key}: text or bytes are wanted, not a {type_name(value)}")


def to_json(value: object) -> str:
    """Return a value as JSON.

    Raises:
        ValueError: that would be longer than 256 MiB, as it is of a list that holds another one twice, often.
        TypeError: it has no form as JSON.
        RecursionError: it holds itself.
    """
    if _least_json_chars(value, {}) > _MAX_JSON_CHARS:
        raise ValueError(f"its JSON would be longer than {_MAX_JSON_CHARS:,} characters")
    return msgspec.json.encode(value).decode()


def _least_json_chars(value: Any, met: dict[int, int]) -> int:
    """Return how long a value's JSON is at least. What is met again, by its id, is looked into once.

    The encoder could not be cancelled.
    """
    kind = cast("type[Any]", type(value))
    if issubclass(kind, str):
        return str.__len__(value)
    known = met.get(id(value))
    if known is not None:
        return known
    met[id(value)] = 0  # one that holds itself is refused by the encoder
    size = 1
    if issubclass(kind, dict):
        members = dict[Any, Any].values(value)
        size += 3 * len(members)
    elif issubclass(kind, list | tuple):
        members = cast("tuple[Any, ...]", tuple(value) if kind in (list, tuple) else ())
        size += 2 * len(members)
    else:
        names = getattr(kind, "__dataclass_fields__", None) or getattr(kind, "__struct_fields__", ())
        members = [getattr(value, name, None) for name in names]
    if not set(map(type, members)) <= _JSON_LEAVES:
        for member in members:
            size += _least_json_chars(member, met)
    met[id(value)] = size
    return size


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

    def __reduce__(self) -> tuple[Any, ...]:
        """Save what it refers to: in another worker it is a handle of that one's `display`."""
        return make_handle, (self.display_id, self._display)


def make_handle(display_id: str, display: Callable[..., Any]) -> DisplayHandle:
    """Return a handle. A function, so that handles can be saved: a checkpoint finds it by its name."""
    return DisplayHandle(display_id, display)


def display_objects(
    publisher: Publisher,
    objs: tuple[object, ...],
    *,
    include: Collection[str] | None = None,
    exclude: Collection[str] | None = None,
    metadata: Mapping[str, object] | None = None,
    display_id: str | bool | None = None,
    update: bool = False,
    raw: bool = False,
    clear: bool = False,
) -> str | None:
    """Show objects; return the display id, None without one. See the session's `display` for the arguments.

    Raises:
        TypeError: `update` without a `display_id`, or a raw object that is not a MIME bundle.
    """
    if update and not display_id:
        raise TypeError("update=True needs the display_id of what is to be changed")
    name = publisher.new_id() if display_id is True else encodable(str(display_id)) if display_id else None
    if clear:
        publisher.clear(wait=True)
    if not objs and name is not None:
        publisher.show({}, {}, name, update=update)  # its place; something will be shown there later
    for obj in objs:
        data, about = (raw_bundle(obj), {}) if raw else mime_bundle(obj, include, exclude)
        if not (data or raw):
            continue  # it has shown itself
        for key, value in (metadata or {}).items():
            about[encodable(key)] = to_json(value)
        publisher.show(data, about, name, update=update)
    return name


def raw_bundle(obj: object) -> Bundle:
    """Return a mapping of MIME types to text, bytes or JSON data as a bundle.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(obj, Mapping):
        raise TypeError(f"raw=True wants a dict of MIME types, not a {type_name(obj)}")
    data: Bundle = {}
    for mime, value in cast(Mapping[object, object], obj).items():
        if value is not None:
            add_representation(data, mime, value)
    return data
