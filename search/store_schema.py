"""The tables of a run's store, how a file is recognised as one, and how older files are brought forward."""

import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path

from layersearch.errors import LayerSearchError, RunError, StoreError

__all__ = [
    "APPLICATION_ID",
    "MIGRATIONS",
    "OLDEST_READABLE",
    "SCHEMA_VERSION",
    "STORE_FILE",
    "connect_reading",
    "connect_writing",
    "no_locks",
]

STORE_FILE = "run.sqlite"
APPLICATION_ID = 0x6C617965  # "laye": tells a store from any other SQLite file
SCHEMA_VERSION = 3
OLDEST_READABLE = 1
"""Version from which on a file can be read as it is: what later ones added are tables that may be missing."""

_OF_LOCKS = {
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_NOLFS,
    sqlite3.SQLITE_IOERR_LOCK,
    sqlite3.SQLITE_IOERR_RDLOCK,
    sqlite3.SQLITE_IOERR_UNLOCK,
    sqlite3.SQLITE_IOERR_CHECKRESERVEDLOCK,
    sqlite3.SQLITE_IOERR_SHMLOCK,
    sqlite3.SQLITE_IOERR_SHMMAP,
    sqlite3.SQLITE_IOERR_SHMOPEN,
}

_PROMOTIONS = """
CREATE TABLE promotions (
    turn INTEGER PRIMARY KEY,
    candidate INTEGER NOT NULL REFERENCES candidates (number),
    rung INTEGER NOT NULL,
    seen INTEGER NOT NULL
)"""

_SELECTIONS = """
CREATE TABLE selections (
    candidate INTEGER NOT NULL REFERENCES candidates (number),
    stage TEXT NOT NULL,
    selection TEXT NOT NULL,
    PRIMARY KEY (candidate, stage)
) WITHOUT ROWID"""


def _add_promotions(connection: sqlite3.Connection) -> None:
    connection.execute(_PROMOTIONS)


def _add_selections(connection: sqlite3.Connection) -> None:
    connection.execute(_SELECTIONS)


MIGRATIONS: Mapping[int, Callable[[sqlite3.Connection], None]] = {1: _add_promotions, 2: _add_selections}
"""From schema version to the function that brings a file to the next one; runs inside the opening transaction."""

_TABLES = f"""
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE candidates (
    number INTEGER PRIMARY KEY,
    slot INTEGER,
    origin TEXT NOT NULL,
    genome TEXT NOT NULL,
    key TEXT,
    function_key TEXT,
    novelty TEXT,
    parents TEXT NOT NULL,
    state TEXT NOT NULL,
    stage TEXT,
    reason TEXT NOT NULL,
    duplicate_of INTEGER,
    known_as TEXT,
    name TEXT,
    fitness TEXT NOT NULL,
    seen INTEGER NOT NULL,
    told INTEGER
);
CREATE INDEX candidates_by_state ON candidates (state, stage, slot);
CREATE TABLE results (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    candidate INTEGER NOT NULL REFERENCES candidates (number),
    stage TEXT NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL,
    measured REAL,
    lim REAL,
    metrics TEXT NOT NULL,
    fitness TEXT NOT NULL,
    checkpoint TEXT,
    attempts INTEGER NOT NULL,
    duration_s REAL NOT NULL,
    cpu_s REAL NOT NULL,
    UNIQUE (candidate, stage)
);
CREATE INDEX results_by_checkpoint ON results (checkpoint) WHERE checkpoint > '';
{_PROMOTIONS};
{_SELECTIONS};
"""


