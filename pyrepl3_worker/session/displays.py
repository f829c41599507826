"""What a session has for showing objects: `display`, `clear_output`, figures, and the rich forms of values.

All of it is imported when it is needed for the first time.
"""

import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Final

from pyrepl3_worker.execution.execution import WorkerExecution
from pyrepl3_worker.interrupts.signals import runs_user_code
from pyrepl3_worker.isolation.after_import import after_import
from pyrepl3_worker.isolation.builtins_guard import provide
from pyrepl3_worker.output.displays import DisplaySender

_PYPLOT: Final = "matplotlib.pyplot"
LIBRARY_MODULES: Final = (
    "IPython.core.display_functions",
    "IPython.core.displaypub",
    "matplotlib",
    "matplotlib.figure",
    "matplotlib.backend_bases",
    "plotly.io._renderers",
    "tqdm.notebook",
)
"""The modules in which something has to be done (`rendering.libraries`)."""
type Bundle = dict[str, str]


class SessionDisplays:
    """Shows the session's objects through a sender."""

    def __init__(self, sender: DisplaySender) -> None:
        """Show by `sender`."""
        self._sender = sender
        self.display = _make_display(sender)

    def install(self) -> None:
        """Give the code its functions, and have libraries display through the session."""
        # Not in the namespace, which is the code's: a name of its own hides ours, and `del` shows ours again.
        provide("display", self.display)
        provide("clear_output", _make_clear_output(self._sender))
        for name in LIBRARY_MODULES:
            after_import(name, self._connect)

    def _connect(self, module: Any) -> None:
        """Do what is to be done in a library. What fails must not fail the import."""
        from pyrepl3_worker.rendering.libraries import connect

        try:
            connect(self._sender, module)
        except Exception as error:
            warnings.warn(
                f"what {module.__name__} displays may not be seen: {type(error).__name__}: {error}",
                RuntimeWarning,
                stacklevel=2,
            )

    @runs_user_code
    def flush_figures(self) -> None:
        """Show the figures that a cell has left open."""
        if _PYPLOT in sys.modules:
            from pyrepl3_worker.rendering.figures import flush_figures

            flush_figures(self._sender)

    def flush_after_failure(self) -> None:
        """Do the same for a cell that has its error already: a cancel ends the drawing alone."""
        try:
            self.flush_figures()
        except BaseException as error:
            text = f"<the open figures are not drawn: {type(error).__name__}>"
            self._sender.show({"text/plain": text}, {})

    @runs_user_code
    def bundle_of(
        self, execution: WorkerExecution, value: object, text: str, room: int
    ) -> tuple[Bundle, Bundle]:
        """Return the rich forms of an execution's value, and their metadata; both are empty if it has none.

        Args:
            execution: the execution.
            value: its value.
            text: the repr of that: not repeated as `text/plain`.
            room: bytes that are left in the frame of its result.
        """
        from pyrepl3_worker.rendering.display import has_rich_form, ipython_shell, mime_bundle

        if not has_rich_form(value) and ipython_shell() is None:
            return {}, {}
        data, metadata = mime_bundle(value)
        if data.keys() <= {"text/plain"} and data.get("text/plain", text) == text:
            return {}, metadata
        data, metadata = self._sender.fit_value(execution, data, metadata, room)
        if data.get("text/plain") == text:
            del data["text/plain"]
        return data, metadata


def _make_display(sender: DisplaySender) -> Callable[..., Any]:
    @runs_user_code
    def display(
        *objs: object,
        include: Any = None,
        exclude: Any = None,
        metadata: Mapping[str, object] | None = None,
        display_id: str | bool | None = None,
        update: bool = False,
        raw: bool = False,
        clear: bool = False,
    ) -> Any:
        """Show objects with the representations that they offer, such as HTML or an image.

        Args:
            objs: what to show, one display each.
            include: MIME types; no others are shown.
            exclude: MIME types that are not shown.
            metadata: more data about the objects, by MIME type.
            display_id: an id under which it can be replaced later; True makes a new one.
            update: replace what is shown under `display_id`.
            raw: the objects are MIME bundles already: MIME types to text, bytes, or JSON data.
            clear: take away what this cell has shown, when the first of these is shown.

        Returns:
            A handle with `update(obj)` when there is a `display_id`, else None.

        Raises:
            TypeError: `update` without a `display_id`, or a raw object that is not a MIME bundle.
        """
        from pyrepl3_worker.rendering.display import DisplayHandle, display_objects

        name = display_objects(
            sender, objs, include=include, exclude=exclude, metadata=metadata, display_id=display_id,
            update=update, raw=raw, clear=clear,
        )  # fmt: skip
        return None if name is None else DisplayHandle(name, display)

    # Where it stands, so that it pickles by name.
    display.__module__, display.__qualname__ = "builtins", "display"
    return display


def _make_clear_output(sender: DisplaySender) -> Callable[..., None]:
    def clear_output(wait: bool = False) -> None:  # noqa: FBT001, FBT002 - as IPython's
        """Take away what this cell has shown and written: now, or with `wait` when something else comes."""
        sender.clear(wait=bool(wait))

    clear_output.__module__, clear_output.__qualname__ = "builtins", "clear_output"
    return clear_output
