"""Spans and metrics, through the SDK's in-memory exporter and reader."""

import asyncio
import gc
import math
import weakref
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import url_attributes
from opentelemetry.semconv.attributes import error_attributes, http_attributes, server_attributes
from opentelemetry.semconv.metrics.http_metrics import HTTP_CLIENT_REQUEST_DURATION

from gather_async import (
    ConfigurationError,
    GatherClient,
    GatherConnectionError,
    GatherPool,
    NotFoundError,
    RateLimit,
)
from gather_async.otel import instrument, uninstrument
from gather_async.testing import FakeGather, VirtualClock
from gather_async.webhooks import WebhookEvent, WebhookReceiver, sample_body, sign

SECRET = "s3cret"


class Telemetry:
    """What was exported."""

    def __init__(self) -> None:
        self._spans, self._metrics = InMemorySpanExporter(), InMemoryMetricReader()
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self.meters = MeterProvider([self._metrics], shutdown_on_exit=False)
        self.tracer = self.tracers.get_tracer("test")

    def instrument(self, target: GatherClient | GatherPool | WebhookReceiver) -> None:
        """Send what the target does here."""
        instrument(target, tracer_provider=self.tracers, meter_provider=self.meters)

    def spans(self) -> list[ReadableSpan]:
        """Return the spans that have ended, in that order."""
        return list(self._spans.get_finished_spans())

    def points(self, name: str) -> list[tuple[dict[str, Any], Any]]:
        """Return the attributes and the point of each series of one metric."""
        data = self._metrics.get_metrics_data()
        scopes = [
            scope
            for each in (data.resource_metrics if data else [])
            for scope in each.scope_metrics
        ]
        assert {scope.scope.name for scope in scopes} <= {"gather_async"}
        return [
            (dict(point.attributes or {}), point)
            for scope in scopes
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    """Export into memory."""
    telemetry = Telemetry()
    yield telemetry
    telemetry.tracers.shutdown()
    telemetry.meters.shutdown()


@pytest.fixture
async def clock() -> VirtualClock:
    """Let pauses pass at once."""
    return VirtualClock()


@pytest.fixture
async def fake(clock: VirtualClock) -> AsyncIterator[FakeGather]:
    """Serve the API on that clock."""
    async with FakeGather(clock=clock) as fake:
        yield fake


@pytest.fixture
async def gather(fake: FakeGather, telemetry: Telemetry) -> AsyncIterator[GatherClient]:
    """Instrument a client with room for three requests a minute."""
    async with fake.client(rate_limits=[RateLimit(3, per=60)]) as gather:
        telemetry.instrument(gather)
        yield gather


async def test_a_call_is_one_span(
    gather: GatherClient, fake: FakeGather, telemetry: Telemetry
) -> None:
    """It has the conventions' names, a retry inside it, and is below the caller's span."""
    fake.fail_next(503)
    with telemetry.tracer.start_as_current_span("page"):
        teams = await gather.teams.list()
        assert trace.get_current_span().get_span_context().is_valid
    span, page = telemetry.spans()
    assert (span.name, span.kind) == ("GET /qsi/gather/teams", trace.SpanKind.CLIENT)
    assert span.parent is not None
    assert page.context is not None
    assert span.parent.span_id == page.context.span_id
    assert span.status.status_code is trace.StatusCode.UNSET
    attributes = dict(span.attributes or {})
    assert attributes.pop("gather.retry.wait_time") > 0.0  # type: ignore[operator]
    host, _, port = fake.base_url.removeprefix("http://").partition(":")
    assert attributes == {
        http_attributes.HTTP_REQUEST_METHOD: "GET",
        http_attributes.HTTP_RESPONSE_STATUS_CODE: 200,
        http_attributes.HTTP_REQUEST_RESEND_COUNT: 1,
        url_attributes.URL_TEMPLATE: "/qsi/gather/teams",
        server_attributes.SERVER_ADDRESS: host,
        server_attributes.SERVER_PORT: int(port),
        "gather.operation": "teams.list",
        "gather.request_id": teams.request_id,
        "gather.quota.wait_time": 0.0,
    }
    (retry,) = span.events
    assert (retry.name, dict(retry.attributes or {})["error.type"]) == (
        "gather.retry",
        "ServerError",
    )


async def test_a_failure_marks_the_span(gather: GatherClient, telemetry: Telemetry) -> None:
    """The error's class and status are there; what it says, and the id, are not."""
    with pytest.raises(NotFoundError):
        await gather.questions.get("no-such-question")
    (span,) = telemetry.spans()
    assert span.status.status_code is trace.StatusCode.ERROR
    attributes = dict(span.attributes or {})
    assert attributes[error_attributes.ERROR_TYPE] == "NotFoundError"
    assert attributes[http_attributes.HTTP_RESPONSE_STATUS_CODE] == 404
    assert span.name == "GET /qsi/gather/questions/{id}"
    assert "no-such-question" not in span.to_json()


async def test_an_unknown_path_or_method_makes_no_series_of_its_own(
    gather: GatherClient, fake: FakeGather, telemetry: Telemetry
) -> None:
    """What a caller makes up is named by its method at the most."""
    for method in ("get", "purge"):
        with pytest.raises(NotFoundError):
            await gather.request(method, "/qsi/gather/people/ann")
    assert [each.name for each in telemetry.spans()] == ["GET", "HTTP"]
    methods = [(each.attributes or {})["http.request.method"] for each in telemetry.spans()]
    assert methods == ["GET", "_OTHER"]
    assert not any("url.template" in (each.attributes or {}) for each in telemetry.spans())


async def test_a_look_up_is_below_its_write(
    gather: GatherClient, fake: FakeGather, telemetry: Telemetry
) -> None:
    """The span is current while the call runs, and the caller's is afterwards."""
    fake.drop_next(method="POST")
    await gather.candidates.create(
        first_name="Ann", last_name="Lee", email="a@example.com", phone="+12025550123",
        external_id="a-1",
    )  # fmt: skip
    lookup, write = telemetry.spans()
    assert (lookup.name, write.name) == (
        "GET /qsi/gather/candidates",
        "POST /qsi/gather/candidates",
    )
    assert lookup.parent is not None
    assert write.context is not None
    assert lookup.parent.span_id == write.context.span_id
    assert write.status.status_code is trace.StatusCode.UNSET
    assert not trace.get_current_span().get_span_context().is_valid
    points = telemetry.points(HTTP_CLIENT_REQUEST_DURATION)
    lost = [each for each, _ in points if each["http.request.method"] == "POST"]
    assert [each["error.type"] for each in lost] == ["_OTHER"]


async def test_concurrent_calls_have_spans_of_their_own(
    gather: GatherClient, fake: FakeGather, telemetry: Telemetry
) -> None:
    """Calls of several tasks, one of them cancelled, all end their own span."""
    fake.slow_next(math.inf, path="/qsi/gather/narrators")
    begun = asyncio.Event()
    gather.call_events.subscribe(lambda _: begun.set())
    call = asyncio.ensure_future(gather.narrators.list())
    await begun.wait()
    await asyncio.gather(gather.teams.list(), gather.users.list())
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    spans = {each.name.rpartition("/")[2]: each for each in telemetry.spans()}
    assert set(spans) == {"teams", "users", "narrators"}
    assert len({each.context.trace_id for each in spans.values() if each.context}) == 3
    assert all(each.parent is None for each in spans.values())
    cancelled = dict(spans["narrators"].attributes or {})
    assert cancelled["error.type"] == "CancelledError"


async def test_requests_are_measured(
    gather: GatherClient, fake: FakeGather, telemetry: Telemetry
) -> None:
    """Each request counts once, by its status, in buckets of seconds."""
    fake.fail_next(503)
    fake.slow_next(3.0)
    await gather.teams.list()
    fake.drop_next()
    with pytest.raises(GatherConnectionError):
        await gather.teams.create(name="x")
    points = telemetry.points(HTTP_CLIENT_REQUEST_DURATION)
    found = {
        (each.get("http.response.status_code"), each.get("error.type")): point
        for each, point in points
    }
    assert {key: point.count for key, point in found.items()} == {
        (503, "503"): 1,
        (200, None): 1,
        (None, "GatherConnectionError"): 1,
    }
    assert found[200, None].sum == pytest.approx(3.0, abs=0.1)
    assert found[200, None].explicit_bounds[0] == 0.005
    assert all(each["url.template"] == "/qsi/gather/teams" for each, _ in points)


async def test_the_quota_is_measured(
    gather: GatherClient, fake: FakeGather, telemetry: Telemetry
) -> None:
    """Seconds waited, refusals, and whole calls with all that held them up."""
    await gather.teams.list()
    fake.fail_next(429, headers={"Retry-After": "90"})
    await gather.teams.list()
    ((attributes, point),) = telemetry.points("gather.client.quota.wait_time")
    assert attributes["gather.operation"] == "teams.list"
    assert (point.count, point.min) == (2, 0.0)
    assert point.max >= 90.0
    ((_, call),) = telemetry.points("gather.client.call.duration")
    assert call.sum >= point.sum
    ((refused, count),) = telemetry.points("gather.client.rate_limited")
    assert (refused["url.template"], count.value) == ("/qsi/gather/teams", 1)
    late = telemetry.spans()[-1]
    assert late.start_time is not None
    assert late.end_time is not None
    assert late.end_time - late.start_time >= 0


async def test_the_queue_is_measured(
    gather: GatherClient, fake: FakeGather, telemetry: Telemetry, clock: VirtualClock
) -> None:
    """Calls that wait, by priority; clients of one server are one series."""
    fake.slow_next(math.inf, times=math.inf)
    async with fake.client(rate_limits=[RateLimit(2, per=60)]) as other:
        telemetry.instrument(other)
        views = [gather, gather.with_options(priority="bulk"), other]
        calls = [asyncio.ensure_future(each.teams.list()) for each in views for _ in range(4)]
        for _ in range(10):
            await asyncio.sleep(0)
        points = telemetry.points("gather.client.queue.length")
        lengths = {each["gather.priority"]: point.value for each, point in points}
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
    assert lengths == {"interactive": 3, "bulk": 4}


async def test_a_pool_is_instrumented_as_a_whole(
    fake: FakeGather, clock: VirtualClock, telemetry: Telemetry
) -> None:
    """Clients of each key, also of keys that come later, are seen; their queues are added."""
    async with GatherPool(base_url=fake.base_url, clock=clock) as pool:
        telemetry.instrument(pool)
        await pool.for_key(fake.api_key).teams.list()
        points = telemetry.points("gather.client.queue.length")
        assert [point.value for _, point in points] == [0, 0]
    assert [each.name for each in telemetry.spans()] == ["GET /qsi/gather/teams"]


async def test_webhook_lag_is_measured(clock: VirtualClock, telemetry: Telemetry) -> None:
    """Seconds from the receipt of an event to its handler, by event and handler."""
    hooks = WebhookReceiver(SECRET, clock=clock)
    telemetry.instrument(hooks)

    @hooks.on("interview.created", name="save")
    async def save(event: WebhookEvent) -> None:
        """Take no time."""

    body = sample_body("interview.created", at=datetime.fromtimestamp(clock.wall(), UTC))
    header = sign(body, secret=SECRET, timestamp=clock.wall())
    await hooks.receive(body, {"X-Qualifi-Signature": header})
    await clock.sleep(30.0)
    async with hooks:
        await clock.sleep(1.0)
    ((attributes, point),) = telemetry.points("gather.webhook.lag")
    assert attributes == {
        "gather.webhook.event": "interview.created",
        "gather.webhook.handler": "save",
    }
    assert point.sum == pytest.approx(30.0, abs=0.1)
    uninstrument(hooks)
    assert hooks.run_events.listeners == ()


async def test_instrumenting_twice_counts_once(
    gather: GatherClient, telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    """A view is its client; the second time says so, and changes nothing."""
    telemetry.instrument(gather.with_options(timeout=3))
    await gather.teams.list()
    assert len(telemetry.spans()) == 1
    assert [each.name for each in caplog.records] == ["gather_async.otel"]


async def test_uninstrumenting_lets_calls_under_way_end(
    gather: GatherClient, fake: FakeGather, telemetry: Telemetry
) -> None:
    """The span of a call that runs is ended by the call; later ones have none."""
    fake.slow_next(5.0)
    begun = asyncio.Event()
    end = gather.call_events.subscribe(lambda _: begun.set())
    call = asyncio.ensure_future(gather.teams.list())
    await begun.wait()
    end()
    uninstrument(gather)
    uninstrument(gather)
    other = asyncio.ensure_future(gather.users.list())
    await asyncio.gather(call, other)
    assert [each.name for each in telemetry.spans()] == ["GET /qsi/gather/teams"]
    assert gather.call_events.listeners == ()
    telemetry.instrument(gather)
    await gather.users.list()
    assert len(telemetry.spans()) == 2


async def test_a_client_that_is_gone_is_forgotten(fake: FakeGather, telemetry: Telemetry) -> None:
    """Instruments keep no client alive, and report no queue of it."""
    async with fake.client() as gather:
        telemetry.instrument(gather)
        await gather.teams.list()
    gone = weakref.ref(gather)
    del gather
    gc.collect()
    assert gone() is None
    assert telemetry.points("gather.client.queue.length") == []


def test_anything_else_is_refused() -> None:
    """A wrong argument is said at once."""
    with pytest.raises(ConfigurationError, match="takes a GatherClient, GatherPool or Webhook"):
        instrument("client")  # type: ignore[arg-type]  # that is the test
