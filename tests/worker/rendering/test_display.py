"""What objects show of themselves, beyond their repr."""

import sys
from base64 import b64decode
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from pyrepl3_schemas.codec import encode
from pyrepl3_schemas.messages import Display
from pyrepl3_worker.rendering.display import (
    DisplayHandle,
    display_objects,
    has_rich_form,
    mime_bundle,
)
from pyrepl3_worker.rendering.figures import flush_figures
from pyrepl3_worker.rendering.libraries import actions
from pyrepl3_worker.session.displays import LIBRARY_MODULES


class Rich:
    """Offers everything."""

    def _repr_html_(self) -> str:
        return "<b>bold</b>"

    def _repr_markdown_(self) -> str:
        return "**bold**"

    def _repr_svg_(self) -> str:
        return "<svg/>"

    def _repr_png_(self) -> bytes:
        return b"\x89PNG"

    def _repr_jpeg_(self) -> tuple[bytes, dict[str, int]]:
        return b"\xff\xd8", {"width": 3}

    def _repr_latex_(self) -> str:
        return "$x$"

    def _repr_json_(self) -> dict[str, list[int]]:
        return {"a": [1, 2]}

    def _repr_webp_(self) -> bytes:
        return b"RIFF"

    def _repr_pdf_(self) -> bytes:
        return b"%PDF"

    def _repr_javascript_(self) -> str:
        return "alert()"

    def __repr__(self) -> str:
        return "Rich()"


class Screen:
    """Collects what is displayed."""

    def __init__(self) -> None:
        self.shown: list[Display] = []
        self._ids = iter(["id-1", "id-2"])

    def show(
        self,
        data: dict[str, str],
        metadata: dict[str, str],
        display_id: str | None = None,
        *,
        update: bool = False,
    ) -> None:
        self.shown.append(Display(data, "e1", metadata, display_id, update))

    def clear(self, *, wait: bool) -> None:
        self.shown.append(Display({}, "e1", clear="wait" if wait else "now"))

    def new_id(self) -> str:
        return next(self._ids)

    def display(self, *objs: object, **options: Any) -> DisplayHandle | None:
        name = display_objects(self, objs, **options)
        return None if name is None else DisplayHandle(name, self.display)

    @property
    def last(self) -> Display:
        return self.shown[-1]


def test_all_representations_are_there() -> None:
    data, metadata = mime_bundle(Rich())
    assert data == {
        "text/html": "<b>bold</b>",
        "text/markdown": "**bold**",
        "image/svg+xml": "<svg/>",
        "image/png": "iVBORw==",
        "image/jpeg": "/9g=",
        "text/latex": "$x$",
        "application/json": '{"a":[1,2]}',
        "image/webp": "UklGRg==",
        "application/pdf": "JVBERg==",
        "application/javascript": "alert()",
        "text/plain": "Rich()",
    }
    assert metadata == {"image/jpeg": '{"width":3}'}
    assert b64decode(data["image/png"]) == b"\x89PNG"


@pytest.mark.parametrize("value", [1, "text", [1, 2], None, {"a": 1}])
def test_a_plain_value_shows_its_repr(value: object) -> None:
    assert mime_bundle(value) == ({"text/plain": repr(value)}, {})


def test_a_representation_that_fails_does_not_take_the_others_with_it() -> None:
    class Half(Rich):
        def _repr_html_(self) -> str:
            raise ValueError("no html")

        def _repr_png_(self) -> Any:
            return 17

    data, metadata = mime_bundle(Half())
    assert "text/html" not in data
    assert "image/png" not in data
    assert data["text/markdown"] == "**bold**"
    assert metadata["text/html"] == '{"error":"ValueError: no html"}'
    assert metadata["image/png"] == '{"error":"TypeError: image/png: text or bytes are wanted, not a int"}'


def test_a_broken_repr_is_told_of() -> None:
    class Broken:
        def _repr_html_(self) -> str:
            return "<i>html</i>"

        def __repr__(self) -> str:
            raise ValueError("no")

    data, _ = mime_bundle(Broken())
    assert data == {
        "text/html": "<i>html</i>",
        "text/plain": "<Broken object; repr failed: ValueError: no>",
    }


def test_none_means_that_there_is_no_such_representation() -> None:
    class Shy:
        def _repr_html_(self) -> None:
            return None

    assert set(mime_bundle(Shy())[0]) == {"text/plain"}


