"""How the settings and global generators of libraries are saved, where those are imported."""

from importlib import import_module
from typing import Any, Final

from pyrepl3_worker.checkpoint.initial_state import InitialState
from pyrepl3_worker.checkpoint.process_state import Report, Saver

# --- NumPy --------------------------------------------------------------------------------------------------

_PRINT_DEFAULTS: Final[dict[str, Any]] = {
    "edgeitems": 3, "threshold": 1000, "floatmode": "maxprec", "precision": 8, "suppress": False,
    "linewidth": 75, "nanstr": "nan", "infstr": "inf", "sign": "-", "formatter": None, "legacy": False,
    "override_repr": None,
}  # fmt: skip
_ERROR_DEFAULTS: Final = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}


_dict: Final[Any] = dict


def _module(name: str) -> Any:
    return import_module(name)


def _save_print_options(_: InitialState, report: Report) -> dict[str, Any] | None:
    changed: dict[str, Any] = {}
    for name, value in _module("numpy").get_printoptions().items():
        if value == _PRINT_DEFAULTS.get(name):
            continue
        if name in ("formatter", "override_repr"):
            report("numpy.get_printoptions()", f"{name} holds functions, which are not kept")
            continue
        changed[name] = value
    return changed or None


def _restore_print_options(changed: dict[str, Any] | None, _: InitialState) -> None:
    numpy = _module("numpy")
    known = numpy.get_printoptions()
    wanted = {name: value for name, value in _PRINT_DEFAULTS.items() if name in known} | (changed or {})
    if known != wanted:
        numpy.set_printoptions(**wanted)


def _save_numpy_errors(_: InitialState, __: Report) -> dict[str, str] | None:
    now = _module("numpy").geterr()
    return None if now == _ERROR_DEFAULTS else now


def _restore_numpy_errors(saved: dict[str, str] | None, _: InitialState) -> None:
    _module("numpy").seterr(**(_ERROR_DEFAULTS if saved is None else saved))


def _save_numpy_random(_: InitialState, __: Report) -> Any:
    return _module("numpy.random").get_state(legacy=False)


def _restore_numpy_random(state: Any, _: InitialState) -> None:
    if state is not None:
        _module("numpy.random").set_state(state)


# --- torch --------------------------------------------------------------------------------------------------


def _save_torch_random(_: InitialState, __: Report) -> bytes:
    return _module("torch").get_rng_state().numpy().tobytes()


def _restore_torch_random(state: bytes | None, _: InitialState) -> None:
    if state is not None:
        torch = _module("torch")
        torch.set_rng_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))


# --- pandas, matplotlib --------------------------------------------------------------------------------


def _pandas_options() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return pandas' options that can be set without a warning: their values, and their defaults."""
    config = _module("pandas._config.config")
    defaults = {
        name: option.defval
        for name, option in config._registered_options.items()
        if name not in config._deprecated_options
    }
    values: dict[str, Any] = {}
    for name in defaults:
        table: Any = config._global_config
        for part in name.split("."):
            table = table[part]
        values[name] = table
    return values, defaults


def _save_pandas(_: InitialState, report: Report) -> dict[str, Any] | None:
    values, defaults = _pandas_options()
    changed = {name: value for name, value in values.items() if value != defaults[name]}
    for name in [name for name, value in changed.items() if callable(value)]:
        report(f"pandas.options.{name}", "it is a function, which is not kept")
        del changed[name]
    return changed or None


def _restore_pandas(changed: dict[str, Any] | None, _: InitialState) -> None:
    pandas = _module("pandas")
    values, defaults = _pandas_options()
    for name, value in (defaults | (changed or {})).items():
        if name in values and values[name] != value:
            pandas.set_option(name, value)


def _items(parameters: Any) -> dict[str, Any]:
    """Return matplotlib's parameters as a plain dict: looking up the backend in theirs would choose one."""
    return dict(zip(_dict.keys(parameters), _dict.values(parameters), strict=True))


def _save_matplotlib(_: InitialState, __: Report) -> dict[str, Any] | None:
    matplotlib = _module("matplotlib")
    now, original = _items(matplotlib.rcParams), _items(matplotlib.rcParamsOrig)
    changed = {name: value for name, value in now.items() if value != original.get(name)}
    if type(changed.get("backend", "")) is not str:
        del changed["backend"]  # none has been chosen
    return changed or None


def _restore_matplotlib(changed: dict[str, Any] | None, _: InitialState) -> None:
    matplotlib = _module("matplotlib")
    now, changed = matplotlib.rcParams, dict(changed or {})
    backend = changed.pop("backend", None)
    original = _items(matplotlib.rcParamsOrig)
    for name, present in _items(now).items():
        value = changed.get(name, original.get(name))
        if name != "backend" and present != value:
            now[name] = value
    if backend is not None and _items(now)["backend"] != backend:
        matplotlib.use(backend)


SAVERS: Final = (
    Saver("numpy.get_printoptions()", "numpy", _save_print_options, _restore_print_options),
    Saver("numpy.geterr()", "numpy", _save_numpy_errors, _restore_numpy_errors),
    Saver("numpy.random.get_state()", "numpy.random", _save_numpy_random, _restore_numpy_random),
    Saver("torch.get_rng_state()", "torch", _save_torch_random, _restore_torch_random),
    Saver("pandas.options", "pandas", _save_pandas, _restore_pandas),
    Saver("matplotlib.rcParams", "matplotlib", _save_matplotlib, _restore_matplotlib),
)
