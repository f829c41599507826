"""Makes again what stands for something outside of the process: open files, databases, mapped arrays.

Nothing outside is changed by that: a file is opened again at its place and never cut, and one that is not
there any more is an error that names it. What is in memory alone (an SQLite database) is carried over.

Libraries are imported where a session that has used them needs them.
"""

import gc
import io
import os
import sys
import weakref
from collections.abc import Callable
from gc import get_referents
from importlib import import_module
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, cast

from pyrepl3_worker.checkpoint.by_value import ReduceValue
from pyrepl3_worker.checkpoint.unsaveable import Unsaveable, WrongThread

if TYPE_CHECKING:
    import sqlite3

_ELSEWHERE: Final = "the file that it has open has no path any more"


# --- files ------------------------------------------------------------------------------------------------


def _reduce_file(file: Any) -> ReduceValue:
    """Return the reduce value of an open file: text, buffered or raw."""
    if file.closed:
        encoded = (file.encoding, file.errors) if type(file) is io.TextIOWrapper else (None, None)
        raw = type(file) is io.FileIO
        return make_closed_file, (getattr(file, "name", ""), getattr(file, "mode", "r"), raw, *encoded)
    text = isinstance(file, io.TextIOWrapper)
    inner: Any = cast(Any, file).buffer if text else file
    if not isinstance(getattr(inner, "raw", inner), io.FileIO):
        raise Unsaveable(f"text over a {type(inner).__name__} is not made again")
    path, mode = _path_of(file), cast(str, file.mode)
    if not text and "b" not in mode:
        mode += "b"
    if file.writable():
        file.flush()
    place: int | None = None
    if file.seekable():
        try:
            place = file.tell()
        except OSError as error:
            raise Unsaveable(f"its place can't be told ({error}): an iteration over it has begun") from None
    buffered: Any = cast(Any, file).buffer if text else file
    buffering = 0 if isinstance(file, io.FileIO) else _buffer_size_of(buffered)
    details: tuple[Any, ...] = (None, None, None, False)
    if text:
        details = file.encoding, file.errors, _newline_of(file), file.line_buffering
    return make_file, (path, mode, buffering, place, *details, file.name, text and file.write_through)


def _path_of(file: Any) -> str:
    name: object = file.name
    if type(name) not in (str, bytes):
        raise Unsaveable("an open file that has no path belongs to one process")
    opened = os.fstat(file.fileno())
    path = os.path.abspath(os.fsdecode(cast(str, name)))
    try:
        there = os.stat(path)
    except OSError:
        # Its name may be relative to where the process was then.
        path = os.readlink(f"/proc/self/fd/{file.fileno()}")
        try:
            there = os.stat(path)
        except OSError:
            raise Unsaveable(_ELSEWHERE) from None
    if not os.path.samestat(opened, there):
        path = os.readlink(f"/proc/self/fd/{file.fileno()}")
        if not os.path.exists(path) or not os.path.samestat(opened, os.stat(path)):
            raise Unsaveable(_ELSEWHERE)
    return path


def _buffer_size_of(buffered: Any) -> int:
    size: int = buffered.__sizeof__() - type(buffered).__basicsize__
    return size if size > 1 else -1


_NEWLINES: Final = frozenset({"", "\n", "\r", "\r\n"})


def _newline_of(file: Any) -> str | None:
    """Return what `open` was given as `newline`. No attribute has it, but the object refers to it."""
    found = _texts_of(file)
    if len(found) == 1 and found[0] in _NEWLINES and file.readable() and file.seekable():
        file.seek(file.tell())  # it may be what was read last, which is forgotten by this
        found = _texts_of(file)
    return found[0] if found and found[0] in _NEWLINES else None


def _texts_of(file: Any) -> list[str]:
    """Return the texts that a file refers to between its encoding and the name of its error handler."""
    return [each for each in get_referents(file) if type(each) is str][1:-1]