def test_a_mime_bundle_gives_several_at_once() -> None:
    class Many:
        def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> Any:
            bundle = {
                "text/plain": "mine",
                "image/png": b"\0",
                "application/vnd.chart+json": {"mark": "bar"},
            }
            return bundle, {"image/png": {"width": 1}}

    data, metadata = mime_bundle(Many())
    assert data == {
        "text/plain": "mine",
        "image/png": "AA==",
        "application/vnd.chart+json": '{"mark":"bar"}',
    }
    assert metadata == {"image/png": '{"width":1}'}


def test_a_mime_bundle_that_is_none_is_told_of() -> None:
    class Wrong:
        def _repr_mimebundle_(self) -> str:
            return "what?"

    data, metadata = mime_bundle(Wrong())
    assert set(data) == {"text/plain"}
    assert metadata["_repr_mimebundle_"].startswith('{"error":"AttributeError')


def test_an_object_that_answers_to_every_name_offers_nothing() -> None:
    class Yes:
        def __getattr__(self, name: str) -> Any:
            return lambda: "yes"

    assert set(mime_bundle(Yes())[0]) == {"text/plain"}


def test_a_class_is_not_asked_what_its_instances_offer() -> None:
    assert mime_bundle(Rich) == ({"text/plain": repr(Rich)}, {})


def test_an_instance_may_have_a_method_of_its_own() -> None:
    assert mime_bundle(SimpleNamespace(_repr_html_=lambda: "<p>"))[0]["text/html"] == "<p>"


@pytest.mark.parametrize("error", [KeyboardInterrupt, TimeoutError, SystemExit])
def test_what_a_cancel_raises_goes_through(error: type[BaseException]) -> None:
    class Slow:
        def _repr_html_(self) -> str:
            raise error

    with pytest.raises(error):
        mime_bundle(Slow())


def test_what_is_shown_always_encodes() -> None:
    class Odd:
        def _repr_html_(self) -> str:
            return "<\ud800>"

        def _repr_mimebundle_(self) -> dict[str, str]:
            return {"text/\udfff": "x"}

    screen = Screen()
    screen.display(Odd(), display_id="\ud800")
    encode(screen.last)
    assert screen.last.data["text/html"] == "<\\ud800>"


def test_a_representation_is_not_made_when_the_bundle_has_it_or_nobody_wants_it() -> None:
    class Asked(Rich):
        def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
            return {"text/html": f"include {include}, exclude {exclude}"}

        def _repr_html_(self) -> str:
            raise AssertionError

    data, metadata = mime_bundle(Asked(), exclude=["image/png"])
    assert data["text/html"] == "include None, exclude ['image/png']"
    assert "image/png" not in data
    assert "text/html" not in metadata
    assert mime_bundle(Rich(), include=["text/latex"]) == ({"text/latex": "$x$"}, {})


def test_what_shows_itself_has_no_bundle_and_a_failure_to_is_told_of() -> None:
    class Itself(Rich):
        error: Exception | None = None

        def _ipython_display_(self) -> None:
            if self.error is not None:
                raise self.error

    shown = Itself()
    assert mime_bundle(shown) == ({}, {})
    shown.error = ValueError("no screen")
    data, metadata = mime_bundle(shown)
    assert data["text/html"] == "<b>bold</b>"
    assert metadata["_ipython_display_"] == '{"error":"ValueError: no screen"}'
    shown.error = NotImplementedError()
    assert "_ipython_display_" not in mime_bundle(shown)[1]


def test_a_stand_in_shows_what_it_stands_for() -> None:
    class StandIn:
        def __init__(self, of: object) -> None:
            self._of = of

        def __getattr__(self, name: str) -> Any:
            return getattr(self._of, name)

    assert mime_bundle(StandIn(Rich()))[0]["text/html"] == "<b>bold</b>"
    assert set(mime_bundle(StandIn(3))[0]) == {"text/plain"}


