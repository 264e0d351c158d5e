"""Secrets in a folder that something else fills, such as a mounted Kubernetes Secret: `<folder>/<tenant>/<path>`.

A folder's files are its keys; a file alone has the key `value`. Read anew each time: what is mounted changes under us.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from hansa_sdk import SecretRefused, SecretServices, SecretSource, SecretUnavailable

SETTING = "HANSA_SECRETS_FOLDER"
LARGEST = 65_536


class Folder:
    """Implements `hansa_sdk.SecretSource`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def read(self, tenant: str, path: str) -> Mapping[str, str]:
        return await asyncio.to_thread(self._values, tenant, path)

    def _values(self, tenant: str, path: str) -> Mapping[str, str]:
        if not self._path.is_dir():
            raise SecretUnavailable(f"the folder {self._path} is not there", hint=f"{SETTING} names it; is it mounted?")
        own = (self._path / tenant).resolve()
        place = (own / path).resolve()  # a mounted Secret is made of links, which stay within its folder
        if not own.is_relative_to(self._path.resolve()) or own == self._path.resolve() or not place.is_relative_to(own):
            raise SecretRefused(f"{path!r} leads out of the tenant's folder")
        try:
            if place.is_dir():
                return {file.name: _read(file) for file in sorted(place.iterdir()) if file.is_file() and not file.name.startswith(".")}
            return {"value": _read(place)}
        except FileNotFoundError:
            raise SecretRefused(
                f"there is no {path!r} in the folder of tenant {tenant!r}", hint="Mount it, or name another path."
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise SecretUnavailable(f"{path!r} of tenant {tenant!r} can't be read ({type(error).__name__})") from None


def _read(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise SecretRefused(f"{path.name!r} is larger than {LARGEST} bytes")
    return content.decode().removesuffix("\n")


@asynccontextmanager
async def open_folder(services: SecretServices) -> AsyncIterator[SecretSource]:
    """The folder that the setting names."""
    path = services.settings.get("folder", "")
    if not path:
        raise SecretRefused(f"{SETTING} is not set", hint="It names the folder below which each tenant has its own.")
    yield Folder(Path(path))
