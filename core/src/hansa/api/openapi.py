"""The OpenAPI 3.1 document, built from the routes themselves, and a page that shows it and asks no other host.

What a handler names in `opt` is what is documented: permission, body, answer and query.
"""

from datetime import date, datetime
from importlib import resources
from typing import Any
from uuid import UUID

import msgspec
from litestar import Litestar, MediaType, Response, get
from litestar.handlers import HTTPRouteHandler

from hansa.api import requests
from hansa.api.services import AnyRequest
from hansa.errors import NotFound
from hansa.server.problem import Problem

SCHEMA = "#/components/schemas/{name}"
PLAIN: dict[type, dict[str, Any]] = {
    int: {"type": "integer"},
    str: {"type": "string"},
    UUID: {"type": "string", "format": "uuid"},
    datetime: {"type": "string", "format": "date-time"},
    date: {"type": "string", "format": "date"},
}
ASSETS = {"swagger-ui.css": "text/css", "swagger-ui-bundle.js": "text/javascript", "favicon-32x32.png": "image/png"}
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Hansa API</title><link rel="icon" href="/docs/favicon-32x32.png">
<link rel="stylesheet" href="/docs/swagger-ui.css"></head>
<body><div id="swagger-ui"></div><script src="/docs/swagger-ui-bundle.js"></script><script src="/docs/start.js"></script></body></html>
"""
START = 'SwaggerUIBundle({url: "/v1/openapi.json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null});\n'


def document(app: Litestar) -> dict[str, Any]:
    """The whole document."""
    found = [(route.path, method, handler) for route in app.routes for method, handler in _operations(route)]
    types = {opt for _, _, handler in found for opt in _types(handler)} | {Problem}
    schemas, components = msgspec.json.schema_components(list(types), ref_template=SCHEMA)
    refs = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for path, method, handler in sorted(found, key=lambda each: each[:2]):
        paths.setdefault(path.replace(":str}", "}"), {})[method.lower()] = _operation(path, method, handler, refs)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Hansa", "version": "v1", "description": "Durable agents for many tenants in many regions."},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "An API key: hsa_..."}},
        },
    }


def _operations(route: Any) -> list[tuple[str, HTTPRouteHandler]]:
    handlers: dict[str, tuple[HTTPRouteHandler, Any]] = getattr(route, "route_handler_map", {})
    return [(method, pair[0]) for method, pair in handlers.items() if method in ("GET", "POST", "PUT", "DELETE")]


def _types(handler: HTTPRouteHandler) -> list[Any]:
    return [handler.opt[name] for name in ("body", "answer") if name in handler.opt and not isinstance(handler.opt[name], str)]


def _operation(path: str, method: str, handler: HTTPRouteHandler, refs: dict[Any, Any]) -> dict[str, Any]:
    opt, status = handler.opt, str(handler.status_code)
    problem = {"description": "An error.", "content": {"application/problem+json": {"schema": refs[Problem]}}}
    operation: dict[str, Any] = {
        "operationId": handler.handler_name,
        "summary": " ".join((handler.fn.__doc__ or "").split()),
        "tags": [path.split("/")[2].split(":")[0] if path.startswith("/v1/") else "process"],
        "parameters": [*_path_parameters(path), *_query_parameters(opt), *_header_parameters(method, opt)],
        "responses": {status: _answer(opt, refs), "default": problem},
    }
    if "wait" in opt.get("query", {}):
        operation["responses"]["200"] = _answer(opt, refs)
    if "body" in opt:
        kind, schema = (opt["body"], {"type": "string"}) if isinstance(opt["body"], str) else ("application/json", refs[opt["body"]])
        operation["requestBody"] = {"required": True, "content": {kind: {"schema": schema}}}
    if "permission" in opt:
        operation["security"] = [{"key": []}]
        operation["x-permission"] = opt["permission"]
    return operation


def _answer(opt: dict[str, Any], refs: dict[Any, Any]) -> dict[str, Any]:
    answer = opt.get("answer")
    if answer is None:
        return {"description": "Done."}
    if isinstance(answer, str):
        return {"description": "Answered.", "content": {answer: {"schema": {"type": "string"}}}}
    schema = refs[answer]
    if getattr(answer, "__origin__", None) is list:
        schema = {
            "type": "object",
            "properties": {"data": schema, "has_more": {"type": "boolean"}, "next": {"type": ["string", "integer", "null"]}},
            "required": ["data", "has_more", "next"],
        }
    return {"description": "Answered.", "content": {"application/json": {"schema": schema}}}


def _path_parameters(path: str) -> list[dict[str, Any]]:
    names = [part[1:].split(":")[0] for part in path.split("/") if part.startswith("{")]
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


def _query_parameters(opt: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"name": name, "in": "query", "required": False, "schema": PLAIN[type_]} for name, type_ in requests.parameters(opt).items()]


def _header_parameters(method: str, opt: dict[str, Any]) -> list[dict[str, Any]]:
    if method != "POST" or "permission" not in opt:
        return []
    return [{"name": "Idempotency-Key", "in": "header", "required": False, "schema": {"type": "string", "maxLength": 255}}]


@get("/v1/openapi.json", opt={"public": True, "answer": dict[str, Any]})
async def openapi_json(request: AnyRequest) -> Response[bytes]:
    """The OpenAPI document of this API."""
    return Response(msgspec.json.encode(document(request.app)), media_type="application/json")


@get("/docs", opt={"public": True, "answer": "text/html"}, media_type=MediaType.HTML)
async def docs_page() -> Response[str]:
    """The documentation page."""
    return Response(PAGE, media_type=MediaType.HTML, headers={"content-security-policy": CSP})


@get("/docs/{name:str}", opt={"public": True, "answer": "*/*"})
async def docs_asset(name: str) -> Response[bytes]:
    """A part of the documentation page, from the installed Swagger UI."""
    if name == "start.js":
        return Response(START.encode(), media_type="text/javascript")
    if name not in ASSETS:
        raise NotFound(f"there is no {name[:80]!r} here")
    vendor = resources.files("swagger_ui_bundle").joinpath("vendor")
    folder = next(each for each in vendor.iterdir() if each.name.startswith("swagger-ui-"))
    return Response(folder.joinpath(name).read_bytes(), media_type=ASSETS[name], headers={"cache-control": "max-age=3600"})


HANDLERS = (openapi_json, docs_page, docs_asset)
