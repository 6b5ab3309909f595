"""Google's own discovery documents: which method a request means, and whether it and its answer keep to the schemas.

They come with google-api-python-client. Each is read when the first request needs it, once per process.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from typing import Any

Json = dict[str, Any]

SERVICES = {
    "compute": "compute.v1",
    "cloudresourcemanager": "cloudresourcemanager.v3",
    "monitoring": "monitoring.v3",
    "cloudbilling": "cloudbilling.v1",
    "container": "container.v1",
    "iamcredentials": "iamcredentials.v1",
    "notebooks": "notebooks.v2",
    "tpu": "tpu.v2",
}
"""By first match: a path that two services have (operations of notebooks and TPUs) is told apart by its state."""
NO_LONGER_DOCUMENTED = {"returnPartialSuccess"}
"""Query parameters that Google took from the documents (partial success is the rule now) and goes on accepting."""
FORMATS = {
    "int64": r"-?\d+",
    "uint64": r"\d+",
    "google-datetime": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)",
    "google-duration": r"-?\d+(\.\d{1,9})?s",
    "byte": r"[A-Za-z0-9+/_-]*={0,2}",
}
RANGES = {"int32": (-(2**31), 2**31 - 1), "uint32": (0, 2**32 - 1)}


class Misfit(Exception):
    """What was sent, or is about to be answered, is not of the form that Google describes."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """One method of a service, e.g. `compute.instances.stop`."""

    service: Service
    description: Json
    segments: Sequence[str]
    """Its path, `{name}` standing for anything."""

    @property
    def id(self) -> str:
        return str(self.description["id"])

    @property
    def http(self) -> str:
        return str(self.description["httpMethod"])

    def names(self, segments: Sequence[str]) -> dict[str, str] | None:
        """What the path's variables stand for in these segments, None where it is not this path."""
        found: dict[str, str] = {}
        for template, segment in zip(self.segments, segments, strict=True):
            if not template.startswith("{"):
                if template != segment:
                    return None
                continue
            name, _, verb = template[1:].partition("}")
            if not segment.endswith(verb) or len(segment) == len(verb):
                return None
            found[name] = segment.removesuffix(verb)
        return found

    def check_path(self, names: Mapping[str, str]) -> None:
        for name, value in names.items():
            pattern = self.description["parameters"].get(name, {}).get("pattern")
            if pattern and not re.fullmatch(pattern, value):
                raise Misfit(f"Invalid value for field '{name}': '{value}'. Must be a match of regex '{pattern}'")

    def query(self, pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
        """The query's values by name, in the types that the method documents."""
        known = {**self.service.document["parameters"], **self.description.get("parameters", {})}
        found: dict[str, Any] = {}
        for name, text in pairs:
            how = known.get(name, {"type": "string"} if name in NO_LONGER_DOCUMENTED else {})
            if not how or how.get("location") == "path":
                raise Misfit(f'Invalid JSON payload received. Unknown name "{name}": Cannot bind query parameter.')
            value = _read(name, how, text)
            if how.get("repeated"):
                found.setdefault(name, []).append(value)
            elif name in found:
                raise Misfit(f"Invalid value at '{name}': it is given more than once.")
            else:
                found[name] = value
        for name, how in known.items():
            if how.get("required") and how.get("location") == "query" and name not in found:
                raise Misfit(f"Required field '{name}' not specified")
        return found

    def check_body(self, body: Any) -> None:
        schema = self.description.get("request")
        if schema is None:
            if body:
                raise Misfit(f"{self.id} takes no body.")
            return
        for problem in self.service.problems(schema, {} if body is None else body, at="resource", asked_for=self.id):
            raise Misfit(f"Invalid JSON payload received. {problem}")

    def check_answer(self, answer: Any) -> None:
        for problem in self.service.problems(self.description["response"], answer, at="answer", asked_for=None):
            raise Misfit(f"{self.id}: {problem}")

    def pick(self, answer: Json, mask: str) -> Json:
        """Of an answer what `fields` asks for."""
        wanted = _mask(mask)
        self.service.check_mask(self.description["response"], wanted)
        picked = _picked(answer, wanted)
        assert isinstance(picked, dict)
        return picked


class Service:
    def __init__(self, name: str) -> None:
        self.name = name

    @cached_property
    def document(self) -> Json:
        folder = files("googleapiclient.discovery_cache") / "documents"
        document: Json = json.loads((folder / f"{SERVICES[self.name]}.json").read_bytes())
        return document

    @cached_property
    def _methods(self) -> dict[tuple[str, int], list[Method]]:
        """By HTTP method and length of path; those with a verb (`…:stop`) before those that end in a variable."""
        base = self.document["servicePath"].strip("/")
        found: dict[tuple[str, int], list[Method]] = {}
        for description in _methods(self.document):
            segments = f"{base}/{description['flatPath']}".strip("/").split("/")
            method = Method(service=self, description=description, segments=segments)
            found.setdefault((method.http, len(segments)), []).append(method)
        for methods in found.values():
            methods.sort(
                key=lambda method: [segment.startswith("{") + segment.endswith("}") for segment in method.segments]
            )
        return found

    def find(self, http: str, segments: Sequence[str]) -> tuple[Method, dict[str, str]] | None:
        for method in self._methods.get((http, len(segments)), ()):
            if (names := method.names(segments)) is not None:
                return method, names
        return None

    def problems(self, schema: Json, value: Any, *, at: str, asked_for: str | None) -> Iterator[str]:
        """What is wrong with a value; `asked_for` is the method of a request, None for an answer.

        A request may say numbers for the integers that JSON cannot hold, and must say what its method requires.
        """
        if "$ref" in schema:
            schema = self.document["schemas"][schema["$ref"]]
        kind = schema.get("type")
        if kind == "object":
            yield from self._object_problems(schema, value, at=at, asked_for=asked_for)
        elif kind == "array":
            if not isinstance(value, list):
                yield f"Invalid value at '{at}': {value!r:.80} is no list."
                return
            for index, one in enumerate(value):
                yield from self.problems(schema["items"], one, at=f"{at}[{index}]", asked_for=asked_for)
        elif (
            problem := _problem(schema, kind, schema.get("format"), value, lenient=asked_for is not None)
        ) is not None:
            yield f"Invalid value at '{at}': {problem}"

    def _object_problems(self, schema: Json, value: Any, *, at: str, asked_for: str | None) -> Iterator[str]:
        if not isinstance(value, dict):
            yield f"Invalid value at '{at}': {value!r:.80} is no object."
            return
        properties, rest = schema.get("properties", {}), schema.get("additionalProperties")
        anything = not properties and rest is None
        for name, one in value.items():
            inner = properties.get(name, rest)
            if inner is not None and (one is not None or not asked_for):  # null in a request is what was not said
                yield from self.problems(inner, one, at=f"{at}.{name}", asked_for=asked_for)
            elif inner is None and not anything:
                yield f"Unknown name \"{name}\" at '{at}': Cannot find field."
        for name, inner in properties.items() if asked_for else ():
            if asked_for in inner.get("annotations", {}).get("required", ()) and name not in value:
                yield f"Required field '{name}' not specified at '{at}'."

    def check_mask(self, schema: Json, wanted: Mapping[str, Any]) -> None:
        schema = self.document["schemas"][schema["$ref"]] if "$ref" in schema else schema
        while schema.get("type") == "array":
            schema = schema["items"]
            schema = self.document["schemas"][schema["$ref"]] if "$ref" in schema else schema
        for name, inner in wanted.items():
            properties, rest = schema.get("properties", {}), schema.get("additionalProperties")
            chosen = [rest] if rest is not None else [*properties.values()] if name == "*" else [properties.get(name)]
            if (rest is not None and name != "*") or None in chosen:
                raise Misfit(f"Invalid field selection {name}")
            for one in chosen if inner else ():
                self.check_mask(one, inner)


@cache
def service(name: str) -> Service:
    return Service(name)


def candidates(http: str, path: str) -> Iterator[tuple[Method, dict[str, str]]]:
    """The methods that a request may mean."""
    segments = path.strip("/").split("/")
    services = ["compute"] if segments[0] == "compute" else [name for name in SERVICES if name != "compute"]
    for name in services:
        if (found := service(name).find(http, segments)) is not None:
            yield found


def _methods(part: Json) -> Iterator[Json]:
    yield from part.get("methods", {}).values()
    for resource in part.get("resources", {}).values():
        yield from _methods(resource)


def _problem(schema: Json, kind: str | None, form: str | None, value: Any, *, lenient: bool) -> str | None:
    """What is wrong with a plain value."""
    said = f"{value!r:.80}"
    if kind == "string":
        if lenient and form in {"int64", "uint64"} and isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str):
            return f"{said} is no string."
        if "enum" in schema and value not in schema["enum"]:
            return f"{said} is none of {', '.join(schema['enum'])}."
        if form in FORMATS and not re.fullmatch(FORMATS[form], value):
            return f"{said} is not of format {form}."
        if "pattern" in schema and not re.fullmatch(schema["pattern"], value):
            return f"{said} must be a match of regex '{schema['pattern']}'."
    elif kind == "integer":
        low, high = RANGES.get(form or "", (-(2**63), 2**63 - 1))
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            return f"{said} is no integer of format {form}."
    elif kind == "number":
        if not isinstance(value, int | float) or isinstance(value, bool):
            return f"{said} is no number."
    elif kind == "boolean" and not isinstance(value, bool):
        return f"{said} is no boolean."
    return None


