"""Spans and metrics through OpenTelemetry's API. Extra: ``gather-async[otel]``.

What is exported, and where to, is up to the SDK that the program sets up. Names follow the
semantic conventions where they have one; ours begin with ``gather.``. No attribute holds an
id, a body or a person: instead of ``url.full`` there is ``url.template``.

Source: https://opentelemetry.io/docs/specs/semconv/http/
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary, WeakSet, ref

from attrs import define, field

from gather_async.client import GatherClient
from gather_async.errors import ConfigurationError
from gather_async.models.rate_limit import QueueStatus
from gather_async.observability import (
    CallFailed,
    CallSucceeded,
    ClientEvent,
    EventListeners,
    RequestStarted,
    ResponseReceived,
    RetryScheduled,
)
from gather_async.pool import GatherPool
from gather_async.version import __version__
from gather_async.webhooks import HandlerEnded, WebhookReceiver

try:
    from opentelemetry import context, metrics, trace
except ImportError as _missing:  # pragma: no cover - the tests have the extra
    raise ConfigurationError(
        "gather_async.otel needs OpenTelemetry's API: pip install 'gather-async[otel]'"
    ) from _missing

__all__ = ["instrument", "uninstrument"]

_LOG = logging.getLogger("gather_async.otel")

Target: TypeAlias = GatherClient | GatherPool | WebhookReceiver
Attributes: TypeAlias = Mapping[str, str | int | float]

# Seconds. Source: semantic conventions, http.client.request.duration; the SDK's own default
# has milliseconds in mind.
_REQUEST_BUCKETS: Final = (
    *(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25),
    *(0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
)
# Seconds; waits for quota, and with them calls, last up to the longest window, an hour.
_WAIT_BUCKETS: Final = (0.01, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})
_OTHER: Final = "_OTHER"  # by the conventions: what is unknown, so that series stay few


def instrument(
    target: Target,
    *,
    tracer_provider: trace.TracerProvider | None = None,
    meter_provider: metrics.MeterProvider | None = None,
) -> None:
    """Make spans and metrics of all that a client, a pool or a webhook receiver does from now on.

    Views of a client, and the clients of a pool, are instrumented with it. What is
    instrumented already stays as it is. A span is current while its call runs, so that those
    of an instrumented aiohttp are below it.

    Args:
        target: A client or a pool: a span for each call, and the metrics of calls and quota.
            A receiver: the metric of its lag.
        tracer_provider: Where spans go; None: the global one.
        meter_provider: Where metrics go; None: the global one.

    Raises:
        ConfigurationError: It is none of the three.
    """
    if not isinstance(target, GatherClient | GatherPool | WebhookReceiver):
        kind = type(target).__name__
        raise ConfigurationError(
            f"instrument() takes a GatherClient, GatherPool or WebhookReceiver, not {kind}."
        )
    key = _key(target)
    if key in _STOPS:
        _LOG.warning("%r is instrumented already", target)
        return
    provider = meter_provider or metrics.get_meter_provider()
    instruments = _INSTRUMENTS.get(provider)
    if instruments is None:
        instruments = _INSTRUMENTS[provider] = _Instruments(
            metrics.get_meter("gather_async", __version__, meter_provider)
        )
    if isinstance(target, WebhookReceiver):
        _STOPS[key] = target.run_events.subscribe(instruments.record_run)
        return
    tracer = trace.get_tracer("gather_async", __version__, tracer_provider)
    calls = _Calls(tracer, instruments, _server(target.base_url), _queue_of(target))
    calls.unsubscribe = target.call_events.subscribe(calls)
    instruments.watched.add(calls)
    _STOPS[key] = calls.stop


def uninstrument(target: Target) -> None:
    """End what `instrument` began, once the calls under way have ended; harmless to repeat."""
    stop = _STOPS.pop(_key(target), None)
    if stop is not None:
        stop()


def _key(target: Target) -> EventListeners[ClientEvent] | EventListeners[HandlerEnded]:
    """Return what a client shares with its views, and a pool with its clients."""
    return target.run_events if isinstance(target, WebhookReceiver) else target.call_events


def _queue_of(target: GatherClient | GatherPool) -> Callable[[], Iterable[QueueStatus]]:
    """Return what gives the calls that wait for each limiter, without keeping a pool alive."""
    if isinstance(target, GatherClient):
        limiter = target.limiter
        return lambda: [limiter.status().queued]
    pool = ref(target)

    def queues() -> Iterable[QueueStatus]:
        found = pool()
        return [] if found is None else [each.rate_limit_status.queued for each in found.clients]

    return queues


def _server(base_url: str) -> Attributes:
    url = urlsplit(base_url)
    port = url.port or (443 if url.scheme == "https" else 80)
    return {"server.address": url.hostname or "", "server.port": port}


def _requested(event: ClientEvent) -> dict[str, str | int | float]:
    """Return the attributes of what a call requests."""
    method = event.method if event.method in _METHODS else _OTHER
    found: dict[str, str | int | float] = {"http.request.method": method}
    if event.operation != "request":  # else the path is of a shape that isn't known
        found["url.template"] = event.route
    return found


class _Instruments:
    """The metrics of one meter provider."""

    def __init__(self, meter: metrics.Meter) -> None:
        self.watched: WeakSet[_Calls] = WeakSet()
        self.request_duration = meter.create_histogram(
            "http.client.request.duration",
            unit="s",
            description="Duration of HTTP client requests.",
            explicit_bucket_boundaries_advisory=_REQUEST_BUCKETS,
        )
        self.call_duration = meter.create_histogram(
            "gather.client.call.duration",
            unit="s",
            description="Duration of calls, with their waits for quota, retries and pauses.",
            explicit_bucket_boundaries_advisory=_WAIT_BUCKETS,
        )
        self.quota_wait = meter.create_histogram(
            "gather.client.quota.wait_time",
            unit="s",
            description="Time that calls waited for quota.",
            explicit_bucket_boundaries_advisory=_WAIT_BUCKETS,
        )
        self.refusals = meter.create_counter(
            "gather.client.rate_limited",
            unit="{response}",
            description="Responses that refused a request because the quota is used up (429).",
        )
        meter.create_observable_gauge(
            "gather.client.queue.length",
            callbacks=[self._queue_lengths],
            unit="{call}",
            description="Calls that wait for quota.",
        )
        self.webhook_lag = meter.create_histogram(
            "gather.webhook.lag",
            unit="s",
            description="Time from the receipt of a webhook event to the begin of its handler.",
            explicit_bucket_boundaries_advisory=_WAIT_BUCKETS,
        )

    def record_run(self, run: HandlerEnded) -> None:
        """Record how long the event of a handler's run had waited for it."""
        attributes = {"gather.webhook.event": run.event, "gather.webhook.handler": run.handler}
        self.webhook_lag.record(run.lag, attributes)

    def _queue_lengths(self, _: metrics.CallbackOptions) -> Iterable[metrics.Observation]:
        """Return the calls that wait, of all that is instrumented: a series has one value."""
        lengths: Counter[tuple[str, frozenset[tuple[str, str | int | float]]]] = Counter()
        for calls in tuple(self.watched):  # clients may come and go in other threads
            server = frozenset(calls.server.items())
            for queue in calls.queues():
                lengths["interactive", server] += queue.interactive
                lengths["bulk", server] += queue.bulk
        for (priority, server), length in lengths.items():
            yield metrics.Observation(length, {**dict(server), "gather.priority": priority})