def make_file(
    path: str,
    mode: str,
    buffering: int,
    place: int | None,
    encoding: str | None,
    errors: str | None,
    newline: str | None,
    line_buffering: bool,  # noqa: FBT001
    name: str | bytes = "",
    write_through: bool = False,  # noqa: FBT001, FBT002
) -> Any:
    """Open a file again at its place, in its mode. It is neither made nor cut.

    Raises:
        OSError: it is not there, or shorter than its place.
    """

    def open_as_it_is(_: object, flags: int) -> int:
        return os.open(path, flags & ~(os.O_CREAT | os.O_EXCL | os.O_TRUNC))

    if "b" in mode:
        file: Any = open(name or path, mode, buffering, opener=open_as_it_is)  # noqa: SIM115 - the code has it open
    else:
        file = open(name or path, mode, buffering, encoding, errors, newline, opener=open_as_it_is)  # noqa: SIM115 - as above
        file.reconfigure(line_buffering=line_buffering, write_through=write_through)
    if place is not None:
        size = os.fstat(file.fileno()).st_size
        if "b" in mode and place > size:
            file.close()
            raise OSError(f"{path!r} has {size:,} bytes now, and was open at byte {place:,}")
        file.seek(place)
    return file


def make_closed_file(name: Any, mode: str, raw: bool, encoding: str | None, errors: str | None) -> Any:  # noqa: FBT001
    """Make a file object that is closed, of the kind and with the name that it had."""
    with open(os.devnull, mode.replace("x", "w"), 0 if raw else -1, encoding, errors) as file:
        closed: Any = file
    if encoding is not None:
        closed.mode = mode
    innermost: Any = closed.buffer if encoding is not None else closed
    getattr(innermost, "raw", innermost).name = name
    return closed


def _reduce_temporary_file(wrapper: Any) -> ReduceValue:
    closer = wrapper._closer
    return make_temporary_file, (wrapper.file, wrapper.name, closer.delete, closer.delete_on_close)


def make_temporary_file(file: Any, name: str, delete: bool, delete_on_close: bool) -> Any:  # noqa: FBT001
    """Wrap the file of a `NamedTemporaryFile`, which is removed when that is closed."""
    import tempfile

    library: Any = tempfile
    # An object that stands for this file here, as before a restore in a live worker, must not remove it.
    for each in gc.get_objects():
        if type(each) is library._TemporaryFileCloser and each.name == name:
            each.delete = False
    wrapper: Any = library._TemporaryFileWrapper  # what the function gives
    return wrapper(file, name, delete, delete_on_close)


def _reduce_temporary_directory(directory: Any) -> ReduceValue:
    if not directory._finalizer.alive:
        raise Unsaveable("the directory was removed")
    return make_temporary_directory, (directory.name, directory._ignore_cleanup_errors)


def make_temporary_directory(name: str, ignore_errors: bool) -> Any:  # noqa: FBT001
    """Own a temporary directory that is there again: it is removed with this object.

    Raises:
        OSError: it is not there.
    """
    import tempfile

    os.stat(name)
    kind: Any = tempfile.TemporaryDirectory
    finalize: Any = weakref.finalize
    for each in list(finalize._registry):
        found: Any = each.peek()
        if found is not None and found[1] == kind._cleanup and found[2] == (name,):
            each.detach()  # an object that stands for it here, as above
    directory: Any = kind.__new__(kind)
    directory.name, directory._delete, directory._ignore_cleanup_errors = name, True, ignore_errors
    directory._finalizer = weakref.finalize(
        directory,
        kind._cleanup,
        name,
        warn_message=f"Implicitly cleaning up {directory!r}",
        ignore_errors=ignore_errors,
    )
    return directory


_DIALECT: Final = (
    "delimiter", "doublequote", "escapechar", "lineterminator", "quotechar", "quoting", "skipinitialspace",
    "strict",
)  # fmt: skip


def _reduce_csv_writer(writer: Any) -> ReduceValue:
    dialect = writer.dialect
    # It has no attribute for what it writes to; its parts are the dialect, this, and two classes.
    (write,) = [each for each in get_referents(writer) if each is not dialect and not isinstance(each, type)]
    return make_csv_writer, (write, {name: getattr(dialect, name) for name in _DIALECT})


def make_csv_writer(write: Any, dialect: dict[str, Any]) -> Any:
    """Make a writer of rows that calls `write`."""
    import csv

    target: Any = SimpleNamespace(write=write)
    return csv.writer(target, **dialect)


# --- databases ---------------------------------------------------------------------------------------------


