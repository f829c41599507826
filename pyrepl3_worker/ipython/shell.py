"""SessionShell: IPython's InteractiveShell over a session's namespace, history, output and displays.

It runs no cells of its own, but those that magics run (`%%capture`, `%run`, `%rerun`). What IPython would put
into the user's namespace stands in builtins, nothing is written into the user's home unasked, and what would
be shown in a terminal goes out as a session's output and displays.

IPython is imported by name, since most sessions, and the type checker, have none.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# The classes here have bases that the type checker knows nothing of.

import builtins
import os
import re
import sys
from asyncio import CancelledError  # by name: the code may replace asyncio's own
from collections.abc import Callable, Coroutine, Iterator, Mapping, MutableMapping
from contextlib import suppress
from fnmatch import fnmatchcase
from importlib import import_module
from shutil import which
from typing import Any, Final

from pyrepl3_worker.execution.execution import current_path
from pyrepl3_worker.ipython.commands import Write, run_in_terminal, run_with_pipes
from pyrepl3_worker.ipython.timing import Timing
from pyrepl3_worker.namespace import NamespaceManager
from pyrepl3_worker.rendering.exceptions import describe_exception

_interactiveshell: Final[Any] = import_module("IPython.core.interactiveshell")
_Shell: Any = _interactiveshell.InteractiveShell
_get_nested_loop: Any = import_module("IPython.core.async_helpers").get_asyncio_loop
_DisplayHook: Any = import_module("IPython.core.displayhook").DisplayHook
_DisplayPublisher: Any = import_module("IPython.core.displaypub").DisplayPublisher
_HistoryManager: Any = import_module("IPython.core.history").HistoryManager
_ScriptMagics: Any = import_module("IPython.core.magics.script").ScriptMagics
_magic: Any = import_module("IPython.core.magic")
_arg_split: Any = import_module("IPython.utils.process").arg_split
_config_type: Any = import_module("traitlets.config").Config
_text: Any = import_module("IPython.utils.text")
_format_time: Any = import_module("IPython.core.magics.execution")._format_time
get_ipython: Final[Any] = import_module("IPython.core.getipython").get_ipython
ipython_display: Final[Any] = import_module("IPython.core.display_functions").display
UsageError: Final[type[Exception]] = import_module("IPython.core.error").UsageError

SHELL_NAMES: Final = frozenset({"_dh", "_ih", "_oh"})
"""Names that IPython's magics look up in the namespace itself."""
_ASKED_TO_KEEP: Final = ("autorestore/", "bookmarks", "stored_aliases")
"""What `%store` and `%bookmark` keep for later sessions; `%cd`, say, keeps folders for none."""
_CELL_AS_FILE: Final = r"^(File: +)\S*/(<cell [0-9a-f]+>)$"
"""What IPython says of the code's own functions: it takes the names of cells for those of files."""
_OUTSIDE_PAGER_MIME: Final = "text/plain"


class _Publisher(_DisplayPublisher):
    """Hands what IPython displays to the session's `display`."""

    def publish(
        self,
        data: Mapping[str, object],
        metadata: Mapping[str, object] | None = None,
        source: object = None,
        *,
        transient: Mapping[str, Any] | None = None,
        update: bool = False,
        **_: object,
    ) -> None:
        """Display a MIME bundle."""
        self._validate_data(data, metadata)
        self.shell.session_display(
            data, raw=True, metadata=metadata, display_id=(transient or {}).get("display_id"), update=update
        )


class _Hook(_DisplayHook):
    """Displays the last values of cells that magics run."""

    def write_output_prompt(self) -> None:
        """Write none: the value itself is a display."""

    def write_format_data(self, format_dict: dict[str, object], md_dict: Any = None) -> None:
        """Display a value."""
        self.shell.display_pub.publish(format_dict, md_dict)

    def update_user_ns(self, result: object) -> None:
        """Leave `_` and `Out` to the cell that the magic is part of."""