def test_a_subclass_may_take_a_form_back_and_a_property_may_refuse_it() -> None:
    class Back(Rich):
        _repr_html_ = None  # pyright: ignore[reportAssignmentType]

        @property
        def _repr_latex_(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
            raise AttributeError("not today")

    data, metadata = mime_bundle(Back())
    assert not {"text/html", "text/latex"} & data.keys()
    assert not {"text/html", "text/latex"} & metadata.keys()


@pytest.mark.parametrize("value", [object(), ValueError(), Rich, len, sys, iter([])])
def test_what_has_no_rich_form_is_known_by_its_type(value: object) -> None:
    assert not has_rich_form(value)


def test_the_session_watches_the_modules_in_which_something_is_to_be_done() -> None:
    assert set(LIBRARY_MODULES) == actions(Screen()).keys()


# --- display() ------------------------------------------------------------------------------------------


def test_each_object_is_a_display_of_its_own_and_belongs_to_the_execution() -> None:
    screen = Screen()
    assert screen.display(1, Rich()) is None
    first, second = screen.shown
    assert first == Display(data={"text/plain": "1"}, execution_id="e1")
    assert second.data["text/html"] == "<b>bold</b>"


def test_a_display_can_be_updated_through_its_handle() -> None:
    screen = Screen()
    handle = screen.display("one", display_id=True)
    assert isinstance(handle, DisplayHandle)
    assert (screen.last.display_id, screen.last.update) == ("id-1", False)
    handle.update("two")
    assert (screen.last.display_id, screen.last.update) == ("id-1", True)
    assert screen.last.data == {"text/plain": "'two'"}
    handle.display("three", metadata={"a": 1})
    assert (screen.last.display_id, screen.last.update) == ("id-1", False)
    assert screen.last.metadata == {"a": "1"}


def test_a_display_can_be_updated_by_its_name() -> None:
    screen = Screen()
    screen.display(1, display_id="progress")
    screen.display(2, display_id="progress", update=True)
    assert [(shown.display_id, shown.update) for shown in screen.shown] == [
        ("progress", False),
        ("progress", True),
    ]


def test_an_update_without_a_name_is_refused() -> None:
    screen = Screen()
    with pytest.raises(TypeError, match="display_id"):
        screen.display(1, update=True)
    assert not screen.shown


def test_raw_bundles_are_sent_as_they_are() -> None:
    screen = Screen()
    screen.display({"text/html": "<p>", "image/png": b"\0", "application/json": [1]}, raw=True)
    assert screen.last.data == {"text/html": "<p>", "image/png": "AA==", "application/json": "[1]"}
    with pytest.raises(TypeError, match="not a list"):
        screen.display([1], raw=True)


def test_metadata_is_json() -> None:
    screen = Screen()
    screen.display(Rich(), metadata={"text/html": {"isolated": True}})
    assert screen.last.metadata == {"image/jpeg": '{"width":3}', "text/html": '{"isolated":true}'}


# --- figures --------------------------------------------------------------------------------------------


class Pyplot(ModuleType):
    """What `flush_figures` uses of matplotlib.pyplot."""

    def __init__(self, *figures: Any) -> None:
        super().__init__("matplotlib.pyplot")
        self.figures: dict[int, Any] = dict(enumerate(figures, 1))

    def get_fignums(self) -> list[int]:
        return list(self.figures)

    def figure(self, number: int) -> Any:
        return self.figures[number]

    def close(self, number: int) -> None:
        del self.figures[number]


class Figure:
    def __init__(self, picture: bytes) -> None:
        self.picture = picture

    def get_children(self) -> list[str]:
        return ["background", "axes"]

    def savefig(self, file: Any, **options: object) -> None:
        assert options["format"] == "png"
        if not self.picture:
            raise ValueError("nothing to draw")
        file.write(self.picture)

    def __repr__(self) -> str:
        return "<Figure size 640x480>"


def test_open_figures_are_shown_and_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    pyplot = Pyplot(Figure(b"\0"), Figure(b"\1"))
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", pyplot)
    screen = Screen()
    flush_figures(screen)
    assert [shown.data for shown in screen.shown] == [
        {"image/png": "AA==", "text/plain": "<Figure size 640x480>"},
        {"image/png": "AQ==", "text/plain": "<Figure size 640x480>"},
    ]
    assert not pyplot.figures


def test_a_figure_that_cannot_be_drawn_is_told_of_and_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    pyplot = Pyplot(Figure(b""), Figure(b"\1"))
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", pyplot)
    screen = Screen()
    flush_figures(screen)
    assert screen.shown[0].data == {"text/plain": "<figure 1 can't be drawn: ValueError: nothing to draw>"}
    assert screen.shown[1].data["image/png"] == "AQ=="
    assert not pyplot.figures


def test_something_else_under_that_name_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", ModuleType("fake"))
    screen = Screen()
    flush_figures(screen)
    assert screen.last.data["text/plain"].startswith("<the open figures are not known: AttributeError")


def test_matplotlib_is_never_imported_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
    screen = Screen()
    flush_figures(screen)
    assert not screen.shown
    assert "matplotlib.pyplot" not in sys.modules


def test_a_figure_that_is_displayed_is_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("matplotlib.figure")
    monkeypatch.setattr(module, "Figure", Figure, raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", module)
    assert mime_bundle(Figure(b"\0"))[0] == {"image/png": "AA==", "text/plain": "<Figure size 640x480>"}