@define(eq=False)
class _Span:
    """The span of a call under way."""

    span: trace.Span
    token: Any
    network: float = 0.0
    """Seconds of the requests that are recorded."""
    is_request_open: bool = False


@define(eq=False)
class _Calls:
    """Listener to the calls of one client or pool."""

    tracer: trace.Tracer
    instruments: _Instruments
    server: Attributes
    queues: Callable[[], Iterable[QueueStatus]]
    unsubscribe: Callable[[], None] | None = None
    _open: dict[int, _Span] = field(factory=dict)
    _is_stopping: bool = False

    def __call__(self, event: ClientEvent) -> None:
        """Record an event."""
        call = self._open.get(event.call)
        if call is None:
            if self._is_stopping:
                return
            call = self._open[event.call] = self._begin(event)
        if call.is_request_open and not isinstance(event, ResponseReceived):
            self._end_request(call, event, getattr(event, "error", _OTHER))
        if isinstance(event, RequestStarted):
            call.is_request_open = True
        elif isinstance(event, ResponseReceived):
            self._end_request(call, event, None)
        elif isinstance(event, RetryScheduled):
            call.span.add_event(
                "gather.retry", {"error.type": event.error, "gather.retry.wait_time": event.wait}
            )
        elif isinstance(event, CallSucceeded | CallFailed):
            self._end(call, event)

    def _begin(self, event: ClientEvent) -> _Span:
        requested = _requested(event)
        name = " ".join(
            str(requested[each])
            for each in ("http.request.method", "url.template")
            if requested.get(each, _OTHER) != _OTHER
        )
        elapsed = event.quota_wait + event.backoff + event.network
        span = self.tracer.start_span(
            name or "HTTP",
            kind=trace.SpanKind.CLIENT,
            attributes={**requested, **self.server, "gather.operation": event.operation},
            start_time=time.time_ns() - int(elapsed * 1e9),  # a wait for quota came before
        )
        return _Span(span, context.attach(trace.set_span_in_context(span)))

    def _end_request(self, call: _Span, event: ClientEvent, error: str | None) -> None:
        """Record one request; an error: no response came."""
        attributes = {**_requested(event), **self.server}
        if event.status is not None:
            attributes["http.response.status_code"] = event.status
            error = str(event.status) if event.status >= 400 else None
        if error is not None:
            attributes["error.type"] = error
        self.instruments.request_duration.record(event.network - call.network, attributes)
        if event.status == 429:
            self.instruments.refusals.add(1, {**_requested(event), **self.server})
        call.network, call.is_request_open = event.network, False

    def _end(self, call: _Span, event: CallSucceeded | CallFailed) -> None:
        error = event.error if isinstance(event, CallFailed) else None
        attributes = {"gather.operation": event.operation, **self.server}
        if error is not None:
            attributes["error.type"] = error
        elapsed = event.quota_wait + event.backoff + event.network
        self.instruments.call_duration.record(elapsed, attributes)
        self.instruments.quota_wait.record(event.quota_wait, attributes)
        span = call.span
        span.set_attribute("gather.quota.wait_time", event.quota_wait)
        span.set_attribute("gather.retry.wait_time", event.backoff)
        if event.status is not None:
            span.set_attribute("http.response.status_code", event.status)
        if event.attempt > 1:
            span.set_attribute("http.request.resend_count", event.attempt - 1)
        if event.request_id is not None:
            span.set_attribute("gather.request_id", event.request_id)
        if error is not None:
            span.set_attribute("error.type", error)
            span.set_status(trace.StatusCode.ERROR)
        span.end()
        if error != "GeneratorExit":  # the loop is gone, and its contexts with it
            context.detach(call.token)
        del self._open[event.call]
        if self._is_stopping:
            self.stop()

    def stop(self) -> None:
        """Unsubscribe, once the calls under way have ended: their spans are current till then."""
        self._is_stopping = True
        self.instruments.watched.discard(self)
        if not self._open and self.unsubscribe is not None:
            self.unsubscribe()


_INSTRUMENTS: WeakKeyDictionary[metrics.MeterProvider, _Instruments] = WeakKeyDictionary()
_STOPS: WeakKeyDictionary[
    EventListeners[ClientEvent] | EventListeners[HandlerEnded], Callable[[], None]
] = WeakKeyDictionary()