class _History(_HistoryManager):
    """The session's cells; there is no database of earlier sessions."""

    def get_tail(
        self,
        n: int = 10,
        raw: bool = True,  # noqa: FBT001, FBT002 - as IPython has it
        output: bool = False,  # noqa: FBT001, FBT002
        include_latest: bool = False,  # noqa: FBT001, FBT002
    ) -> Iterator[Any]:
        """Return the last cells, by default those before this one."""
        stop = len(self.input_hist_raw) - (0 if include_latest else 1)
        return self.get_range(0, max(stop - n, 1), stop, raw, output)

    def search(
        self,
        pattern: str = "*",
        raw: bool = True,  # noqa: FBT001, FBT002
        search_raw: bool = True,  # noqa: FBT001, FBT002
        output: bool = False,  # noqa: FBT001, FBT002
        n: int | None = None,
        unique: bool = False,  # noqa: FBT001, FBT002
    ) -> Iterator[Any]:
        """Return the cells that match a pattern of the shell's kind."""
        found = [
            (session, number, line)
            for session, number, line in self.get_range(0, 1, None, raw, output)
            if fnmatchcase(line[0] if output else line, pattern)
        ]
        if unique:
            found = list({str(line): (session, number, line) for session, number, line in found}.values())
        return iter(found if n is None else found[-n:])


class _Scripts(_ScriptMagics):
    """`%%script`, `%%bash` and their like: run as the commands of `!` are, so that they end as those do."""

    def shebang(self, line: str, cell: str) -> None:
        """Run a cell by a program of the system."""
        args, command = _ScriptMagics.shebang.parser.parse_known_args(_arg_split(line, posix=True))
        if args.bg:
            super().shebang(line, cell)
            return
        parts: dict[str, list[str]] = {name: [] for name in (args.out, args.err) if name}
        write, write_errors = _write_output, _write_errors
        if args.out:
            write = parts[args.out].append
        if args.err:
            write_errors = parts[args.err].append
        data = f"{cell.removesuffix('\n')}\n".encode("utf-8", "replace")
        try:
            status = run_with_pipes(command, write, write_errors, data)
        except FileNotFoundError:
            print(f"Couldn't find program: {command[0]!r}")
            return
        finally:
            self.shell.user_ns.update({name: "".join(texts) for name, texts in parts.items()})
        if args.raise_error and status != 0:
            from subprocess import CalledProcessError

            raise CalledProcessError(status, data)

    vars(shebang).update(parser=_ScriptMagics.shebang.parser, __doc__=_ScriptMagics.shebang.__doc__)
    shebang = _magic.cell_magic("script")(shebang)


_magic.magics_class(_Scripts)


class _Store(MutableMapping[str, Any]):
    """What magics keep: in the user's profile what the user asks them to, in memory what they do unasked."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._memory: dict[str, Any] = {}
        self._disk: Any = None

    def _on_disk(self, *, make: bool = False) -> Any:
        if self._disk is None and (make or os.path.isdir(self._folder)):
            self._disk = import_module("IPython.external.pickleshare").PickleShareDB(self._folder)
        return {} if self._disk is None else self._disk

    def __getitem__(self, key: str) -> Any:
        return self._memory[key] if key in self._memory else self._on_disk()[key]

    def __setitem__(self, key: str, value: Any) -> None:
        if key.startswith(_ASKED_TO_KEEP):
            self._on_disk(make=True)[key] = value
        else:
            self._memory[key] = value

    def __delitem__(self, key: str) -> None:
        del (self._memory if key in self._memory else self._on_disk())[key]

    def __iter__(self) -> Iterator[str]:
        return iter({**self._memory, **dict.fromkeys(self._on_disk().keys())})

    def __len__(self) -> int:
        return len(list(iter(self)))

    def keys(self, pattern: str = "*") -> Any:
        """Return the keys that match a pattern of the shell's kind."""
        return [key for key in self if fnmatchcase(key, pattern)]


