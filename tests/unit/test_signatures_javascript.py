"""JSON as JavaScript writes it, compared with Node where there is one."""

import json
import random
import shutil
import struct
import subprocess
from typing import Any

import pytest

from gather_async.errors import WebhookVerificationError
from gather_async.protocol.javascript import number_text, parse, reserialize, reserialize_quickly
from gather_async.protocol.signatures import read_header, verify_stringified
from gather_async.webhooks import verify

NODE = shutil.which("node") or shutil.which("nodejs")
needs_node = pytest.mark.skipif(NODE is None, reason="Node is not on this machine")

CASES = [
    "1e21", "1e20", "123456789012345680000", "1e-6", "1e-7", "1.5e-7", "-0", "-0.0", "4.0", "1e400",
    "-1e400", "9007199254740993", "123456789012345678901234567890", "5e-324", "0.1", "1E+5", "[]",
    '{"10":1,"9":2,"b":3,"4294967294":1,"4294967295":2,"01":1,"-1":1,"a":1,"b":9,"1.5":3}',
    '{"__proto__":{"x":1},"toJSON":1,"constructor":2,"length":3}', '{"é":"é","":0,"0":1}',
    r'"\ud800"', r'"\ud83d\ude00"', r'"\udc00\ud800"', r'"\u0000\u001f\u007f\b\f\n\r\t\/\\\""',
    '"\u2028\u2029\x7f\x80"', " [ 1 , 2 ] ", "\n{}\t", "[true]", '{"²":1,"\uff11":2,"1":3}',
    "NaN", "Infinity", "-Infinity", "01", "1.", ".5", "+1", "-", "1e", '{"a":1,}', "[1,]", "'a'",
    "\ufeff1", "\u00a01", '"\t"', "tru", '"a', "", "\u0661", "[1]]", "0x10", "1_000", '"\\x41"',
]  # fmt: skip

STRINGIFY = """
const texts = JSON.parse(require("fs").readFileSync(0, "utf8"));
const written = texts.map(text => {
  try { return JSON.stringify(JSON.parse(text)) } catch { return null }
});
console.log(JSON.stringify(written));
"""

SIGN = """
const { createHmac } = require("crypto");
const { secret, timestamp, bodies } = JSON.parse(require("fs").readFileSync(0, "utf8"));
const headers = bodies.map(body => {
  const text = timestamp + "." + JSON.stringify(JSON.parse(body));
  return `t=${timestamp},v1=${createHmac("sha256", secret).update(text).digest("hex")}`;
});
console.log(JSON.stringify(headers));
"""


