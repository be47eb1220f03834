"""Checks of what a caller passes."""

import math

import pytest
from attrs import field, frozen

from gather_async.errors import ConfigurationError, InvalidRequestError
from gather_async.validators import Choice, Instance, Number, is_number, is_whole

SECONDS = Number(above=0, unit="seconds")
FOR_EVER = Number(least=0, most=math.inf, unit="seconds")
COUNT = Number(least=1, whole=True)
SHARE = Number(above=0, most=1)


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        (SECONDS, 1),
        (SECONDS, 5e-324),
        (SECONDS, 1.7e308),
        (FOR_EVER, 0),
        (FOR_EVER, math.inf),
        (COUNT, 1),
        (SHARE, 1.0),
    ],
)
def test_a_fitting_number_comes_back_as_given(rule: Number, value: float) -> None:
    """What is in range is returned unchanged, its type included."""
    checked = rule.check("n", value)
    assert (checked, type(checked)) == (value, type(value))


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        *((rule, value) for rule in (SECONDS, FOR_EVER, COUNT, SHARE) for value in (True, "1")),
        *((rule, value) for rule in (SECONDS, FOR_EVER, COUNT, SHARE) for value in (None, [1])),
        *((rule, math.nan) for rule in (SECONDS, FOR_EVER, COUNT, SHARE)),
        (SECONDS, 0),
        (SECONDS, math.inf),
        (SECONDS, 10**400),
        (FOR_EVER, -5e-324),
        (COUNT, 0),
        (COUNT, 1.0),
        (COUNT, 10**400),
        (SHARE, 1.0000000000000002),
    ],
)
def test_any_other_value_is_refused(rule: Number, value: object) -> None:
    """Booleans, text, NaN, what is out of range and what no float holds are no numbers here."""
    with pytest.raises(ConfigurationError, match=r"^n must be "):
        rule.check("n", value)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (SECONDS, "seconds, above 0, finite"),
        (FOR_EVER, "seconds, 0 or more"),
        (COUNT, "a whole number, 1 or more"),
        (SHARE, "a number, above 0, at most 1"),
        (Choice(("reuse", "skip", "error")), '"reuse", "skip" or "error"'),
        (Choice((200, None)), "200 or None"),
    ],
)
def test_a_rule_reads_as_a_message(rule: Number | Choice, words: str) -> None:
    """The words of a message are made of the rule, so they can't contradict it."""
    assert str(rule) == words


def test_the_caller_chooses_the_class_of_the_error() -> None:
    """An argument of a call is an invalid request, and may take other values as well."""
    with pytest.raises(InvalidRequestError, match=r"^timeout must be seconds, 0 or more, or None"):
        FOR_EVER.check("timeout", -1, accepts="or None", error=InvalidRequestError)


def test_a_rule_validates_a_field() -> None:
    """The message names the class where the rule does, and the field."""

    @frozen
    class Pace:
        seconds: float = field(validator=Number(above=0, owner="Pace"))
        kind: str = field(default="even", validator=Choice(("even", "burst")))

    assert Pace(1.5) == Pace(1.5, "even")
    with pytest.raises(ConfigurationError, match=r"^Pace\.seconds must be"):
        Pace(0)
    with pytest.raises(ConfigurationError, match=r"^kind must be"):
        Pace(1.5, "odd")


@pytest.mark.parametrize("value", [[], {}, None, "Even", 1])
def test_a_choice_refuses_everything_else(value: object) -> None:
    """Also what can't be hashed."""
    with pytest.raises(ConfigurationError, match=r'^pace must be "even" or "burst"\.'):
        Choice(("even", "burst")).check("pace", value)


@pytest.mark.parametrize(
    ("value", "number", "whole"),
    [(1, True, True), (1.0, True, False), (True, False, False), ("1", False, False)],
)
def test_a_boolean_is_no_number(value: object, number: bool, whole: bool) -> None:
    """Python's booleans are integers, the API's and ours are not."""
    assert (is_number(value), is_whole(value)) == (number, whole)


def test_none_fits_only_where_a_rule_says_so() -> None:
    """An optional number may be None, and the message of any other value says that."""
    rule = Number(least=0, unit="seconds", optional=True)
    assert rule.check("wait", None) is None
    with pytest.raises(
        ConfigurationError, match=r"^wait must be seconds, 0 or more, .*, or None\.$"
    ):
        rule.check("wait", -1)


def test_an_instance_of_a_class_fits_and_the_class_itself_does_not() -> None:
    """The message names the class, and says what to do instead if the rule does."""
    Instance(Choice).check("rule", Choice((1, 2)))
    with pytest.raises(ConfigurationError, match=r"^rule must be a Choice\.$"):
        Instance(Choice).check("rule", Choice)

    @frozen
    class Holder:
        rule: Choice = field(validator=Instance(Choice, "one will do", owner="Holder"))

    with pytest.raises(ConfigurationError, match=r"^Holder\.rule must be a Choice; one will do\.$"):
        Holder(None)  # type: ignore[arg-type]  # what an untyped caller may pass
