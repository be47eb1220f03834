"""Where the key may travel: a table of addresses."""

from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gather_async.errors import ConfigurationError
from gather_async.settings import PRODUCTION, proxy_for, validate_base_url, validate_key


@pytest.mark.parametrize(
    ("raw", "checked"),
    [
        (PRODUCTION, PRODUCTION),
        ("https://api.dev.qualifi.hr/", "https://api.dev.qualifi.hr"),
        ("https://proxy.example/gather//", "https://proxy.example/gather"),
        ("https://proxy.example:8443", "https://proxy.example:8443"),
        ("HTTPS://proxy.example", "HTTPS://proxy.example"),
        ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://127.8.9.10", "http://127.8.9.10"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("http://localhost:1", "http://localhost:1"),
        ("http://LOCALHOST", "http://LOCALHOST"),
        ("http://fake.localhost", "http://fake.localhost"),
    ],
)
def test_https_anywhere_and_http_to_loopback_are_accepted(raw: str, checked: str) -> None:
    """The address comes back without its trailing slashes."""
    assert validate_base_url(raw) == checked


@pytest.mark.parametrize(
    "raw",
    [
        None,
        42,
        b"https://api.prod.qualifi.hr",
        "",
        "api.prod.qualifi.hr",
        "//api.prod.qualifi.hr",
        "ftp://api.prod.qualifi.hr",
        "https://",
        "https:///path",
        "https://host:99999",
        "https://host:port",
        "https://[::1",
        "https://host?x=1",
        "https://host?",
        "https://host#top",
        "https://host#",
        "https://user@host",
        "https://user:secret-word@host",
        "https://@host",
        "https://ho st",
        "https://host\n",
        "https://host\x00",
        "https://b\u00fccher.example",
        "https://host/\u00e9",
        "https://evil.example\\.good.example",
        "https://evil.example\\@good.example",
        "http://api.prod.qualifi.hr",
        "http://192.168.0.1",
        "http://0.0.0.0",
        "http://localhost.evil.example",
        "http://127.0.0.1.evil.example",
        "http://notlocalhost",
    ],
    ids=repr,
)
def test_anything_else_is_refused_without_repeating_it(raw: object) -> None:
    """A wrong address is a configuration error, and its credentials stay out of the message."""
    with pytest.raises(ConfigurationError) as caught:
        validate_base_url(raw)  # type: ignore[arg-type]  # what an untyped caller may pass
    assert "secret-word" not in str(caught.value)


def test_plain_http_is_allowed_on_request_only() -> None:
    """``allow_insecure`` lifts the rule on HTTPS and no other."""
    assert validate_base_url("http://10.0.0.1/", allow_insecure=True) == "http://10.0.0.1"
    with pytest.raises(ConfigurationError, match="allow_insecure=True"):
        validate_base_url("http://10.0.0.1/")
    with pytest.raises(ConfigurationError, match="credentials"):
        validate_base_url("http://user@10.0.0.1/", allow_insecure=True)


@given(st.text() | st.text(alphabet="htps:/@?#[]\\.%1a\n ").map("https://".__add__))
def test_any_text_is_refused_or_names_a_host_over_https(raw: str) -> None:
    """No text gets the key sent in the clear, or makes the check fail in another way."""
    try:
        checked = validate_base_url(raw)
    except ConfigurationError:
        return
    url = urlsplit(checked)
    assert url.scheme == "https" or url.hostname in {"localhost", "127.0.0.1", "::1"}
    assert url.hostname
    assert url.username is None
    assert not checked.endswith("/")
    assert checked.isascii()


