"""`/docs`: the API's reference page, rendered here from OpenAPI: it needs no network and no script."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import HTMLResponse

router = APIRouter(include_in_schema=False)

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1c2330; }
code { font: 14px/1.4 ui-monospace, monospace; } summary { cursor: pointer; padding: .3rem 0; }
summary b { display: inline-block; width: 4.5rem; color: #0b5d8a; } summary code { font-weight: 600; }
details { border-top: 1px solid #d7dce3; } details > div { padding: 0 0 1rem 4.8rem; }
table { border-collapse: collapse; } td { padding: .15rem 1rem .15rem 0; vertical-align: top; }
.dim { color: #5b6472; } h2 { margin-top: 2rem; text-transform: capitalize; }
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY = f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; frame-ancestors 'none'"

Spec = Mapping[str, Any]


@router.get("/docs")
def docs(request: Request) -> HTMLResponse:
    app: FastAPI = request.app
    return HTMLResponse(_page(app.openapi()), headers={"Content-Security-Policy": POLICY})


def _page(spec: Spec) -> str:
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f"<title>{escape(spec['info']['title'])} API</title><style>{STYLE}</style>",
        f"<h1>{escape(spec['info']['title'])} API</h1>",
        f"<p>{_coded(spec['info']['description'])}</p>",
        "<p>For programs: <a href=openapi.json>openapi.json</a>. Send <code>Authorization: Bearer …</code>.</p>",
    ]
    by_tag: dict[str, list[str]] = {}
    for path, operations in spec["paths"].items():
        for method, operation in operations.items():
            tag = operation.get("tags", ["other"])[0]
            by_tag.setdefault(tag, []).append("".join(_operation(spec, method, path, operation)))
    for tag, found in by_tag.items():
        parts += [f"<h2 id={escape(tag)}>{escape(tag)}</h2>", *found]
    return "\n".join(parts)


def _coded(text: str) -> str:
    """Text with what stands in backticks set as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _operation(spec: Spec, method: str, path: str, operation: Spec) -> Iterator[str]:
    head = f"<b>{method.upper()}</b> <code>{escape(path)}</code> {escape(operation['summary'])}"
    yield f"<details><summary>{head}</summary><div>"
    if operation.get("description"):
        yield f"<p>{_coded(operation['description'])}</p>"
    parameters = operation.get("parameters", [])
    if parameters:
        rows = [
            (entry["name"], entry["in"], _type(entry["schema"]), entry.get("description", "")) for entry in parameters
        ]
        yield _table("Parameters", rows)
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        yield _table(f"Body, {media}", _fields(spec, content["schema"]))
    answers = [(status, answer["description"], *_shape(answer)) for status, answer in operation["responses"].items()]
    yield _table("Answers", answers)
    yield "</div></details>"


def _table(title: str, rows: Sequence[tuple[str, ...]]) -> str:
    body = "".join(
        "<tr>" + f"<td><code>{escape(row[0])}</code>" + "".join(f"<td class=dim>{escape(cell)}" for cell in row[1:])
        for row in rows
    )
    return f"<p>{escape(title)}</p><table>{body}</table>" if rows else ""


def _shape(answer: Spec) -> tuple[str, ...]:
    return tuple(_type(content.get("schema", {})) for content in answer.get("content", {}).values())


def _fields(spec: Spec, schema: Spec, within: str = "") -> list[tuple[str, ...]]:
    """The fields of a body and of the parts in it; alternatives one after the other, what they share once."""
    schema = _resolved(spec, schema)
    if "oneOf" in schema:
        return list(dict.fromkeys(row for alternative in schema["oneOf"] for row in _fields(spec, alternative)))
    if "properties" not in schema:
        return [(_type(schema), schema.get("description", ""))]
    required = schema.get("required", ())
    rows: list[tuple[str, ...]] = []
    for name, field in schema["properties"].items():
        needed = "required" if name in required else ""
        rows.append((f"{within}{name}", _type(field), needed, field.get("description", "")))
        if not within and "properties" in _resolved(spec, field):
            rows += _fields(spec, field, within=f"{name}.")
    return rows


def _resolved(spec: Spec, schema: Spec) -> Spec:
    while "$ref" in schema:
        schema = spec["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def _type(schema: Spec) -> str:
    """A schema in a word or two."""
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    for word in ("anyOf", "oneOf"):
        if word in schema:
            return " or ".join(dict.fromkeys(_type(alternative) for alternative in schema[word]))
    if "enum" in schema:
        return " | ".join(str(value) for value in schema["enum"])
    if "const" in schema:
        return str(schema["const"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return str(schema.get("format") or schema.get("type") or "anything")