def connect_writing(path: Path) -> sqlite3.Connection:
    """A connection for the one writer; makes the file if there is none.

    A kill while the file is made leaves one without tables, which is taken for new.

    Raises: StoreError if the file is something else, of a newer schema, or cannot be written; RunError if the disk is
        full. Nothing is overwritten.
    """
    _refuse_other_files(path)
    try:
        connection = sqlite3.connect(path, isolation_level=None)
    except sqlite3.Error as error:
        raise _unusable(path, error) from error
    try:
        version = _version(connection, path, new_is_fine=True)
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise no_locks(path, f"SQLite's journal mode is {mode}, not wal")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("BEGIN IMMEDIATE")
        if version == 0:
            for statement in _TABLES.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        for older in range(version or SCHEMA_VERSION, SCHEMA_VERSION):
            MIGRATIONS[older](connection)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        _leave(connection, path)
        raise _unusable(path, error) from error
    except StoreError:
        _leave(connection, path)
        raise
    return connection


def _leave(connection: sqlite3.Connection, path: Path) -> None:
    """Closes a file that cannot be used; one that was only just made goes, too."""
    connection.close()
    if path.exists() and path.stat().st_size == 0:
        path.unlink()


def connect_reading(path: Path) -> sqlite3.Connection:
    """A read-only connection; works while the run goes on.

    Raises: StoreError if there is no store, or the file is something else, of a newer schema or of one that is too old.
    """
    if not path.is_file():
        raise StoreError(f"a run has a store, but there is none at {path}; check the name of the run and --runs-dir")
    _refuse_other_files(path)
    connection = None
    try:
        connection = _open_reading(path)
        if _version(connection, path, new_is_fine=False) < OLDEST_READABLE:
            raise StoreError(f"{path} is of an older schema; resume the run once to bring it forward")
    except sqlite3.Error as error:
        raise _unusable(path, error) from error
    except StoreError:
        if connection is not None:
            connection.close()
        raise
    return connection


def _open_reading(path: Path) -> sqlite3.Connection:
    """Reading in WAL mode needs files beside the store; where none can be made and the log is empty, goes without."""
    uri = f"{path.resolve().as_uri()}?mode=ro"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:
        connection.close()
        log = path.with_name(f"{path.name}-wal")
        if log.exists() and log.stat().st_size > 0:
            raise
        return sqlite3.connect(f"{uri}&immutable=1", uri=True, isolation_level=None)
    except sqlite3.DatabaseError:
        connection.close()
        raise _foreign(path) from None
    return connection


def _refuse_other_files(path: Path) -> None:
    """SQLite itself notices a foreign file only at the first statement, and takes a short one for an empty store."""
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror}); check the path and its permissions") from error
    if head and head != b"SQLite format 3\x00":
        raise _foreign(path)


def _version(connection: sqlite3.Connection, path: Path, new_is_fine: bool) -> int:
    """Schema version of a store; 0 for a file without tables."""
    try:
        n_tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise
        raise _foreign(path) from error
    if n_tables == 0 and application == 0 and version == 0:
        if new_is_fine:
            return 0
        raise StoreError(f"the store at {path} is empty; start the run again")
    if application != APPLICATION_ID:
        raise _foreign(path)
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"{path} has schema version {version}, but this version of layersearch knows up to {SCHEMA_VERSION}; "
            "upgrade layersearch"
        )
    return version


def _foreign(path: Path) -> StoreError:
    return StoreError(f"{path} is not a store of layersearch; move it away or choose another run name")


def no_locks(path: Path, reason: str) -> StoreError:
    """For a file system, such as some network file systems, on which one runner could not keep out another."""
    return StoreError(
        f"a run must be on a file system that can lock files, but {path} is on none ({reason}); choose another "
        "--runs-dir, for example on a local disk"
    )


def _unusable(path: Path, error: sqlite3.Error) -> LayerSearchError:
    """A full or failing disk ends the run for now (exit code 1); anything else is a wrong path or permission."""
    if getattr(error, "sqlite_errorcode", 0) in _OF_LOCKS:
        return no_locks(path, str(error))
    if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        return RunError(f"the disk must take the store {path}, but does not ({error}); make room, then resume the run")
    return StoreError(f"the store {path} cannot be opened ({error}); check the path and its permissions")
