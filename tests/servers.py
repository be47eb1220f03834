"""Throw-away Redis and PostgreSQL servers: one of each for a test run (and each xdist worker).

`conftest.py` hands them to tests as the fixtures ``redis_server``, ``redis_url``,
``postgres_server`` and ``postgres_url``.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest

__all__ = ["SERVER_IDS", "PostgresServer", "RedisServer"]

SERVER_IDS: set[int] = set()
"""Process ids of the servers that run."""

_ATTEMPTS = 3  # the free port that was found may be taken before the server binds it
_START_TIMEOUT = 20.0  # seconds; PostgreSQL takes 0.2 s on an idle machine
_POLL = 0.005  # seconds between two attempts to connect

_S = TypeVar("_S", bound="_Server")


class _Server(ABC):
    """A server process on a free port of 127.0.0.1, with its data in a temporary folder."""

    def __init__(self) -> None:
        # Beside pytest's own folder, which only root may enter if root runs the tests.
        self.folder = Path(tempfile.mkdtemp(prefix="gather-async-server-"))
        self.port = 0
        self._process: subprocess.Popen[Any] | None = None
        self._user = _unprivileged() if os.geteuid() == 0 else None
        if self._user is not None:
            os.chown(self.folder, self._user.pw_uid, self._user.pw_gid)

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients connect; the same after a restart."""

    @abstractmethod
    def clear(self) -> None:
        """Delete all data."""

    @abstractmethod
    def _command(self) -> Sequence[str]:
        """Return the program and its arguments."""

    @abstractmethod
    def _is_ready(self) -> bool:
        """Return whether the server carries out commands."""

    def start(self) -> None:
        """Start the server, with the data that it had, and wait until it is ready.

        Raises:
            RuntimeError: It doesn't start; its log is in the message.
        """
        for _ in range(1 if self.port else _ATTEMPTS):
            self.port = self.port or _free_port()
            with (self.folder / "log").open("ab") as log:
                self._process = self._spawn(self._command(), stdout=log)
            SERVER_IDS.add(self._process.pid)
            ends = time.monotonic() + _START_TIMEOUT
            while self._process.poll() is None and time.monotonic() < ends:
                if self._is_ready():
                    return
                time.sleep(_POLL)
            self.stop(signal.SIGKILL)
            self.port = 0
        raise RuntimeError((self.folder / "log").read_text(errors="replace"))

    def stop(self, sent: signal.Signals = signal.SIGTERM) -> None:
        """End the server by a signal; harmless if it doesn't run."""
        if self._process is not None:
            self._process.send_signal(sent)
            self._process.wait(_START_TIMEOUT)
            SERVER_IDS.discard(self._process.pid)
            self._process = None

    @property
    def is_running(self) -> bool:
        """Whether the process is alive."""
        return self._process is not None and self._process.poll() is None

    def delete(self) -> None:
        """Kill the server and remove its folder: nothing in it is worth a shutdown."""
        self.stop(signal.SIGKILL)
        shutil.rmtree(self.folder)

    def _spawn(self, command: Sequence[str], **options: Any) -> "subprocess.Popen[Any]":
        """Start a process as the unprivileged user, if this process is root."""
        if self._user is not None:
            options |= {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": ()}
        options |= {"stdin": subprocess.DEVNULL, "stderr": subprocess.STDOUT, "cwd": self.folder}
        return subprocess.Popen(command, **options)


class RedisServer(_Server):
    """A Redis server that writes nothing to the disk: a restart loses all data."""

    @property
    def url(self) -> str:
        """The URL of database 0."""
        return f"redis://127.0.0.1:{self.port}/0"

    def clear(self) -> None:
        """Delete the keys of all databases, and all loaded scripts."""
        assert self._send("FLUSHALL") == b"+OK"
        assert self._send("SCRIPT FLUSH") == b"+OK"

    def _command(self) -> Sequence[str]:
        options = {"port": str(self.port), "bind": "127.0.0.1", "save": "", "appendonly": "no"}
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        return [_program("redis-server"), *arguments, "--dir", str(self.folder)]

    def _is_ready(self) -> bool:
        with suppress(OSError):
            return self._send("PING") == b"+PONG"
        return False

    def _send(self, command: str) -> bytes:
        """Send one inline command; return the first line of its answer."""
        with closing(socket.create_connection(("127.0.0.1", self.port), 5.0)) as connection:
            connection.sendall(command.encode() + b"\r\n")
            return connection.makefile("rb").readline().rstrip()


class PostgresServer(_Server):
    """A PostgreSQL cluster of one superuser, ``postgres``, without a password.

    It syncs nothing to the disk, so that it is fast: it survives a killed process, and
    no power failure.
    """

    def start(self) -> None:
        """Start the server; the first time, make the cluster."""
        if not (self.folder / "data").exists():
            options = ("--auth=trust", "--username=postgres", "--locale=C", "--encoding=UTF8")
            command = (_program("initdb"), "--no-sync", *options, "--pgdata=data")
            initdb = self._spawn(command, stdout=subprocess.PIPE)
            output, _ = initdb.communicate()
            if initdb.returncode:
                raise RuntimeError(output.decode(errors="replace"))
        super().start()

    @property
    def url(self) -> str:
        """The URL of database ``postgres``."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def clear(self) -> None:
        """Close all connections, and drop all that tests made: schemas and what is in them."""
        import psycopg  # noqa: PLC0415 - for the tests that have a PostgreSQL server only

        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            )
            made = connection.execute(
                "SELECT format('DROP SCHEMA %I CASCADE', nspname) FROM pg_namespace"
                " WHERE nspname <> 'information_schema' AND nspname NOT LIKE 'pg\\_%'"
            ).fetchall()
            for (statement,) in made:
                connection.execute(statement)
            connection.execute("CREATE SCHEMA public")

    def _command(self) -> Sequence[str]:
        settings = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.folder),
            "fsync": "off",
            "full_page_writes": "off",
            "synchronous_commit": "off",
            "shared_buffers": "16MB",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [_program("postgres"), "-D", str(self.folder / "data"), *options]

    def _is_ready(self) -> bool:
        import psycopg  # noqa: PLC0415 - as in clear()

        with suppress(psycopg.OperationalError):
            psycopg.connect(self.url, connect_timeout=5).close()
            return True
        return False

    def stop(self, sent: signal.Signals = signal.SIGINT) -> None:
        """End the server by a signal: SIGINT doesn't wait for clients, SIGQUIT is a crash."""
        # The processes of its own that a killed one leaves behind would hold the port.
        super().stop(signal.SIGQUIT if sent is signal.SIGKILL else sent)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """The Redis server of this run, which a test may stop and start again."""
    yield from _running(RedisServer, "redis-server")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The PostgreSQL server of this run, which a test may stop and start again."""
    yield from _running(PostgresServer, "postgres", "initdb")


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The URL of a running Redis server without any data."""
    return _cleared(redis_server)


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> str:
    """The URL of a database on a running PostgreSQL server, without any table."""
    return _cleared(postgres_server)


def _running(kind: type[_S], *programs: str) -> Iterator[_S]:
    """Start a server for a fixture; skip, but never in CI, where its programs are missing."""
    missing = [name for name in programs if _find(name) is None]
    if missing and not os.environ.get("CI"):
        pytest.skip(f"{', '.join(missing)} not found on PATH")
    server = kind()
    try:
        server.start()
        yield server
    finally:
        server.delete()


def _cleared(server: _Server) -> str:
    if not server.is_running:  # the test before may have stopped it
        server.start()
    server.clear()
    return server.url


def _find(name: str) -> str | None:
    """Return the path of a program; None if it isn't installed."""
    # Debian keeps the programs of each PostgreSQL version out of the PATH.
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: path.parent.name)
    folders = [os.environ.get("PATH", os.defpath), *map(str, reversed(debian))]
    return shutil.which(name, path=os.pathsep.join(folders))


def _program(name: str) -> str:
    path = _find(name)
    if path is None:
        raise RuntimeError(f"{name} not found: install Debian's redis-server and postgresql.")
    return path


def _unprivileged() -> pwd.struct_passwd:
    """Return the user to run servers as: PostgreSQL refuses to run as root."""
    with suppress(KeyError):
        return pwd.getpwnam("postgres")
    return pwd.getpwnam("nobody")


def _free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port: int = server.getsockname()[1]
        return port
