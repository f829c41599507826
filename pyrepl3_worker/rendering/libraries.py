"""What has to be done in libraries that display by ways of their own, for the session to get it.

Each function takes a module that the code has just imported. None of them imports anything. Like
`rendering.display`, this keeps no state, and a cancel may raise inside it.
"""

import os
import sys
from collections.abc import Callable, Mapping
from functools import partial, wraps
from typing import Any, Final, cast

from pyrepl3_worker.rendering.display import (
    Publisher,
    display_objects,
    ipython_shell,
    raw_bundle,
    to_json,
)
from pyrepl3_worker.rendering.figures import figure_png, show_figure

_SHELL: Final = "IPython.core.interactiveshell"
_PLOTLY_NAME: Final = "pyrepl3"


def connect(publisher: Publisher, module: Any) -> None:
    """Do in a module what is to be done there.

    Args:
        publisher: sends what is displayed.
        module: one of those that `actions` names.
    """
    actions(publisher)[module.__name__](module)


def actions(publisher: Publisher) -> dict[str, Callable[[Any], None]]:
    """Return what to do, by the name of the module that it is done in."""
    return {
        "IPython.core.display_functions": partial(connect_display_functions, publisher),
        "IPython.core.displaypub": partial(connect_display_publisher, publisher),
        "matplotlib": choose_backend,
        "matplotlib.figure": register_figures,
        "matplotlib.backend_bases": partial(connect_figure_managers, publisher),
        "plotly.io._renderers": partial(add_plotly_renderer, publisher),
        "tqdm.notebook": use_text_bar,
    }


# --- IPython ------------------------------------------------------------------------------------------------


def connect_display_functions(publisher: Publisher, module: Any) -> None:
    """Have IPython's `display` and its siblings display, which print where there is no IPython shell.

    With a shell they do what they did: ask it for its formatters and its publisher.
    """
    plain_display, plain_publish, plain_clear = (
        module.display,
        module.publish_display_data,
        module.clear_output,
    )

    @wraps(plain_display)
    def display(
        *objs: object,
        include: Any = None,
        exclude: Any = None,
        metadata: Any = None,
        transient: Any = None,
        display_id: Any = None,
        raw: bool = False,
        clear: bool = False,
        update: bool = False,
        **options: Any,
    ) -> Any:
        if _has_shell():
            if update:
                options["update"] = True
            return plain_display(
                *objs, include=include, exclude=exclude, metadata=metadata, transient=transient,
                display_id=display_id, raw=raw, clear=clear, **options,
            )  # fmt: skip
        name = display_objects(
            publisher, objs, include=include, exclude=exclude, metadata=metadata, raw=raw, clear=clear,
            display_id=display_id or _display_id(transient), update=update,
        )  # fmt: skip
        return module.DisplayHandle(name) if display_id else None

    @wraps(plain_publish)
    def publish_display_data(data: Any, metadata: Any = None, *sources: Any, **options: Any) -> None:
        if _has_shell():
            plain_publish(data, metadata, *sources, **options)
        else:
            publish(publisher, data, metadata, **options)

    @wraps(plain_clear)
    def clear_output(wait: bool = False) -> None:  # noqa: FBT001, FBT002 - its signature
        if _has_shell():
            plain_clear(wait)
        else:
            publisher.clear(wait=bool(wait))

    module.display = display
    module.publish_display_data = publish_display_data
    module.clear_output = clear_output


def connect_display_publisher(publisher: Publisher, module: Any) -> None:
    """Have a shell's publisher display, which prints the text of what it is given.

    Publishers of another class (a kernel's, or the one that captures output) are as they were.
    """

    def publish_for_shell(
        self: object, data: Any, metadata: Any = None, *sources: Any, **options: Any
    ) -> None:
        del self, sources
        publish(publisher, data, metadata, **options)

    def clear_output(self: object, wait: bool = False) -> None:  # noqa: FBT001, FBT002 - its signature
        del self
        publisher.clear(wait=bool(wait))

    module.DisplayPublisher.publish = wraps(module.DisplayPublisher.publish)(publish_for_shell)
    module.DisplayPublisher.clear_output = wraps(module.DisplayPublisher.clear_output)(clear_output)


def _display_id(transient: Mapping[str, object] | None) -> str | None:
    name = (transient or {}).get("display_id")
    return None if name is None else str(name)


def publish(
    publisher: Publisher,
    data: Mapping[str, object],
    metadata: Mapping[str, object] | None = None,
    *,
    transient: Mapping[str, object] | None = None,
    update: bool = False,
    **_: object,
) -> None:
    """Show a MIME bundle, as `IPython.display.publish_display_data` does.

    Args:
        publisher: sends it.
        data: MIME types to text, bytes or JSON data.
        metadata: data about those.
        transient: may hold a `display_id`.
        update: whether to replace what is shown under that.

    Raises:
        TypeError: `data` is no MIME bundle.
    """
    about = {str(mime): to_json(value) for mime, value in (metadata or {}).items()}
    publisher.show(raw_bundle(data), about, _display_id(transient), update=update)


def _has_shell() -> bool:
    module = sys.modules.get(_SHELL)
    return module is not None and bool(module.InteractiveShell.initialized())


# --- matplotlib ---------------------------------------------------------------------------------------------


def choose_backend(module: Any) -> None:
    """Let matplotlib draw into memory where no backend is chosen; it would look for windows."""
    settings = cast(dict[str, object], module.rcParams)
    if dict[str, object].__getitem__(settings, "backend") is module.rcsetup._auto_backend_sentinel:
        settings["backend"] = "agg"


def register_figures(module: Any) -> None:
    """Have an IPython shell show figures as pictures, as the session does by itself."""
    shell = ipython_shell()
    if shell is not None:
        shell.display_formatter.formatters["image/png"].for_type(module.Figure, figure_png)


def connect_figure_managers(publisher: Publisher, module: Any) -> None:
    """Have `plt.show()` and `Figure.show` show, and close, figures that are in no window."""

    def show(self: Any) -> None:
        """Show the figure in the session, and close it: what is drawn next is another one."""
        show_figure(publisher, self.canvas.figure, self.num)
        module.Gcf.destroy(self)

    module.FigureManagerBase.show = show


# --- others -------------------------------------------------------------------------------------------------


def add_plotly_renderer(publisher: Publisher, module: Any) -> None:
    """Give plotly a renderer for sessions; it is the default unless the environment names another one.

    Plotly's own want IPython and nbformat, or a browser on this machine.
    """

    class SessionRenderer(module.ExternalRenderer):
        """Shows a figure in the session."""

        def render(self, fig_dict: Any) -> None:
            bundle = dict(module.plotly_renderer.to_mimebundle(fig_dict))
            to_html = sys.modules["plotly.io"].to_html
            bundle["text/html"] = to_html(fig_dict, full_html=False, include_plotlyjs="cdn", validate=False)
            publisher.show(raw_bundle(bundle), {})

    module.renderers[_PLOTLY_NAME] = SessionRenderer()
    if not os.environ.get("PLOTLY_RENDERER"):
        module.renderers.default = _PLOTLY_NAME


def use_text_bar(module: Any) -> None:
    """Have `tqdm.notebook` write its bars as text where its widgets are not installed: it would raise."""
    if module.IProgress is None:
        module.tqdm = module.tqdm_notebook = module.std_tqdm