def _reduce_sqlite(connection: "sqlite3.Connection") -> ReduceValue:
    import sqlite3

    try:
        databases = connection.execute("PRAGMA database_list").fetchall()
    except sqlite3.ProgrammingError as error:
        # It was closed, or belongs to another thread.
        raise WrongThread(f"a database connection belongs to one process and thread ({error})") from None
    if connection.in_transaction:
        raise Unsaveable("a transaction is open, whose changes are not committed")
    (_, _, path), *others = databases
    attached = [(name, file) for _, name, file in others if name != "temp"]
    if any(not file for _, file in attached):
        raise Unsaveable("an attached database in memory can't be carried over")
    if (
        len(others) > len(attached)
        and connection.execute("SELECT count(*) FROM temp.sqlite_master").fetchone()[0]
    ):
        raise Unsaveable("temporary tables can't be carried over")
    image = None if path else connection.serialize()
    settings = {
        name: connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("foreign_keys", "busy_timeout", "recursive_triggers")
    }
    look = connection.isolation_level, connection.row_factory, connection.text_factory
    return make_sqlite, (path, image, settings, attached, *look, connection.autocommit)


def make_sqlite(
    path: str,
    image: bytes | None,
    settings: dict[str, int],
    attached: list[tuple[str, str]],
    isolation_level: Any,
    row_factory: Any,
    text_factory: Any,
    autocommit: Any,
) -> "sqlite3.Connection":
    """Connect to a database again, or load one that was in memory. Functions that were added are gone.

    Raises:
        OSError: the database's file is not there; none is made.
    """
    import sqlite3

    for file in (path, *(file for _, file in attached)):
        if file:
            os.stat(file)
    connection = sqlite3.connect(
        path or ":memory:",
        isolation_level=isolation_level,
        autocommit=autocommit,
        check_same_thread=False,  # this is not the thread that cells may run on
    )
    if image is not None:
        connection.deserialize(image)
    for name, value in settings.items():
        connection.execute(f"PRAGMA {name} = {value}")
    for name, file in attached:
        connection.execute(f"ATTACH ? AS {_quoted(name)}", (file,))
    connection.row_factory, connection.text_factory = row_factory, text_factory
    return connection


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _reduce_cursor(cursor: Any) -> ReduceValue:
    if cursor.description is not None:
        raise Unsaveable("a cursor's place in its rows can't be saved")
    return make_cursor, (cursor.connection, cursor.arraysize, cursor.row_factory)


def make_cursor(connection: "sqlite3.Connection", array_size: int, row_factory: Any) -> "sqlite3.Cursor":
    """Make a cursor that has run nothing."""
    cursor = connection.cursor()
    cursor.arraysize, cursor.row_factory = array_size, row_factory
    return cursor


def _reduce_duckdb(connection: Any) -> ReduceValue:
    from tempfile import TemporaryDirectory

    query = "SELECT database_name, path, readonly FROM duckdb_databases() WHERE NOT internal"
    databases = connection.execute(query).fetchall()
    if len(databases) != 1:
        raise Unsaveable("a connection with several databases can't be made again")
    ((_, path, read_only),) = databases
    if path:
        return make_duckdb, (os.path.abspath(path), read_only, None)
    with TemporaryDirectory() as folder:
        connection.execute(f"EXPORT DATABASE '{folder}' (FORMAT parquet)")
        files = {name: _content_of(os.path.join(folder, name)) for name in sorted(os.listdir(folder))}
        files["load.sql"] = files["load.sql"].replace(folder.encode(), _FOLDER)
    return make_duckdb, (None, False, files)


_FOLDER: Final = b"%%FOLDER%%"