PROXY = "http://user:secret@proxy.example:3128"


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Start from an environment that names no proxy."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("url", "environment", "proxy"),
    [
        (PRODUCTION, {}, None),
        (PRODUCTION, {"HTTPS_PROXY": PROXY}, PROXY),
        (PRODUCTION, {"https_proxy": PROXY}, PROXY),
        (PRODUCTION, {"ALL_PROXY": PROXY}, PROXY),
        (PRODUCTION, {"HTTP_PROXY": PROXY}, None),
        (PRODUCTION, {"HTTPS_PROXY": PROXY, "NO_PROXY": "api.prod.qualifi.hr"}, None),
        (PRODUCTION, {"HTTPS_PROXY": PROXY, "NO_PROXY": ".qualifi.hr,other"}, None),
        (PRODUCTION, {"HTTPS_PROXY": PROXY, "NO_PROXY": "*"}, None),
        ("https://gather.example:8443", {"HTTPS_PROXY": PROXY, "NO_PROXY": "gather.example"}, None),
        # The key would go in the clear to the proxy.
        ("http://gather.example", {"HTTP_PROXY": PROXY, "HTTPS_PROXY": PROXY}, None),
        ("http://127.0.0.1:8080", {"HTTP_PROXY": PROXY, "ALL_PROXY": PROXY}, None),
        ("https://localhost", {"HTTPS_PROXY": PROXY}, None),
    ],
)
def test_proxy_of_the_environment(
    no_proxies: pytest.MonkeyPatch, url: str, environment: dict[str, str], proxy: str | None
) -> None:
    """An https server is reached through the environment's proxy, any other directly."""
    for name, value in environment.items():
        no_proxies.setenv(name, value)
    assert proxy_for(url, trust_env=True, lent=None) == proxy
    assert proxy_for(url, trust_env=False, lent=None) is None


def test_proxy_that_cannot_be_used_is_refused(no_proxies: pytest.MonkeyPatch) -> None:
    """A kind of proxy that isn't supported is named at construction, and its secret isn't."""
    no_proxies.setenv("HTTPS_PROXY", "socks5://user:secret@proxy.example")
    with pytest.raises(ConfigurationError, match="HTTPS_PROXY") as caught:
        proxy_for(PRODUCTION, trust_env=True, lent=None)
    assert "secret" not in str(caught.value)


async def test_lent_session_shows_no_proxy_the_key(no_proxies: pytest.MonkeyPatch) -> None:
    """A session that would send the key in the clear to a proxy is refused, others aren't."""
    no_proxies.setenv("HTTP_PROXY", PROXY)
    async with aiohttp.ClientSession(trust_env=True) as trusting, aiohttp.ClientSession() as plain:
        with pytest.raises(ConfigurationError, match="NO_PROXY"):
            proxy_for("http://127.0.0.1:8080", trust_env=True, lent=trusting)
        assert proxy_for(PRODUCTION, trust_env=True, lent=trusting) is None
        assert proxy_for("http://127.0.0.1:8080", trust_env=True, lent=plain) is None
        no_proxies.setenv("NO_PROXY", "127.0.0.1")
        assert proxy_for("http://127.0.0.1:8080", trust_env=True, lent=trusting) is None


@pytest.mark.parametrize("key", ["qapi_k", b"qapi_k", pydantic.SecretStr("qapi_k")])
def test_the_key_may_be_text_bytes_or_a_secret(key: Any) -> None:
    """A key from a secret store goes as it is."""
    assert validate_key(key) == "qapi_k"


@pytest.mark.parametrize("key", [5, b"\xff", ["qapi_k"], object()])
def test_a_key_of_another_type_is_refused_by_its_name(key: Any) -> None:
    """The message names the type, and doesn't say that there is no key."""
    with pytest.raises(ConfigurationError, match=type(key).__name__):
        validate_key(key)


@pytest.mark.parametrize(
    ("raw", "advice"),
    [
        ("localhost:8000", "Put http://"),
        ("127.0.0.1:8000/base", "Put http://"),
        ("[::1]:8000", "Put http://"),
        ("api.prod.qualifi.hr", "Put https://"),
        ("api.example:8443", "Put https://"),
        ("organization:qapi_key", ""),
        ("localhost:port", ""),
    ],
)
def test_an_address_without_a_scheme_is_given_the_right_one(raw: str, advice: str) -> None:
    """The message says which scheme lacks; what may be a key is not repeated."""
    with pytest.raises(ConfigurationError) as caught:
        validate_base_url(raw)
    assert str(caught.value).endswith(f"{advice} before it." if advice else "form.")
    assert raw not in str(caught.value)
