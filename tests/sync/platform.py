"""The real control plane, as the engine and the command see it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cli.command import environment
from hansa.apply.repository.git import open_git
from hansa.apply.repository.location import locate
from hansa.apply.repository.model import Verify
from hansa.apply.repository.settings import GitSettings
from hansa.apply.sync.engine import Sync
from hansa.apply.sync.model import Report
from hansa.cli.client import Api, Json
from hansa.cli.connection import Target
from hansa.cli.sync_api import SourceApi
from hansa.egress.local import open_local_client
from repository.repos import GitRepo
from stack import Process, Stack


@contextmanager
def open_api(stack: Stack, control_plane: Process) -> Iterator[Api]:
    """The API with a key that may no more than what applies objects has to: the role `reconciler`."""
    with speaking(control_plane.url, stack.key) as first:
        made = first.post("/v1/api-keys", {"name": "sync", "roles": ["reconciler"]})
        with speaking(control_plane.url, made["key"]) as api:
            yield api
        first.delete(f"/v1/api-keys/{made['id']}")


@contextmanager
def speaking(url: str, key: str) -> Iterator[Api]:
    """The API with a key."""
    with open_local_client(url, {"authorization": f"Bearer {key}"}, 30.0) as client:
        yield Api(client, Target(url, key, "--url", "--api-key-file"))


async def passed(api: Api, repo: GitRepo, *, verify: Verify = "none", allow_mass_delete: bool = False, signers: str = "") -> Report:
    """One pass of a new process over a repository."""
    async with open_git(locate(str(repo.folder)), GitSettings(allowed_signers_file=signers), ref="main", verify=verify) as source:
        return await Sync(source, SourceApi(api, source.origin), allow_mass_delete=allow_mass_delete).once()


def names(api: Api, repo: GitRepo) -> set[str]:
    """What a repository owns in the tenant of the key, as `Agent/a`."""
    origin = f"file://{repo.folder}//"
    return {f"{each['kind']}/{each['name']}" for each in api.entries("/v1/objects", {"manager": "git", "origin": origin}, None)}


def told(api: Api, repo: GitRepo) -> Json:
    """What the control plane knows of a repository."""
    (found,) = [each for each in api.entries("/v1/sources", {}, None) if each["origin"] == f"file://{repo.folder}//"]
    return found


def clear(api: Api, repo: GitRepo) -> None:
    """Delete what a repository owns."""
    origin = f"file://{repo.folder}//"
    found = api.entries("/v1/objects", {"manager": "git", "origin": origin}, None)
    objects = [{"kind": each["kind"], "name": each["name"]} for each in found]
    api.post("/v1/objects:delete", {"manager": "git", "origin": origin, "objects": objects, "allow_mass_delete": True})


def spoken(api: Api, folder: Path) -> dict[str, str]:
    """The environment of a command that speaks to the same control plane with the same key, with a data folder of its own."""
    return environment(HANSA_URL=api.target.url, HANSA_API_KEY=api.target.key, HANSA_DATA_DIR=str(folder), HANSA_LOG_FORMAT="json")
