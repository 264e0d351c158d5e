"""Requests about objects and their owners, as people, a repository and a cluster make them."""

from typing import Any

import httpx2

Manifest = dict[str, Any]
Result = dict[str, Any]


def git(origin: str, commit: str = "c0ffee") -> dict[str, str]:
    """What a source of Git says of itself."""
    return {"manager": "git", "origin": f"https://git.example/{origin}.git//", "commit": commit}


def kubernetes(cluster: str) -> dict[str, str]:
    """What the operator says of itself."""
    return {"manager": "kubernetes", "origin": cluster}


def at(file: str, line: int) -> dict[str, Any]:
    """A place in a file."""
    return {"file": file, "line": line, "column": 1}


async def answer(api: httpx2.AsyncClient, verb: str, body: dict[str, Any], **options: Any) -> dict[str, Any]:
    """What the API says to objects:apply, objects:plan or objects:delete."""
    found = await api.post(f"/v1/objects:{verb}", json=body, **options)
    assert found.status_code == 200, found.text
    said = found.json()
    assert said["failed"] == sum(each["action"] == "failed" for each in said["results"])
    return said


async def apply(
    api: httpx2.AsyncClient, *manifests: Manifest, owner: dict[str, Any] | None = None, places: list[Any] | None = None, **more: Any
) -> list[Result]:
    """What became of manifests; `places`: where each is written."""
    objects = [{"manifest": each, "source": place} for each, place in zip(manifests, places or [None] * len(manifests), strict=True)]
    return (await answer(api, "apply", {**(owner or {}), "objects": objects, **more}))["results"]


async def delete(api: httpx2.AsyncClient, *names: tuple[str, str], owner: dict[str, Any] | None = None, **more: Any) -> list[Result]:
    """What became of objects by kind and name."""
    objects = [{"kind": kind, "name": name} for kind, name in names]
    return (await answer(api, "delete", {**(owner or {}), "objects": objects, **more}))["results"]


async def stored(api: httpx2.AsyncClient, kind: str, name: str) -> dict[str, Any]:
    """An object as it is kept."""
    found = await api.get(f"/v1/objects/{kind}/{name}")
    assert found.status_code == 200, found.text
    return found.json()


def actions(results: list[Result]) -> list[str]:
    return [each["action"] for each in results]


def error(result: Result) -> dict[str, Any]:
    """The one thing that is wrong with an object."""
    assert result["action"] == "failed", result
    (found,) = result["errors"]
    return found


def tenant(name: str, **spec: Any) -> Manifest:
    return {"apiVersion": "hansa.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": name}, "spec": spec}


def within(namespace: str, manifest: Manifest) -> Manifest:
    return {**manifest, "metadata": {**manifest["metadata"], "namespace": namespace}}


def provider(name: str, alias: str) -> Manifest:
    """A provider with one model."""
    spec = {"plugin": "scripted", "models": [{"name": "m", "aliases": [alias]}]}
    return {"apiVersion": "hansa.dev/v1alpha1", "kind": "ModelProvider", "metadata": {"name": name}, "spec": spec}
