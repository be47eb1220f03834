"""``doctor``: check key, server, quota and clock, and describe the server with ``--probe``."""

import argparse
import asyncio
import functools
import json
import math
import os
import platform
import re
import ssl
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import aiohttp
from attrs import frozen

from gather_async.cli.context import (
    add_common,
    add_json,
    connect,
    connection,
    format_error,
    has_key,
    status_of,
)
from gather_async.cli.output import ExitStatus, Output
from gather_async.client import GatherClient
from gather_async.errors import ConfigurationError, GatherAPIError, GatherError
from gather_async.protocol.api_errors import publishable
from gather_async.protocol.retry import RetryPolicy
from gather_async.settings import default_base_url, proxy_for, validate_base_url
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
    parser.add_argument(
        "--probe",
        nargs="?",
        const="gather-probe.json",
        metavar="FILE",
        help="also read a little of each resource, and write what the server does where the"
        " documentation is silent, without personal data; gather-probe.json by default",
    )
    add_json(parser, "one JSON object for each check")
    add_common(parser)
    parser.set_defaults(command=_run)


def _run(options: argparse.Namespace, output: Output) -> int:
    worst = ExitStatus.OK
    findings = list(_environment(options))
    if all(each.subject != "settings" for each in findings):  # else there is no server to ask
        findings += asyncio.run(_connection(options))
    for finding in findings:
        worst = max(worst, finding.status)
        if options.json:
            shown = {"mark": finding.mark, "subject": finding.subject, "text": finding.text}
            output.json(shown)
            continue
        output.print(
            f"{finding.mark:<8} {finding.subject:<12} {finding.text}", style=_STYLES[finding.mark]
        )
    return worst


def _environment(options: argparse.Namespace) -> Iterator[_Finding]:
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
    yield from _route(options)


