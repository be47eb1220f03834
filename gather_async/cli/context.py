"""Arguments, client and words for errors that commands share."""

import argparse
import contextlib
import errno
import json
import logging
import math
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from gather_async.cli.output import ExitStatus, Output
from gather_async.errors import (
    AuthenticationError,
    ConfigurationError,
    GatherAPIError,
    GatherError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
)

if TYPE_CHECKING:
    from gather_async.client import GatherClient

__all__ = [
    "MissingKeyError",
    "add_common",
    "add_invite",
    "add_json",
    "add_secret",
    "check_interview",
    "chosen_proxy",
    "connect",
    "connection",
    "count",
    "format_bind_error",
    "format_error",
    "has_key",
    "host",
    "is_verbose",
    "port",
    "seconds",
    "secret_of",
    "start_log",
    "status_of",
    "url",
]


def add_common(parser: argparse.ArgumentParser, *, connects: bool = True) -> None:
    """Add the options that every command has, and those of every command that connects."""
    group = parser.add_argument_group("connection") if connects else parser
    # Suppressed, so that a command's parser doesn't undo what stood before its name.
    if connects:
        group.add_argument(
            "--base-url",
            metavar="URL",
            default=argparse.SUPPRESS,
            help="the server, instead of GATHER_BASE_URL",
        )
        group.add_argument(
            "--proxy",
            type=url,
            metavar="URL",
            default=argparse.SUPPRESS,
            help="the HTTP proxy to go through, instead of HTTPS_PROXY",
        )
        group.add_argument(
            "--allow-insecure",
            action="store_true",
            default=argparse.SUPPRESS,
            help="let the key go by http:// to another machine",
        )
    parser.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        default=argparse.SUPPRESS,
        help="log requests, retries and waits to standard error, as GATHER_LOG=debug does",
    )


def add_json(parser: argparse.ArgumentParser, help: str) -> None:
    """Add the option that makes a command print JSON."""
    parser.add_argument("--json", action="store_true", help=help)


def add_invite(parser: argparse.ArgumentParser) -> None:
    """Add the options of an invite."""
    parser.add_argument(
        "--interview", required=True, metavar="ID", help="the interview to invite to"
    )
    parser.add_argument(
        "--via", type=_ways, default=["email"], metavar="email,sms", help="email by default"
    )
    parser.add_argument(
        "--expiry-days", type=count(1), metavar="N", help="days until the link dies"
    )
    parser.add_argument(
        "--redirect-uri", type=url, metavar="URL", help="where candidates land afterwards"
    )


def _ways(text: str) -> list[str]:
    ways = list(dict.fromkeys(word.strip().lower() for word in text.split(",")))
    if not set(ways) <= {"email", "sms"}:
        raise argparse.ArgumentTypeError("choose email, sms or email,sms")
    return ways


def add_secret(parser: argparse.ArgumentParser) -> None:
    """Add the option that names the secret."""
    parser.add_argument(
        "--secret",
        metavar="SECRET",
        help="the webhook secret; better kept in GATHER_WEBHOOK_SECRET,"
        " as other users of the machine can read arguments",
    )


def secret_of(options: argparse.Namespace) -> str:
    """Return the secret of the option or the environment.

    Raises:
        ConfigurationError: There is none.
    """
    secret = options.secret or os.environ.get("GATHER_WEBHOOK_SECRET", "")
    if not secret.strip():
        raise ConfigurationError("There is no secret: set GATHER_WEBHOOK_SECRET or pass --secret.")
    return str(secret)


def count(least: int) -> Callable[[str], int]:
    """Return the type of a whole number, from ``least``."""

    def read(text: str) -> int:
        # As many digits as no count has: longer ones would take time, or raise.
        if not (text.isdecimal() and len(text) < 10) or int(text) < least:
            raise argparse.ArgumentTypeError(f"take a number from {least}")
        return int(text)

    return read


def seconds(text: str) -> float:
    """Return a number of seconds, 0 or more."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError("take a number of seconds, 0 or more")
    return number


def port(text: str) -> int:
    """Return a port's number."""
    if not (text.isdecimal() and len(text) < 6 and int(text) < 65_536):
        raise argparse.ArgumentTypeError("take a number from 0 to 65535")
    return int(text)


def host(text: str) -> str:
    """Return a name or address of this machine; an IPv6 address may stand in brackets."""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if not bare or set(bare) & set("/[] "):  # an empty one would be every address
        raise argparse.ArgumentTypeError("take an address or a name, such as 127.0.0.1 or ::1")
    return bare


def format_bind_error(host: str, port: int, error: OSError) -> str:
    """Return why an address can't be listened on, and the option to change."""
    what = "--port" if error.errno in {errno.EADDRINUSE, errno.EACCES} else "--host"
    shown = f"[{host}]" if ":" in host else host
    # asyncio's own words repeat the address; those of the resolver have no number of errno.
    number = error.errno or 0
    why = os.strerror(number) if number > 0 else error.strerror or error
    return f"{shown}, port {port}, can't be used: {why}. Choose another {what}."