def _content_of(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def make_duckdb(path: str | None, read_only: bool, files: dict[str, bytes] | None) -> Any:  # noqa: FBT001
    """Connect to a database again, or load one that was in memory.

    Raises:
        OSError: its file is not there; none is made.
    """
    from tempfile import TemporaryDirectory

    library: Any = import_module("duckdb")
    if path is not None:
        os.stat(path)
        return library.connect(path, read_only=read_only)
    connection: Any = library.connect(":memory:")
    with TemporaryDirectory() as folder:
        for name, content in (files or {}).items():
            with open(os.path.join(folder, name), "wb") as file:
                file.write(content.replace(_FOLDER, folder.encode()) if name == "load.sql" else content)
        connection.execute(f"IMPORT DATABASE '{folder}'")
    return connection


def _reduce_engine(engine: Any) -> ReduceValue:
    url = engine.url
    if engine.dialect.name == "sqlite" and url.database in (None, "", ":memory:"):
        raise Unsaveable("an engine's database in memory ends with its process")
    return make_engine, (url.render_as_string(hide_password=False), engine.echo, _sqlite_path_of(engine))


def _sqlite_path_of(engine: Any) -> str | None:
    """Return the file that an engine of SQLite connects to: it was made absolute when the engine was made."""
    if engine.dialect.name != "sqlite" or os.path.isabs(engine.url.database):
        return None
    creator = engine.pool._creator
    known = dict(zip(creator.__code__.co_freevars, creator.__closure__ or (), strict=True))
    arguments: tuple[Any, ...] = known["cargs_tup"].cell_contents if "cargs_tup" in known else ()
    path: Any = arguments[0] if arguments else None
    if not isinstance(path, str) or not os.path.isabs(path):
        raise Unsaveable("the file of its relative address is not known")
    return path


def make_engine(url: str, echo: Any, path: str | None) -> Any:
    """Make an engine, of the database at `path` if that is given; it connects when it is used."""
    library: Any = import_module("sqlalchemy")
    if path is None:
        return library.create_engine(url, echo=echo)
    made = library.make_url(url)
    engine = library.create_engine(made.set(database=path), echo=echo)
    engine.url = made
    return engine


# --- mapped arrays -----------------------------------------------------------------------------------------


def _reduce_memmap(array: Any) -> ReduceValue:
    root = array
    while type(root.base) is type(array):
        root = root.base
    if root.filename is None or root._mmap is None:
        return sys.modules["numpy"].asarray(array).copy().__reduce_ex__(5)
    root.flush()
    if root is array:
        order = "F" if root.flags.f_contiguous and not root.flags.c_contiguous else "C"
        path = os.path.abspath(root.filename)
        return make_memmap, (path, root.dtype, root.mode, root.offset, root.shape, order)
    start = array.__array_interface__["data"][0] - root.__array_interface__["data"][0]
    return make_memmap_view, (root, start, array.dtype, array.shape, array.strides)


def make_memmap(path: str, dtype: Any, mode: str, offset: int, shape: Any, order: str) -> Any:
    """Map a file again.

    Raises:
        OSError: it is not there.
    """
    numpy: Any = sys.modules["numpy"]
    array = numpy.memmap(path, dtype, "r+" if mode == "w+" else mode, offset, shape, order)
    array.mode = mode  # "w+" would have emptied it
    return array


def make_memmap_view(root: Any, start: int, dtype: Any, shape: Any, strides: Any) -> Any:
    """Make a view of a mapped array that lies in the same memory."""
    numpy: Any = sys.modules["numpy"]
    return numpy.ndarray.__new__(type(root), shape, dtype, root, start, strides)


def _reduce_httpx(client: Any) -> ReduceValue:
    if client.is_closed:
        raise Unsaveable("a client that was closed sends nothing")
    cookies = [(each.name, each.value, each.domain, each.path) for each in client.cookies.jar]
    options = {
        "base_url": str(client.base_url),
        "headers": list(client.headers.multi_items()),
        "params": list(client.params.multi_items()),
        "timeout": client.timeout,
        "follow_redirects": client.follow_redirects,
        "max_redirects": client.max_redirects,
        "trust_env": client.trust_env,
    }
    return make_httpx, (type(client), options, cookies)


def make_httpx(kind: Any, options: dict[str, Any], cookies: list[tuple[str, str, str, str]]) -> Any:
    """Make a client; transports, hooks and authentication of its own are gone."""
    client = kind(**options)
    for name, value, domain, path in cookies:
        client.cookies.set(name, value, domain, path)
    return client


MAKERS: Final[dict[str, Callable[[Any], ReduceValue]]] = {
    **dict.fromkeys(
        (
            "_io.TextIOWrapper", "_io.BufferedReader", "_io.BufferedWriter", "_io.BufferedRandom",
            "_io.FileIO",
        ),
        _reduce_file,
    ),
    "tempfile._TemporaryFileWrapper": _reduce_temporary_file,
    "tempfile.TemporaryDirectory": _reduce_temporary_directory,
    "_csv.writer": _reduce_csv_writer,
    "sqlite3.Connection": _reduce_sqlite,
    "sqlite3.Cursor": _reduce_cursor,
    "_duckdb.DuckDBPyConnection": _reduce_duckdb,
    "duckdb.duckdb.DuckDBPyConnection": _reduce_duckdb,
    "sqlalchemy.engine.base.Engine": _reduce_engine,
    "numpy.memmap": _reduce_memmap,
    "httpx.Client": _reduce_httpx,
    "httpx.AsyncClient": _reduce_httpx,
}  # fmt: skip
