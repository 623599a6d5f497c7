"""The API's document as a page to read: no script, and nothing from elsewhere."""

from collections.abc import Iterable
from html import escape
from typing import Any

import orjson

Json = dict[str, Any]

HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><link rel="stylesheet" href="/assets/page.css"><link rel="icon" href="/assets/icon.svg"></head>
<body><header><h1>{title}</h1><nav aria-label="Pages"><a href="/">Explorer</a> <a href="/models">Models</a>
<a href="/releases">Releases</a>
<a href="/docs" aria-current="page">API</a></nav></header><main>
<p>{description}</p><p><a href="/openapi.json">The same as OpenAPI 3.1</a>, version {version}.</p>
"""


def docs_page(api: Json) -> str:
    info = api["info"]
    head = HEAD.format(**{name: escape(info[name]) for name in ("title", "description", "version")})
    operations = [
        _operation(api, path, method, operation)
        for path, methods in api["paths"].items()
        for method, operation in methods.items()
    ]
    schemas = [_schema(name, schema) for name, schema in api["components"]["schemas"].items()]
    parts = [head, "<h2>Paths</h2>", *operations, "<h2>Schemas</h2>", *schemas, "</main></body></html>\n"]
    return "\n".join(parts)


def _operation(api: Json, path: str, method: str, operation: Json) -> str:
    name = operation["operationId"]
    lines = [
        f'<section aria-labelledby="{name}"><h3 id="{name}"><code>{method.upper()} {escape(path)}</code></h3>',
        f"<p>{escape(operation['summary'])}. {_marked(operation.get('description', ''))}</p>",
    ]
    if operation.get("parameters"):
        rows = [
            (f"<code>{escape(p['name'])}</code>", p["in"], _type(p["schema"]), escape(p.get("description", "")))
            for p in operation["parameters"]
        ]
        lines.append(_table(("parameter", "in", "type", "meaning"), rows))
    if "requestBody" in operation:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        lines.append(f"<p>Body, JSON:</p>{_code(schema)}")
    codes = [(code, escape(_resolved(api, response)["description"]), _returns(_resolved(api, response)))
            for code, response in sorted(operation["responses"].items())]  # fmt: skip
    return "\n".join([*lines, _table(("status", "meaning", "schema"), codes), "</section>"])


def _returns(response: Json) -> str:
    return " ".join(_type(content["schema"]) for content in response.get("content", {}).values())


def _resolved(api: Json, value: Json) -> Json:
    if "$ref" not in value:
        return value
    for part in value["$ref"].removeprefix("#/").split("/"):
        api = api[part]
    return api


def _type(schema: Json) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f'<a href="#schema-{name}">{name}</a>'
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    return escape(str(schema.get("type", "any")))


def _schema(name: str, schema: Json) -> str:
    return f'<h3 id="schema-{name}">{name}</h3>{_code(schema)}'


def _code(value: Json) -> str:
    return f'<pre tabindex="0">{escape(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())}</pre>'


def _table(names: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _marked(text: str) -> str:
    """Escaped, with what stands between backticks as code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if place % 2 else part for place, part in enumerate(parts))