def _read(name: str, how: Json, text: str) -> Any:
    """A query parameter in its type."""
    value: Any = text
    if how["type"] == "boolean":
        value = {"true": True, "false": False}.get(text.lower(), text)
    elif how["type"] in {"integer", "number"}:
        value = int(text) if re.fullmatch(r"-?\d+", text) else text
        if isinstance(value, int) and value < int(how.get("minimum", value)):
            raise Misfit(f"Invalid value for field '{name}': '{text}'. It must not be less than {how['minimum']}.")
    if (problem := _problem(how, how["type"], how.get("format"), value, lenient=False)) is not None:
        raise Misfit(f"Invalid value at '{name}' ({how['type']}): {problem}")
    return value


def _mask(text: str) -> dict[str, Any]:
    """`a,b/c,d(e,f)` as a tree; an empty one means everything below."""
    tokens = re.findall(r"[^,/()]+|[,/()]", text)

    def several() -> dict[str, Any]:
        found: dict[str, Any] = {}
        while True:
            one(found)
            if tokens[:1] != [","]:
                return found
            del tokens[0]

    def one(into: dict[str, Any]) -> None:
        if not tokens or tokens[0] in ",/()":
            raise Misfit(f"Invalid field selection {text}")
        inner: dict[str, Any] = into.setdefault(tokens.pop(0).strip(), {})
        mark = tokens[0] if tokens and tokens[0] in "/(" else ""
        del tokens[: len(mark)]
        if mark == "/":
            one(inner)
        elif mark == "(":
            inner.update(several())
            if tokens[:1] != [")"]:
                raise Misfit(f"Invalid field selection {text}")
            del tokens[0]

    found = several()
    if tokens:
        raise Misfit(f"Invalid field selection {text}")
    return found


def _picked(value: Any, wanted: Mapping[str, Any]) -> Any:
    if not wanted:
        return value
    if isinstance(value, list):
        return [_picked(one, wanted) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        name: _picked(one, wanted.get(name, wanted.get("*")))
        for name, one in value.items()
        if name in wanted or "*" in wanted
    }