def url(text: str) -> str:
    """Return an address that a request can be sent to."""
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no address: {error}") from None
    if parts.scheme not in {"http", "https"}:
        raise argparse.ArgumentTypeError("the address must start with http:// or https://")
    if not host or not text.isprintable() or " " in text:
        raise argparse.ArgumentTypeError(
            f"{text!r} names no host: an address is like http://127.0.0.1:8080/"
        )
    return text


class MissingKeyError(ConfigurationError):
    """There is no API key in the environment."""


_LONG = 30


def format_error(error: GatherError) -> str:
    """Return what happened and what to do, with the id that the vendor's support asks for."""
    # What is an argument in Python is an option here, and the details follow.
    text = str(error).replace("allow_insecure=True", "--allow-insecure")
    text = text.replace(": `.details` may name the field.", ".")
    lines = [text, *getattr(error, "__notes__", ())]
    if isinstance(error, GatherAPIError):
        # A long text stands in the message already, such as a list of the words allowed.
        shown = {
            name: value
            for name, value in error.details.items()
            if not (isinstance(value, str) and len(value) > _LONG and value in text)
        }
        if shown:
            # Loaded by now, as the error comes from there.
            from gather_async.protocol.api_errors import publishable  # noqa: PLC0415

            details = publishable(json.dumps(shown, default=str))
            lines.append(f"The server's details: {details}")
        if error.request_id:
            lines.append(f"For the vendor's support: request id {error.request_id}.")
    return "\n".join(lines)


def status_of(error: GatherError) -> ExitStatus:
    """Return the exit status of a kind of error, for scripts."""
    match error:
        case AuthenticationError() | PermissionDeniedError() | MissingKeyError():
            return ExitStatus.AUTHENTICATION
        case ConfigurationError() | InvalidRequestError():
            return ExitStatus.USAGE
        case _:
            return ExitStatus.FAILURE


def has_key() -> bool:
    """Return whether the environment has an API key."""
    return bool(os.environ.get("GATHER_API_KEY", "").strip())


def connection(options: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of `connect` that the command line names; the rest is absent.

    Raises:
        ConfigurationError: The address is empty, as that of an unset variable, which must not
            become the default server.
    """
    given = vars(options)
    if not given.get("base_url", "given").strip():
        raise ConfigurationError("--base-url is empty: name a server.")
    return {name: given[name] for name in ("base_url", "allow_insecure") if name in given}


@contextlib.contextmanager
def chosen_proxy(options: argparse.Namespace) -> Iterator[None]:
    """Put ``--proxy`` where clients look for one, for as long as a command runs.

    Raises:
        ConfigurationError: The server is one that is always reached directly.
    """
    proxy = getattr(options, "proxy", None)
    if proxy is None:
        yield
        return
    from gather_async.settings import PRODUCTION, proxy_for  # noqa: PLC0415 - it needs aiohttp

    # Lower case, which wins; what was asked for here is to be used whatever NO_PROXY says.
    names = {"https_proxy": proxy, "no_proxy": ""}
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    try:
        server = getattr(options, "base_url", None) or os.environ.get("GATHER_BASE_URL")
        if proxy_for(server or PRODUCTION, trust_env=True, lent=None) is None:
            raise ConfigurationError(
                "--proxy can't be used with this server: http:// and loopback are reached directly."
            )
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def connect(**options: Any) -> "GatherClient":
    """Return a client for the key in the environment.

    The key is never taken from the command line, where other users of the
    machine and the shell's history could read it.

    Raises:
        MissingKeyError: There is none.
        ConfigurationError: The key or the server's address can't be used.
    """
    if not has_key():
        raise MissingKeyError(
            "There is no API key: set GATHER_API_KEY. To try things out without one,"
            " run `gather-async fake-server`."
        )
    from gather_async.client import GatherClient  # noqa: PLC0415 - `--version` needs no aiohttp

    return GatherClient(**options)


async def check_interview(gather: "GatherClient", id: str) -> None:
    """Make sure that an interview exists, before anything is done for it; costs one request.

    Raises:
        InvalidRequestError: It doesn't, so that the command can't be run as it was written.
        GatherError: Whatever else reading it raises.
    """
    try:
        await gather.interviews.get(id)
    except NotFoundError:
        raise InvalidRequestError(f"There is no interview {id}.") from None


def is_verbose(options: argparse.Namespace | None) -> bool:
    """Return whether the options, or ``GATHER_LOG``, ask for a log."""
    return getattr(options, "verbose", False) or bool(os.environ.get("GATHER_LOG", "").strip())


@contextlib.contextmanager
def start_log(options: argparse.Namespace, output: Output) -> Iterator[None]:
    """Write the package's log to standard error while a command runs, if that is asked for."""
    if not is_verbose(options):
        yield
        return
    from gather_async.observability import log_level  # noqa: PLC0415 - see `connect`

    level = logging.DEBUG if getattr(options, "verbose", False) else log_level()
    logger, handler = logging.getLogger("gather_async"), _LogLines(output)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(level or logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


class _LogLines(logging.Handler):
    """Records as lines of standard error, above what is drawn there."""

    def __init__(self, output: Output) -> None:
        super().__init__()
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        if not sys.is_finalizing():
            self._output.info(self.format(record), style="dim")
