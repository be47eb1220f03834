"""The OpenAPI document, as checks: is this answer, this request, this event documented?"""

import copy
import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml  # type: ignore[import-untyped,unused-ignore]  # stubs are a tool, not a dependency
from jsonschema import (  # type: ignore[import-untyped,unused-ignore]  # as above
    Draft202012Validator,
    FormatChecker,
)
from referencing import Registry
from referencing.jsonschema import DRAFT202012

DOCUMENT = Path(__file__).with_name("gather-openapi.yaml")
METHODS = ("get", "post", "put", "patch", "delete")


def _is_date_time(value: object) -> bool:
    if not isinstance(value, str):
        return True
    try:
        return datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


def _is_uri(value: object) -> bool:
    return not isinstance(value, str) or bool(urlsplit(value).scheme and urlsplit(value).netloc)


def _is_email(value: object) -> bool:
    return not isinstance(value, str) or re.fullmatch(r"[^@\s]+@[^@\s]+", value) is not None


FORMATS = FormatChecker(formats=())
FORMATS.checks("date-time")(_is_date_time)
FORMATS.checks("uri")(_is_uri)
FORMATS.checks("email")(_is_email)


class Contract:
    """The document, closed: an undocumented property is an error, in requests and in answers.

    The document itself leaves every object open, because the real server may
    send more. Neither our server nor our client may.
    """

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        closed = copy.deepcopy(document)
        # Documented as sent unless includeTeams is false, under a name that is not visible.
        closed["components"]["schemas"]["User"]["properties"]["teams"] = {"type": "array"}
        for name, schema in closed["components"]["schemas"].items():
            if not name.endswith("Event"):
                _close(schema)
        for shapes in closed["paths"].values():
            _close(shapes)
        self._registry = Registry().with_resource("urn:gather", DRAFT202012.create_resource(closed))
        self.operations: dict[str, tuple[str, str]] = {
            operation["operationId"]: (method.upper(), path)
            for path, shapes in document["paths"].items()
            for method, operation in shapes.items()
            if method in METHODS
        }

    @property
    def public_operations(self) -> set[str]:
        """All operations but the vendor's internal ones."""
        return {
            name
            for name, (method, path) in self.operations.items()
            if not self._operation(method, path).get("x-internal")
        }

    def find(self, method: str, path: str) -> str:
        """Return the operationId of a request; the most literal path wins."""
        fits = [
            (template.count("{"), name)
            for name, (documented, template) in self.operations.items()
            if documented == method
            and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path) is not None
        ]
        assert fits, f"{method} {path} is not documented"
        return min(fits)[1]

    def check_answer(self, name: str, status: int, headers: Mapping[str, str], body: Any) -> None:
        """Assert that an operation may give this answer."""
        method, path = self.operations[name]
        responses = self._operation(method, path)["responses"]
        key = str(status) if str(status) in responses else f"{status // 100}XX"
        if key not in responses:
            assert status >= 400, f"{name} has no documented success {status}"
            self.check_schema("ErrorEnvelope", body)
            return
        base = f"/paths/{_escape(path)}/{method.lower()}/responses/{key}"
        if "$ref" in responses[key]:
            base = responses[key]["$ref"].removeprefix("#")
        assert headers["Content-Type"].startswith("application/json")
        self._check(f"{base}/content/application~1json/schema", body)
        for header, rule in self._resolve(base).get("headers", {}).items():
            if header in headers:
                assert re.fullmatch("[0-9]+", headers[header]), f"{header}: {headers[header]}"
                assert rule["$ref"].startswith("#/components/headers/")

    def check_request(self, method: str, path: str, query: Mapping[str, Any], body: Any) -> str:
        """Assert that a request is documented; returns its operationId."""
        name = self.find(method, path)
        template = self.operations[name][1]
        operation = self._operation(method, template)
        parameters = {item["name"]: item for item in operation.get("parameters", ())}
        # Advice of gather-api-unknowns: the list of questions takes a page and nothing else.
        if name == "listQuestions":
            parameters["page"] = {"schema": {"type": "integer", "minimum": 1}}
        for parameter, values in query.items():
            assert parameter in parameters, f"{name} has no parameter {parameter}"
            assert len(values) == 1, f"{parameter} is repeated"
            self._validate(parameters[parameter]["schema"], _typed(values[0]))
        if "requestBody" in operation:
            base = f"/paths/{_escape(template)}/{method.lower()}/requestBody"
            self._check(f"{base}/content/application~1json/schema", body)
        else:
            assert body is None, f"{name} has no body"
        return name

    def check_event(self, event: str, signature: str, body: Any) -> None:
        """Assert that a webhook delivery is as documented."""
        shape = self.document["webhooks"][event]["post"]
        schema = shape["requestBody"]["content"]["application/json"]["schema"]
        self._validate(schema, body)
        header = self.document["components"]["parameters"]["X-Qualifi-Signature"]
        assert re.fullmatch(header["schema"]["pattern"], signature)

    def check_schema(self, name: str, value: Any) -> None:
        """Assert that a value fits a schema of the document."""
        self._check(f"/components/schemas/{name}", value)

    def properties(self, name: str) -> set[str]:
        """Return the property names of a schema."""
        return set(self.document["components"]["schemas"][name]["properties"])

    def _check(self, pointer: str, value: Any) -> None:
        self._validate({"$ref": f"#{pointer}"}, value)

    def _validate(self, schema: Mapping[str, Any], value: Any) -> None:
        absolute = json.loads(json.dumps(schema).replace('"#/', '"urn:gather#/'))
        validator = Draft202012Validator(absolute, registry=self._registry, format_checker=FORMATS)
        errors = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]
        assert not errors, "; ".join(errors)[:2000]

    def _operation(self, method: str, path: str) -> dict[str, Any]:
        operation: dict[str, Any] = self.document["paths"][path][method.lower()]
        return operation

    def _resolve(self, pointer: str) -> dict[str, Any]:
        found: Any = self.document
        for part in pointer.strip("/").split("/"):
            found = found[part.replace("~1", "/")]
        assert isinstance(found, dict)
        return found


def _close(schema: Any) -> None:
    """Forbid properties that a schema doesn't name."""
    for part in _parts(schema):
        if isinstance(part.get("properties"), dict) and "allOf" not in part:
            part.setdefault("additionalProperties", False)


def _parts(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from _parts(value)
    elif isinstance(node, list):
        for value in node:
            yield from _parts(value)


def _typed(value: str) -> Any:
    """Return a query value as the JSON value that it stands for."""
    if value in {"true", "false"}:
        return value == "true"
    return int(value) if re.fullmatch("[0-9]+", value) else value


def _escape(path: str) -> str:
    return path.replace("~", "~0").replace("/", "~1")


@pytest.fixture(scope="session")
def contract() -> Contract:
    """The document, loaded once."""
    return Contract(yaml.safe_load(DOCUMENT.read_text(encoding="utf-8")))