def node(program: str, value: Any) -> Any:
    """Run a program in Node with a value on its input; return what it prints."""
    assert NODE is not None
    done = subprocess.run(
        [NODE, "-e", program], input=json.dumps(value), capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def random_number(rng: random.Random) -> str:
    """Return a number as some program may write it."""
    match rng.randrange(3):
        case 0:
            return str(rng.randint(-(10 ** rng.randint(1, 25)), 10 ** rng.randint(1, 25)))
        case 1:
            return f"{rng.randint(0, 10 ** rng.randint(1, 20))}e{rng.randint(-340, 310)}"
        case _:
            (value,) = struct.unpack("d", rng.randbytes(8))
            return repr(value) if abs(value) < float("inf") else "0"


def random_json(rng: random.Random, depth: int = 3) -> str:
    """Return JSON text with all the liberties that JSON allows."""
    space = rng.choice(["", "", " ", "\n"])
    kind = rng.randrange(6 if depth else 3)
    if kind == 0:
        return random_number(rng)
    if kind in (1, 2):
        return rng.choice(['"a"', '"\\ud83d"', '"\u00e9\\/"', "true", "null", '"\\u0041\\n"'])
    inner = [random_json(rng, depth - 1) for _ in range(rng.randrange(4))]
    if kind == 3:
        return f"[{space}{f',{space}'.join(inner)}{space}]"
    keys = [rng.choice(["b", "a", "10", "9", "0", "01", "é", "__proto__"]) for _ in inner]
    pairs = [f'"{key}"{space}:{value}' for key, value in zip(keys, inner, strict=True)]
    return "{" + f"{space},".join(pairs) + "}"


@needs_node
def test_same_as_node() -> None:
    """Any text is written as Node writes it, or refused as Node refuses it."""
    rng = random.Random(21)
    texts = CASES + [random_json(rng) for _ in range(3000)]
    texts += [random_number(rng) for _ in range(5000)]
    for text, expected in zip(texts, node(STRINGIFY, texts), strict=True):
        try:
            written = reserialize(text)
        except ValueError:
            written = None
        assert written == expected, text


@needs_node
def test_signed_by_node() -> None:
    """What Node's crypto signs after parsing and writing again is trusted."""
    rng = random.Random(22)
    bodies = [f'{{ "event": "x", "data": {{"v": {random_json(rng)}}} }}' for _ in range(200)]
    given = {"secret": "sëcret", "timestamp": "2026-01-01T00:00:00.000Z", "bodies": bodies}
    for body, header in zip(bodies, node(SIGN, given), strict=True):
        assert verify(body.encode(), header, secret="sëcret", tolerance=1e12).event == "x"


def test_numbers() -> None:
    """The forms that JavaScript gives numbers, for machines without Node."""
    forms = {
        1e21: "1e+21",
        1e-7: "1e-7",
        4.0: "4",
        -0.0: "0",
        1.5e300: "1.5e+300",
        1e-6: "0.000001",
    }
    assert {value: number_text(value) for value in forms} == forms
    assert number_text(float("inf")) == number_text(float("nan")) == "null"


def test_depth_has_an_end() -> None:
    """Nesting is read to 200 levels, and refused beyond, in whatever text it comes."""
    assert reserialize("[" * 200 + "]" * 200) == "[" * 200 + "]" * 200
    for text in ("[" * 201 + "]" * 201, '{"a":' * 201 + "1" + "}" * 201, "[" * 1_000_000):
        for read in (reserialize, parse):
            with pytest.raises(ValueError):  # noqa: PT011 - the two have different words
                read(text)


def test_many_brackets_are_not_depth() -> None:
    """A flat body with many objects is read."""
    assert len(parse("[" + ",".join(["[]"] * 1000) + "]")) == 1000


def test_huge_integers() -> None:
    """Integers of any length are read, as JavaScript would beyond 400 digits."""
    assert parse("1" * 400) == int("1" * 400)
    assert parse("1" * 5000) == float("inf")
    assert reserialize("1" * 5000) == "null"


@pytest.mark.parametrize(
    ("text", "quick"),
    [
        ('{"b": 1.5, "a": [4.0, true, null]}', '{"b":1.5,"a":[4,true,null]}'),
        ("12345678901234567", None),  # beyond what JavaScript counts exactly
        ("123456789012345678", None),
        ("1e300", None),  # with an exponent, which the two write differently
        ("1e-9", None),
        ('{"1": 0}', None),  # a key that JavaScript may put first
        (r'"\ud800"', None),
    ],
)
def test_the_quick_way_is_right_or_says_so(text: str, quick: str | None) -> None:
    """What is written quickly is what the thorough way writes; the rest is left to that."""
    assert reserialize_quickly(text) == quick
    assert quick is None or reserialize(text) == quick


def test_only_the_quick_way_leaves_the_slow_one_open() -> None:
    """Asked to be quick, verification says that it can't tell, instead of refusing."""
    raw, secrets = b'{"event": "x", "data": {"1": 0}}', ["s"]
    header = read_header("t=1767225600,v1=00", tolerance=1e12, now=1_767_225_600.0)
    assert verify_stringified(raw, header, secrets, is_quick_only=True) is None
    with pytest.raises(WebhookVerificationError):
        verify_stringified(raw, header, secrets)
