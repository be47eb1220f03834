"""Webhook signatures: what is trusted, what is refused and why, and that nothing else comes out."""

import hashlib
import hmac
import json
import os
import random
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gather_async.errors import ConfigurationError, WebhookFailure, WebhookVerificationError
from gather_async.protocol.signatures import read_instant
from gather_async.protocol.signatures import verify as verify_payload
from gather_async.webhooks import UnknownEvent, WebhookEvent, sign, verify
from gather_async.webhooks.events import decode_event

SECRET = "correct horse"
NOW = 1_767_225_600.0
BODY = b'{"event":"question.audio_generated","timestamp":"2026-01-01T00:00:00Z","data":{"id":"q"}}'
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def header(body: bytes = BODY, *, secret: str = SECRET, timestamp: str = f"{NOW:.0f}") -> str:
    """Return a header whose signature is computed here, not by the code under test."""
    mac = hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256)
    return f"t={timestamp},v1={mac.hexdigest()}"


def failure(body: Any, signature_header: Any, *, tolerance: float = 300.0) -> WebhookFailure | None:
    """Return why a delivery is refused; None if it is trusted."""
    try:
        signed = verify_payload(
            body, signature_header, secrets=(SECRET,), tolerance=tolerance, now=NOW
        )
        decode_event(signed.text)
    except WebhookVerificationError as error:
        return error.reason
    return None


def test_header_is_read_by_name() -> None:
    """Order, spaces, unknown parts and further signatures don't matter."""
    mac = header().partition("v1=")[2]
    t = f"t={NOW:.0f}"
    for text in (
        f"{t},v1={mac}",
        f"v1={mac},{t}",
        f" {t} ,  v1 = {mac} ",
        f"{t}, v1={mac}",
        f"{t},v1={'0' * 64},v1={mac},v0=x,nonsense",
        f"{t},v1=é\udcff,v1={mac}",
        f"{t},{t},v1={mac}",
        f"{t},v1={mac}".encode(),
    ):
        assert failure(BODY, text) is None, text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "missing_header"),
        ("", "missing_header"),
        (b"", "missing_header"),
        (7, "malformed_header"),
        ("nonsense", "malformed_header"),
        ("t=1767225600", "malformed_header"),
        ("t=1767225600,v1=", "malformed_header"),
        ("v1=00", "malformed_header"),
        ("t=1,t=2,v1=00", "malformed_header"),
        ("T=1767225600,V1=00", "malformed_header"),
        ("t=1767225600,v1=00" + " " * 5000, "malformed_header"),
        ("t=,v1=00", "bad_timestamp"),
        ("t=soon,v1=00", "bad_timestamp"),
        ("t=١٧٦٧٢٢٥٦٠٠,v1=00", "bad_timestamp"),
        ("t=-1767225600,v1=00", "bad_timestamp"),
        ("t=nan,v1=00", "bad_timestamp"),
        ("t=1e9,v1=00", "bad_timestamp"),
        ("t=2026-13-01T00:00:00Z,v1=00", "bad_timestamp"),
        ("t=1767225299,v1=00", "too_old"),
        ("t=0,v1=00", "too_old"),
        ("t=1767225901,v1=00", "in_the_future"),
        ("t=999999999999999999,v1=00", "in_the_future"),
        ("t=1767225600,v1=00", "signature_mismatch"),
        ("t=1767225600,v1=ünïcödé", "signature_mismatch"),
        ("t=1767225600,v1=\ud800", "signature_mismatch"),
    ],
)
def test_why_a_header_is_refused(text: Any, reason: str) -> None:
    """Each kind of bad header has its own reason."""
    assert failure(BODY, text) == reason


@pytest.mark.parametrize(
    "timestamp",
    [
        "1767225600",
        "1767225600.25",
        "1767225600000",
        "2026-01-01T00:00:00Z",
        "2026-01-01T00:00:00.000Z",
        "2026-01-01T01:00:00+01:00",
        "2026-01-01 00:00:00",
        "2026-01-01T00:00:00z",
    ],
)
def test_timestamps_are_signed_as_received(timestamp: str) -> None:
    """Seconds, milliseconds and ISO 8601 are read, and signed as they are."""
    assert failure(BODY, header(timestamp=timestamp)) is None
    assert read_instant(timestamp) == pytest.approx(NOW, abs=0.5)