def _version_of(package: str) -> str:
    """Return a package's version; programs that were frozen have lost theirs."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "of unknown version"


def _route(options: argparse.Namespace) -> Iterator[_Finding]:
    """Show the server, the proxy on the way to it, and what certificates are checked with."""
    try:
        given = connection(options)
        url = given.get("base_url") or default_base_url()
        url = validate_base_url(url, allow_insecure=given.get("allow_insecure", False))
        proxy = proxy_for(url, trust_env=True, lent=None)
    except ConfigurationError as error:
        yield _Finding("FAILED", "settings", str(error), ExitStatus.USAGE)
        return
    yield _Finding("ok", "server", url)
    # A proxy's address may hold a password.
    through = "none on the way to the server"
    if proxy is not None:
        shown = urlsplit(proxy)._replace(netloc=urlsplit(proxy).netloc.rpartition("@")[2])
        source = "the environment" if getattr(options, "proxy", None) is None else "--proxy"
        through = f"{shown.geturl()}, from {source}"
    yield _Finding("ok", "proxy", through)
    paths = ssl.get_default_verify_paths()
    named = os.environ.get(paths.openssl_cafile_env)
    trusted = named or paths.cafile or paths.capath
    if trusted is None or not Path(trusted).exists():
        text = f"{named} doesn't exist" if named else "this machine has no certificates to trust"
        yield _Finding(
            "warning", "CA", f"{text}: set {paths.openssl_cafile_env} to a file of them."
        )
    else:
        yield _Finding("ok", "CA", f"certificates are checked with {trusted}")


async def _connection(options: argparse.Namespace) -> list[_Finding]:
    """Check the key and the connection with one request."""
    if not has_key():
        return []
    dates: list[str] = []
    trace = aiohttp.TraceConfig()

    async def keep_date(_: object, __: object, ended: aiohttp.TraceRequestEndParams) -> None:
        dates.append(ended.response.headers.get("Date", ""))

    trace.on_request_end.append(keep_date)
    try:
        async with connect(trace_configs=[trace], timeout=10.0, **connection(options)) as gather:
            start = time.monotonic()
            await gather.request("GET", "/qsi/gather/narrators")
            took = time.monotonic() - start
            status = gather.rate_limit_status
            probed = [] if options.probe is None else [await _probe(gather, options.probe)]
    except GatherError as error:
        return [
            _Finding("FAILED", "request", format_error(error), status_of(error)),
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
        *probed,
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
        # The server's date has whole seconds.
        yield _Finding("ok", "clock", f"{abs(skew):.0f} s off the server's, to within a second")


# The lists, and the documented parameter of a page's size. Source: /api-reference
_LISTS = {
    "narrators": None,
    "message-groups": None,
    "teams": None,
    "users": None,
    "questions": None,
    "interviews": "limit",
    "candidates": "pageSize",
    "candidate-interviews": "limit",
}
_SINGLE = frozenset(_LISTS) - {"teams", "users"}
# How many candidate interviews' results are read: one of each status that is seen.
_RESULTS = 5
# Fields whose words are the server's own, and those of the rate limits' headers.
_WORDS = re.compile(r"(.*[sS]tatus|type|.*Type|deliveryTypes|code|success)\Z")
_COUNTS = frozenset({"page", "pageSize", "limit", "total", "totalPages", "remaining"})
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}\Z")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}\Z")
_HEADERS = re.compile(r"x-ratelimit-.*|retry-after|content-type\Z")
# What links say of their own life. Source: the signed URLs of S3 and of Google's storage
_LIFE = re.compile(r"[?&](?:X-Amz-Expires|X-Goog-Expires)=(\d{1,7})(?:&|\Z)")
_SCALES = (1, 5, 10, 100, 1000)
_KINDS = {
    "id": re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z", re.IGNORECASE),
    "date": re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+(Z|[+-]\d\d:?\d\d)\Z"),
    "URL": re.compile(r"https?://"),
    "empty text": re.compile(r"\Z"),
}


async def _probe(client: GatherClient, file: str) -> _Finding:
    """Read a little of everything, and write down what came, all values left out."""
    gather = client.with_options(retry=RetryPolicy(attempts=1), priority="bulk")
    seen: list[Mapping[str, Any]] = []
    found: list[Mapping[str, Any]] = []

    async def read(path: str, **params: Any) -> Any:
        body, record = await _read(gather, path, params)
        seen.append(record)
        return body

    for name, size in _LISTS.items():
        found = _items(await read(f"/qsi/gather/{name}"))
        if size is not None:
            await read(f"/qsi/gather/{name}", **{size: 2})
            await read(f"/qsi/gather/{name}", **{size: "many"})  # refused, maybe: what a 400 is
        if name in _SINGLE:
            first = next((each["id"] for each in found if isinstance(each.get("id"), str)), None)
            for each in filter(None, (first, str(uuid.uuid4()))):  # the second one is a 404
                await read(f"/qsi/gather/{name}/{each}")
    await read("/qsi/gather/narrators", unknown="1")  # refused or ignored
    links = {str(each.get("status")): each.get("id") for each in found}  # the last list's
    for link in list(links.values())[:_RESULTS]:
        await read(f"/qsi/gather/candidate-interviews/{link}/results")
    report = {"gather_async": __version__, "base_url": client.base_url, "responses": seen}
    return _written(report, Path(file))


def _written(report: Mapping[str, Any], file: Path) -> _Finding:
    try:
        file.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        text = f"{file} can't be written: {error.strerror}"
        return _Finding("FAILED", "probe", text, ExitStatus.FAILURE)
    text = f"{file} has {len(report['responses'])} responses, without personal data"
    return _Finding("ok", "probe", text)


async def _read(
    gather: GatherClient, path: str, params: Mapping[str, Any]
) -> tuple[Any, Mapping[str, Any]]:
    """Return a response's JSON, and what may be published of the response."""
    record: dict[str, Any] = {"path": _without_ids(path), "query": dict(params)}
    start = time.monotonic()
    try:
        response = await gather.request("GET", path, params=params, raw=True)
        status, headers, text = response.status, response.headers, response.body.decode()
    except GatherAPIError as error:
        status, headers, text = error.status, error.headers, error.body
        record["message"] = publishable(_without_ids(error.message))
    except (GatherError, UnicodeDecodeError) as error:
        return None, record | {"failure": type(error).__name__}
    names = {name.lower(): value for name, value in headers.items()}
    record |= {
        "status": status,
        "milliseconds": round((time.monotonic() - start) * 1e3),
        "seconds_of_minute": round(time.time() % 60),
        "headers": {each: names[each] for each in sorted(names) if _HEADERS.match(each)},
        "other_headers": sorted(each for each in names if not _HEADERS.match(each)),
    }
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return None, record | {"body": "no JSON"}
    return body, record | {"body": _shape(body), "sorted_by": _order(_items(body))}