class SessionShell(_Shell):
    """The one shell of a session."""

    _store: _Store | None = None
    _cell_timing: Timing | None = None

    def __init__(
        self,
        namespace: NamespaceManager,
        display: Callable[..., Any],
        write_error: Write,
    ) -> None:
        """Make the shell; `get_ipython()` finds it from now on.

        Args:
            namespace: the session's.
            display: the session's `display` function.
            write_error: writes to the session's stderr, past what the code has put in the place of its own.
        """
        self.session_namespace = namespace
        self.session_display = display
        self._write_error = write_error
        settings = _config_type()
        settings.HistoryManager.enabled = False
        settings.HistoryManager.hist_file = ":memory:"
        settings.InteractiveShell.colors = "nocolor"
        settings.InteractiveShell.warn_venv = False
        super().__init__(
            config=settings,
            user_module=namespace.module,
            user_ns=namespace.namespace,
        )
        # Where `get_ipython` and `InteractiveShell.instance` look.
        for kind in (SessionShell, _Shell):
            kind._instance = self
        self.display_trap.hook = self.displayhook
        self.loop_runner = _run_nested
        self.builtin_trap.auto_builtins = {}
        self.set_hook("show_in_pager", _print_page, priority=0)
        self.set_hook("editor", _refuse_editor, priority=0)
        self.extension_manager.load_extension("storemagic")

    # --- what IPython would do to the process, its home and the namespace ------------------------------

    def init_ipython_dir(self, ipython_dir: object) -> None:
        """Know where the folder would be. To set it as a trait would make it."""
        self._trait_values["ipython_dir"] = _ipython_folder()

    def init_profile_dir(self, profile_dir: object) -> None:
        """Have no profile, which would be a folder in the user's home."""
        self.profile_dir = None

    @property
    def db(self) -> Any:
        """What `%store` and `%bookmark` keep beyond the session."""
        if self._store is None:
            self._store = _Store(os.path.join(_ipython_folder(), "profile_default", "db"))
        return self._store

    def init_virtualenv(self) -> None:
        """Leave `sys.path` as it is."""

    def prepare_user_module(self, user_module: Any = None, user_ns: Any = None) -> tuple[Any, Any]:
        """Return the session's module and namespace as they are."""
        return user_module, user_ns

    def init_sys_modules(self) -> None:
        """Leave `__main__` as it is: it is the session's."""

    def init_prompts(self) -> None:
        """Set no prompts: programs take them for a terminal."""

    def init_builtins(self) -> None:
        """Prepare nested cells; the session provides the names."""
        builtins.__dict__["__IPYTHON__"] = True
        self.builtin_trap = _interactiveshell.BuiltinTrap(shell=self)

    def init_history(self) -> None:
        """Use the session's own history."""
        manager = self.history_manager = _History(shell=self, parent=self)
        self.configurables.append(manager)
        self.attach_history()

    def attach_history(self) -> None:
        """Have `%history`, `%rerun`, … see the session's cells."""
        manager, namespace = self.history_manager, self.session_namespace
        manager.input_hist_parsed = manager.input_hist_raw = namespace.inputs
        manager.output_hist = namespace.outputs

    def init_user_ns(self) -> None:
        """Put into the namespace what magics look for there, and nothing else."""
        manager, namespace = self.history_manager, self.session_namespace
        shown: dict[str, Any] = {"In": namespace.inputs, "Out": namespace.outputs}
        shown |= {"_ih": namespace.inputs, "_oh": namespace.outputs, "_dh": manager.dir_hist}
        self.user_ns_hidden.update(shown)
        self.user_ns.update(shown)

    def reset(self, new_session: bool = True, aggressive: bool = False) -> None:  # noqa: FBT001, FBT002 - as IPython has it
        """Empty the namespace (`%reset`); `_` and its kin are the session's again."""
        super().reset(new_session, aggressive)
        namespace = self.session_namespace
        namespace.restore_history(list(namespace.inputs), dict(namespace.outputs), {})

    def init_display_pub(self) -> None:
        """Display through the session."""
        self.display_pub_class = _Publisher
        super().init_display_pub()

    def init_displayhook(self) -> None:
        """Display the values of nested cells through the session."""
        self.displayhook_class = _Hook
        super().init_displayhook()

    def enable_gui(self, gui: str | None = None) -> None:
        """Have no event loop of a window system beside the session's own."""
        if gui:
            raise UsageError(f"there is no {gui} here: figures are displays (%matplotlib inline)")

    def init_logstart(self) -> None:
        """Start no log."""

    def init_magics(self) -> None:
        """Have scripts run as the commands of `!` do."""
        super().init_magics()
        self.register_magics(_Scripts)

    # --- commands --------------------------------------------------------------------------------------

    def system(self, cmd: str) -> None:
        """Run a command of `!`; its exit status is `_exit_code` afterwards."""
        command = self.var_expand(cmd, depth=1)
        _refuse_background(cmd)
        self._note_exit(run_in_terminal([_shell_program(), "-c", command], _write_output), cmd)

    system_piped = system_raw = system

    def getoutput(self, cmd: str, split: bool = True, depth: int = 0) -> Any:  # noqa: FBT001, FBT002 - as IPython has it
        """Run a command of `x = !…`, and return its output, errors included."""
        command = self.var_expand(cmd, depth=depth + 1)
        _refuse_background(cmd)
        parts: list[str] = []
        status = run_with_pipes([_shell_program(), "-c", command], parts.append)
        if self.system_raise_on_error:
            self._note_exit(status, cmd)
        text = "".join(parts)
        return _text.SList(text.splitlines()) if split else _text.LSString(text)

    def _note_exit(self, status: int, command: str) -> None:
        self.user_ns["_exit_code"] = status
        if self.system_raise_on_error and status != 0:
            from subprocess import CalledProcessError

            raise CalledProcessError(status, command)

    # --- magics ------------------------------------------------------------------------------------------

    def run_line_magic(self, magic_name: str, line: str, _stack_depth: int = 1) -> Any:
        """Run a line magic."""
        try:
            return super().run_line_magic(magic_name, line, _stack_depth + 1)
        except SyntaxError as error:
            _explain_await(f"%{magic_name}", error)
            raise

    def run_cell_magic(self, magic_name: str, line: str, cell: str) -> Any:
        """Run a cell magic."""
        try:
            return super().run_cell_magic(magic_name, line, cell)
        except SyntaxError as error:
            _explain_await(f"%%{magic_name}", error)
            raise

    def timing(self) -> Timing:
        """Begin to measure, for `%time` of code that awaits."""
        return Timing(_format_time)

    def time_cell(self) -> None:
        """Begin to measure the running cell, for `%%time` of code that awaits."""
        self._cell_timing = self.timing()

    def end_cell_timing(self) -> None:
        """Print the times of the running cell, if it is measured."""
        timing, self._cell_timing = self._cell_timing, None
        if timing is not None:
            timing.end(None)

    def debugger(self, force: bool = False) -> None:  # noqa: FBT001, FBT002 - as IPython has it
        """Debug the last error (`%debug`)."""
        hook = sys.displayhook
        try:
            super().debugger(force)
        finally:
            # IPython leaves None in its place where it was Python's own.
            sys.displayhook = hook

    # --- nested cells and their errors -------------------------------------------------------------------

    def run_cell(self, raw_cell: str, *args: Any, **options: Any) -> Any:
        """Run a cell inside a cell. A cancel or time-out of the outer one ends it too."""
        result = super().run_cell(raw_cell, *args, **options)
        error = None if result is None else result.error_in_exec
        if error is not None and _stops_the_cell(error):
            raise error
        return result

    def showtraceback(self, exc_tuple: Any = None, *_: object, **__: object) -> None:
        """Write an error of a nested cell to stderr, as the error of a cell reads."""
        try:
            _, error, _ = self._get_exc_info(exc_tuple)
        except ValueError:
            print("No traceback available to show.", file=sys.stderr)
            return
        if _stops_the_cell(error):
            raise error
        self._write_error(describe_exception(error, "exception", None).traceback)

    def showsyntaxerror(self, *_: object, **__: object) -> None:
        """Write a SyntaxError of a nested cell to stderr."""
        self.showtraceback()

    def showindentationerror(self) -> None:
        """Write an IndentationError of a nested cell to stderr."""
        self.showtraceback()

    def set_next_input(self, s: str, replace: bool = False) -> None:  # noqa: FBT001, FBT002 - as above
        """Print what `%load` or `%recall` would put into the next cell: only the editor could."""
        print(s)


