"""``doctor``: check key, server, quota and clock."""

import argparse
import asyncio
import os
import platform
import ssl
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal
from urllib.parse import urlsplit

import aiohttp
from attrs import frozen

from gather_async.cli.context import connect, format_error, has_key, status_of
from gather_async.cli.output import ExitStatus, Output
from gather_async.errors import ConfigurationError, GatherError
from gather_async.settings import PRODUCTION, proxy_for, validate_base_url
from gather_async.version import __version__

__all__ = ["add_to"]

Mark = Literal["ok", "warning", "FAILED"]
_STYLES: dict[Mark, str] = {"ok": "green", "warning": "yellow", "FAILED": "bold red"}
_PACKAGES = ("aiohttp", "attrs", "cattrs", "phonenumbers", "rich")
# Half of what webhook signatures tolerate by default.
_MOST_SKEW = 150.0


@frozen
class _Finding:
    """Result of one check."""

    mark: Mark
    subject: str
    text: str
    status: ExitStatus = ExitStatus.OK


def add_to(commands: Any) -> None:
    """Add the command to the program."""
    parser = commands.add_parser(
        "doctor",
        help="check the environment, the key and the connection",
        description="Check the environment and make one harmless request (the narrators).",
        allow_abbrev=False,
    )
    parser.set_defaults(command=_run)


def _run(options: argparse.Namespace, output: Output) -> int:
    del options
    worst = ExitStatus.OK
    for finding in (*_environment(), *asyncio.run(_connection())):
        output.print(
            f"{finding.mark:<8} {finding.subject:<12} {finding.text}", style=_STYLES[finding.mark]
        )
        worst = max(worst, finding.status)
    return worst


def _environment() -> Iterator[_Finding]:
    """Check what needs no network."""
    packages = ", ".join(f"{name} {_version_of(name)}" for name in _PACKAGES)
    yield _Finding("ok", "version", f"gather-async {__version__}, {packages}")
    system = f"Python {platform.python_version()} on {platform.system()}, {ssl.OPENSSL_VERSION}"
    yield _Finding("ok", "python", system)
    if not has_key():
        yield _Finding("FAILED", "key", "GATHER_API_KEY is not set.", ExitStatus.AUTHENTICATION)
    elif not os.environ["GATHER_API_KEY"].startswith("qapi_"):
        # Contradictions in the documentation: keys may come as id:key, so this is no failure.
        yield _Finding("warning", "key", "GATHER_API_KEY doesn't start with qapi_, as keys do.")
    else:
        yield _Finding("ok", "key", "GATHER_API_KEY is set.")
    yield from _route()


def _version_of(package: str) -> str:
    """Return a package's version; programs that were frozen have lost theirs."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "of unknown version"


def _route() -> Iterator[_Finding]:
    """Show the server, the proxy on the way to it, and what certificates are checked with."""
    try:
        url = validate_base_url(os.environ.get("GATHER_BASE_URL") or PRODUCTION)
        proxy = proxy_for(url, trust_env=True, lent=None)
    except ConfigurationError as error:
        yield _Finding("FAILED", "settings", str(error), ExitStatus.USAGE)
        return
    yield _Finding("ok", "server", url)
    # A proxy's address may hold a password.
    through = "none on the way to the server"
    if proxy is not None:
        shown = urlsplit(proxy)._replace(netloc=urlsplit(proxy).netloc.rpartition("@")[2])
        through = f"{shown.geturl()}, from the environment"
    yield _Finding("ok", "proxy", through)
    paths = ssl.get_default_verify_paths()
    trusted = os.environ.get("SSL_CERT_FILE") or paths.cafile or paths.capath or "none found"
    yield _Finding("ok", "CA", f"certificates are checked with {trusted}")


async def _connection() -> list[_Finding]:
    """Check the key and the connection with one request."""
    if not has_key():
        return []
    dates: list[str] = []
    trace = aiohttp.TraceConfig()

    async def keep_date(_: object, __: object, ended: aiohttp.TraceRequestEndParams) -> None:
        dates.append(ended.response.headers.get("Date", ""))

    trace.on_request_end.append(keep_date)
    try:
        async with connect(trace_configs=[trace], timeout=10.0) as gather:
            start = time.monotonic()
            await gather.request("GET", "/qsi/gather/narrators")
            took = time.monotonic() - start
            status = gather.rate_limit_status
    except GatherError as error:
        subject = "settings" if isinstance(error, ConfigurationError) else "request"
        return [
            _Finding("FAILED", subject, format_error(error), status_of(error)),
            *_clock(dates, time.time()),
        ]
    windows = ", ".join(
        f"{window.remaining} of {window.limit} in {window.period:.0f} s"
        for window in status.windows
    )
    return [
        _Finding("ok", "request", f"the server took the key and answered in {took * 1e3:.0f} ms"),
        _Finding("ok", "quota", f"left: {windows}"),
        *_clock(dates, time.time()),
    ]


def _clock(dates: list[str], now: float) -> Iterator[_Finding]:
    """Compare this machine's clock with the server's: webhook signatures carry a time."""
    try:
        skew = now - parsedate_to_datetime(dates[-1]).timestamp()
    except (IndexError, ValueError, TypeError):
        return
    if abs(skew) > _MOST_SKEW:
        text = f"this machine is {skew:+.0f} s off: webhooks will be refused as too old or too new."
        yield _Finding("warning", "clock", text)
    else:
        yield _Finding("ok", "clock", f"within {_MOST_SKEW:.0f} s of the server's")
