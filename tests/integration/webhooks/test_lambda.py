"""Deliveries by way of AWS Lambda: every event of a gateway, a URL or a load balancer."""

import base64
from collections.abc import Mapping
from typing import Any

import pytest

from gather_async.webhooks import SignedSample, WebhookReceiver, sample

SECRET = "s3cret"


def gateway_2(path: str, headers: Mapping[str, str]) -> dict[str, Any]:
    """Return a request of an HTTP API, or of a Lambda URL: payload version 2."""
    return {
        "version": "2.0",
        "rawPath": path,
        "headers": {name.lower(): value for name, value in headers.items()},
        "requestContext": {"http": {"method": "POST", "path": path}, "stage": "$default"},
    }


def gateway_1(path: str, headers: Mapping[str, str]) -> dict[str, Any]:
    """Return a request of a REST API: payload version 1."""
    return {
        "path": path,
        "httpMethod": "POST",
        "headers": {name.title(): value for name, value in headers.items()},
        "multiValueHeaders": {name.title(): [value] for name, value in headers.items()},
        "pathParameters": None,
        "requestContext": {"httpMethod": "POST", "stage": "prod"},
    }


def balancer(path: str, headers: Mapping[str, str]) -> dict[str, Any]:
    """Return a request of a load balancer."""
    return {
        "path": path,
        "httpMethod": "POST",
        "headers": {name.lower(): value for name, value in headers.items()},
        "requestContext": {"elb": {"targetGroupArn": "arn"}},
    }


def balancer_of_lists(path: str, headers: Mapping[str, str]) -> dict[str, Any]:
    """Return a request of a load balancer whose target group has multi-value headers."""
    event = balancer(path, headers)
    lists = {name: [value] for name, value in event.pop("headers").items()}
    return event | {"multiValueHeaders": lists, "multiValueQueryStringParameters": {}}


def with_body(event: dict[str, Any], body: bytes, *, in_base64: bool = False) -> dict[str, Any]:
    """Return a request with its body."""
    text = base64.b64encode(body).decode() if in_base64 else body.decode()
    return event | {"body": text, "isBase64Encoded": in_base64}


@pytest.fixture
def delivery() -> SignedSample:
    """Return a delivery that is signed now."""
    return sample("interview.updated", secret=SECRET)


@pytest.mark.parametrize("in_base64", [False, True])
@pytest.mark.parametrize("make", [gateway_2, gateway_1, balancer, balancer_of_lists])
async def test_every_form_is_taken(make: Any, delivery: SignedSample, *, in_base64: bool) -> None:
    """The signature is found in either form of headers, and the tenant in the path."""
    hooks = WebhookReceiver(secrets={"acme": SECRET, "globex": "other"})
    for tenant, status in (("acme", 200), ("globex", 401), ("unknown", 404)):
        event = make(f"/prod/webhooks/gather/{tenant}", delivery.headers)
        reply = await hooks.receive_lambda(with_body(event, delivery.body, in_base64=in_base64))
        assert reply["statusCode"] == status
        forms = {"headers": reply["headers"]}
        if make is balancer_of_lists:  # which reads no other headers in a reply, either
            forms["multiValueHeaders"] = {"content-type": ["application/json"]}
        assert {name: each for name, each in reply.items() if "eaders" in name} == forms
    await hooks.aclose()


async def test_what_is_refused(delivery: SignedSample) -> None:
    """What is no POST is 405; no base64, a parsed body and a missing one are no trusted body."""
    hooks = WebhookReceiver(SECRET)
    event = gateway_2("/", delivery.headers)

    async def status(**changed: Any) -> int:
        return (await hooks.receive_lambda(event | changed)).status

    assert await status(requestContext={"http": {"method": "GET"}}) == 405
    assert await status(body="%%%", isBase64Encoded=True) == 400
    assert await status(body={"event": "interview.updated"}) == 400
    assert await status(body=None) == 401
    assert await status(body=delivery.body.decode(), headers=None) == 401
    assert (await hooks.receive_lambda({})).status == 405
    await hooks.aclose()