# `%config InteractiveShell.…` finds it by this name.
SessionShell.__name__ = "InteractiveShell"


def _stops_the_cell(error: BaseException) -> bool:
    """Return whether an exception ends the cell that a nested one is part of."""
    if isinstance(error, KeyboardInterrupt | CancelledError):
        return True
    path = current_path.get()
    return path is not None and path.execution.cancel_reason is not None


def _ipython_folder() -> str:
    return os.environ.get("IPYTHONDIR") or os.path.expanduser("~/.ipython")


def _shell_program() -> str:
    return which(os.environ.get("SHELL", "sh")) or "/bin/sh"


def _explain_await(magic: str, error: SyntaxError) -> None:
    """Raise an error that a user can do something with for code of a magic that awaits.

    Raises:
        UsageError: that is what `error` says.
    """
    if error.msg == "'await' outside function":
        raise UsageError(
            f"{magic} cannot run this code, which awaits; %%time and %%capture can, or %time of one line"
        ) from None


def _refuse_editor(shell: object, filename: str, linenum: object = None, wait: bool = True) -> None:  # noqa: FBT001, FBT002 - as above
    raise UsageError("there is no editor here: %edit cannot open one")


def _refuse_background(command: str) -> None:
    if command.rstrip().endswith("&"):
        raise OSError("Background processes not supported.")  # as IPython says it