def _without_ids(text: str) -> str:
    return re.sub(r"[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}|(?<=/gather/)([\w-]+/)[^/]+", r"\1ID", text)


def _items(body: Any) -> list[Mapping[str, Any]]:
    """Return the objects of a list, whatever its envelope is."""
    while isinstance(body, dict):
        body = body.get("data") or next((each for each in body.values() if _is_list(each)), None)
    return [each for each in body if isinstance(each, dict)] if isinstance(body, list) else []


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and bool(value)


def _order(items: Sequence[Mapping[str, Any]]) -> Sequence[str]:
    """Return the dates by which the items of a list are in order, and in which."""
    found = []
    for name in ("createdAt", "updatedAt"):
        dates = [str(each.get(name)) for each in items]
        if len(set(dates)) > 1 and dates in (sorted(dates), sorted(dates, reverse=True)):
            found.append(f"{name}, {'oldest' if dates[0] < dates[-1] else 'newest'} first")
    return found


def _shape(value: Any, name: str = "", depth: int = 0) -> Any:
    """Return a JSON value's form: names, kinds and numbers of items, but words of the API alone."""
    if depth > 12:  # deeper than any document of this API
        return "..."
    if isinstance(value, dict):
        parts: dict[str, Any] = {}
        for key, each in value.items():
            # A name that isn't one, such as a question's title, may be anything.
            known = key if _NAME.match(key) else "*"
            shape = _shape(each, known, depth + 1)
            parts[known] = _merged(parts[known], shape) if known in parts else shape
        return parts
    if isinstance(value, list):
        shapes = (_shape(each, name, depth + 1) for each in value)
        return {"items": len(value), "each": functools.reduce(_merged, shapes, "")}
    return _kind(value, name)


def _kind(value: Any, name: str) -> str:
    if value is None:
        return "null"
    if _WORDS.match(name) and (isinstance(value, int) or _WORD.match(str(value))):
        return f"word {value}"
    if isinstance(value, str):
        return _kind_of_text(value, name)
    if isinstance(value, bool) or not math.isfinite(value):
        return type(value).__name__
    if isinstance(value, int) and name in _COUNTS:
        return f"number {value}"
    is_score = "score" in name.lower()
    scale = next((each for each in _SCALES if abs(value) <= each), None) if is_score else None
    return f"{type(value).__name__}{'' if scale is None else f' of a scale to {scale}'}"


def _kind_of_text(value: str, name: str) -> str:
    kind = next((kind for kind, form in _KINDS.items() if form.match(value)), "text")
    if kind == "URL" and (life := _LIFE.search(value)):
        return f"URL that lives {life[1]} s"
    if kind == "text" and name.lower().endswith("id"):
        letters = "digits" if value.isdigit() else "characters"
        return f"id of {len(value)} {letters}"
    return kind


def _merged(one: Any, other: Any) -> Any:
    """Return the form of two items of a list: alternatives apart by bars."""
    if isinstance(one, dict) and isinstance(other, dict):
        names: Iterable[str] = dict.fromkeys((*one, *other))
        return {each: _merged(one.get(each, "absent"), other.get(each, "absent")) for each in names}
    if isinstance(one, dict) or isinstance(other, dict):
        form, word = (one, other) if isinstance(one, dict) else (other, one)
        return form if not word else {**form, "|": _merged(form.get("|", ""), word)}
    if isinstance(one, int) and isinstance(other, int):
        return max(one, other)  # the items of lists
    kinds = sorted({*str(one).split(" | "), *str(other).split(" | ")} - {""})
    return " | ".join(kinds)