@pytest.mark.parametrize(
    ("age", "reason"), [(300, None), (301, "too_old"), (-301, "in_the_future")]
)
def test_tolerance_is_both_ways(age: int, reason: str | None) -> None:
    """A signature a moment too old, or too far ahead, is refused though it is right."""
    assert failure(BODY, header(timestamp=f"{NOW - age:.0f}")) == reason
    assert failure(BODY, header(timestamp=f"{NOW - age:.0f}"), tolerance=1e9) is None


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"null", b"7", b'"event"', b"{", b"{}", b'{"event":7}', b'{"event":""}',
     b'{"event":"x","data":[]}', b'{"event":"x","data":NaN}', b"\xff\xfe", b"\xef\xbb\xbf{}",
     b'{"event":"x","data":{"a":' + b"[" * 300 + b"]" * 300 + b"}}", b"[" * 100_000],
)  # fmt: skip
def test_signed_nonsense_is_malformed(body: bytes) -> None:
    """A body that is signed and no event is malformed, also when it is nested without end."""
    assert failure(body, header(body)) == "malformed_body"


@pytest.mark.parametrize("body", [{"event": "x"}, None, 7, "\ud800", object()])
def test_body_of_another_type(body: Any) -> None:
    """A body that was parsed, or is nothing at all, is our error, too."""
    assert failure(body, header()) in {"malformed_body", "signature_mismatch"}


def test_body_as_javascript_would_write_it() -> None:
    """A signature over the re-serialised body counts, and what it covers is what is returned."""
    sent = b'{ "event": "x", "data": {"a": 1.0, "a": 1e21, "2": "\\u00e9", "1": -0} }'
    written = '{"event":"x","data":{"1":0,"2":"é","a":1e+21}}'.encode()
    signed = verify_payload(sent, header(written), secrets=(SECRET,), tolerance=300, now=NOW)
    assert signed.text.encode() == written
    assert decode_event(signed.text).data == {"1": 0, "2": "é", "a": 1e21}


@given(st.data())
def test_one_flipped_bit_never_verifies(data: st.DataObject) -> None:
    """No single bit of body or signature can be changed."""
    text = header()
    signature_at = text.index("v1=")
    position = data.draw(st.integers(0, (len(BODY) + len(text) - signature_at) * 8 - 1))
    where, bit = divmod(position, 8)
    body, changed = bytearray(BODY), bytearray(text.encode())
    if where < len(BODY):
        body[where] ^= 1 << bit
    else:
        changed[signature_at + where - len(BODY)] ^= 1 << bit
    assert failure(bytes(body), bytes(changed)) is not None


@given(JSON, st.sampled_from(["question.audio_generated", "x", "é\n\x7f"]))
def test_what_is_signed_is_returned(data: Any, name: str) -> None:
    """Any event survives signing and verifying."""
    body = json.dumps({"event": name, "data": {"value": data}}).encode()
    event = verify(body, sign(body, secret=SECRET), secret=["other", SECRET])
    assert event.event == name
    assert event.data == {"value": data}


@given(st.binary() | st.text(), st.none() | st.text() | st.binary())
@example(BODY, "t=1767225600,v1=\x00")
def test_only_our_error_comes_out(body: Any, signature_header: Any) -> None:
    """Whatever the bytes are, the answer is an event or our error."""
    assert failure(body, signature_header) is not None


def test_rotation() -> None:
    """While one secret replaces the other both count, and nothing else does."""
    for secret in ("old", "new"):
        assert isinstance(
            verify(BODY, sign(BODY, secret=secret), secret=["new", "old"]), WebhookEvent
        )
    with pytest.raises(WebhookVerificationError) as caught:
        verify(BODY, sign(BODY, secret="older"), secret=["new", "old"])
    assert caught.value.reason is WebhookFailure.SIGNATURE_MISMATCH


def test_newest_secret_signs() -> None:
    """Of several secrets the first signs, so that tools can be given the receiver's list."""
    newest = sign(BODY, secret=["new", "old"], timestamp=1)
    assert newest == sign(BODY, secret="new", timestamp=1)