def _write_output(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _write_errors(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


def _print_page(shell: object, data: Any, start: int = 0, screen_lines: int = 0) -> None:
    """Print what IPython would show in a pager (`name?`, `%psource`, `%prun`)."""
    text = data.get(_OUTSIDE_PAGER_MIME, "") if isinstance(data, Mapping) else data
    text = re.sub(_CELL_AS_FILE, r"\1\2", str(text), flags=re.MULTILINE)
    print("\n".join(text.splitlines()[start:]))


def _run_nested(coroutine: Coroutine[Any, Any, object]) -> object:
    """Run a nested cell that awaits; an interrupt ends it before the cell around it goes on.

    IPython's own runner leaves it where it stands, with what it has put in place (`sys.displayhook`).
    """
    loop = _get_nested_loop()
    task = loop.create_task(coroutine)
    try:
        return loop.run_until_complete(task)
    except BaseException:
        if not task.done():
            task.cancel()
            with suppress(CancelledError):
                loop.run_until_complete(task)
        raise


def make_info(code: str, execution_id: str, store_history: bool) -> Any:  # noqa: FBT001 - as IPython has it
    """Return what IPython's listeners are told of a cell that begins."""
    return _interactiveshell.ExecutionInfo(code, store_history, False, True, execution_id)


def make_result(info: Any, value: object, error: BaseException | None, number: int) -> Any:
    """Return what IPython's listeners are told of a cell that has ended."""
    result = _interactiveshell.ExecutionResult(info)
    result.execution_count, result.result, result.error_in_exec = number, value, error
    return result