@pytest.mark.parametrize(
    "secret", ["", "  ", [], ["good", ""], None, [None], 5, object(), b"", b"\xff", "a\n", {}]
)
def test_blank_secrets_are_configuration(secret: Any) -> None:
    """A secret that anybody could guess, or that is none, is refused before all else."""
    with pytest.raises(ConfigurationError):
        verify(BODY, header(), secret=secret)
    with pytest.raises(ConfigurationError):
        sign(BODY, secret=secret)


@pytest.mark.parametrize("tolerance", [-1, float("nan"), "300", None, True])
def test_tolerance_must_be_seconds(tolerance: Any) -> None:
    """A tolerance that would accept anything, or nothing, is refused."""
    with pytest.raises(ConfigurationError):
        verify(BODY, header(), secret=SECRET, tolerance=tolerance)


def test_sign_at_a_given_time() -> None:
    """`sign` takes seconds, aware datetimes and text, and agrees with an independent HMAC."""
    at = datetime.fromtimestamp(NOW, UTC)
    for timestamp in (NOW, int(NOW), at, f"{NOW:.0f}"):
        assert sign(BODY, secret=SECRET, timestamp=timestamp) == header()
    assert sign(BODY.decode(), secret=SECRET, timestamp=NOW) == header()
    for bad in (datetime(2026, 1, 1), "1,2", " 1"):  # noqa: DTZ001 - naive on purpose
        with pytest.raises(ConfigurationError):
            sign(BODY, secret=SECRET, timestamp=bad)


def test_errors_show_no_secret() -> None:
    """No message repeats the secret, the signature or the body."""
    with pytest.raises(WebhookVerificationError) as caught:
        verify(BODY, sign(BODY, secret="wrong"), secret=SECRET)
    for part in (SECRET, "audio_generated", sign(BODY, secret="wrong")[-64:]):
        assert part not in str(caught.value)


def _mutated(rng: random.Random, text: bytes) -> bytes:
    """Return bytes with some bits flipped, parts cut, doubled or made up."""
    changed = bytearray(text)
    for _ in range(rng.randrange(4)):
        at = rng.randrange(len(changed) + 1)
        match rng.randrange(5):
            case 0 if at < len(changed):
                changed[at] ^= 1 << rng.randrange(8)
            case 1:
                del changed[at : at + rng.randrange(1, 20)]
            case 2:
                changed[at:at] = rng.randbytes(rng.randrange(1, 6))
            case 3:
                changed[at:at] = changed[at : at + rng.randrange(1, 20)]
            case _:
                words = (
                    b"[",
                    b"{",
                    b'"',
                    b"\\ud800",
                    b"1e999",
                    b"-0",
                    b",",
                    b"t=",
                    b"v1=",
                    b"\xff",
                )
                changed[at:at] = rng.choice(words) * rng.choice([1, 1, 2, 500])
    return bytes(changed)


def _fuzz(rng: random.Random) -> None:
    """Try one mutated delivery: its header is mutated, and sometimes made right again."""
    body = _mutated(rng, BODY)
    text: Any = header(body) if rng.random() < 0.5 else header()
    if rng.random() < 0.5:
        text = _mutated(rng, text.encode())
    reason = failure(body, text)
    assert reason is None or isinstance(reason, WebhookFailure)


def test_mutated_deliveries() -> None:
    """Thousands of mutated headers and bodies give an event or our error."""
    rng = random.Random(4)
    for _ in range(5000):
        _fuzz(rng)


@pytest.mark.fuzz
def test_fuzz_signatures() -> None:
    """A million mutated headers and bodies, and at least 20 s of them, give only our error."""
    seed = int(os.environ.get("GATHER_FUZZ_SEED", time.time_ns()))
    rng = random.Random(seed)
    ends = time.monotonic() + 20.0
    count = 0
    while count < 1_000_000 or time.monotonic() < ends:
        try:
            _fuzz(rng)
        except BaseException as error:
            error.add_note(f"GATHER_FUZZ_SEED={seed}, delivery {count}")
            raise
        count += 1


def test_unknown_event_is_readable() -> None:
    """An event that no one documented is data like any other."""
    body = b'{"event":"candidate.sneezed","timestamp":1,"data":{"candidateId":"c"},"id":"e1"}'
    event = verify(body, sign(body, secret=SECRET), secret=SECRET)
    assert type(event) is UnknownEvent
    assert event.id == "e1"
    assert event.ids == {"c"}
