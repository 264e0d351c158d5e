"""Objects of a bucket behind an S3 API. The one place that knows obstore, which makes its own requests (see the ADR on it).

Credentials come from the environment only, in AWS's way: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the machine's own role.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from obstore.exceptions import BaseError
from obstore.store import S3Store

from hansa.errors import Misconfigured, Unavailable
from hansa.settings import ArtifactSettings

RETRIES = 3


class Bucket:
    """A bucket, or what lies under a prefix of it."""

    def __init__(self, bucket: str, prefix: str, settings: ArtifactSettings) -> None:
        self.name = f"s3://{bucket}/{prefix}".rstrip("/")
        seconds = timedelta(seconds=settings.timeout_seconds)
        endpoint = settings.endpoint or f"https://s3.{settings.region}.amazonaws.com"
        try:
            self._store = S3Store(
                bucket,
                prefix=prefix or None,
                region=settings.region,
                endpoint=endpoint,
                checksum_algorithm="sha256",  # the server refuses what arrives with another
                disable_bulk_delete=True,  # not every S3 API has it
                client_options={"allow_http": endpoint.startswith("http://"), "timeout": seconds, "connect_timeout": seconds},
                retry_config={"max_retries": RETRIES, "retry_timeout": seconds},
            )
        except (BaseError, ValueError) as error:
            raise Misconfigured(f"the bucket {self.name} can't be used: {_told(error)}", hint="Look at HANSA_ARTIFACTS_*.") from error

    async def put(self, key: str, body: bytes) -> None:
        async with self._translated("written"):
            await self._store.put_async(key, body, use_multipart=False)

    async def get(self, key: str) -> bytes | None:
        async with self._translated("read"):
            try:
                found = await self._store.get_async(key)
                return bytes(await found.bytes_async())
            except FileNotFoundError:
                return None

    async def delete(self, key: str) -> None:
        async with self._translated("deleted"):
            try:
                await self._store.delete_async(key)
            except FileNotFoundError:
                return

    async def clear(self, prefix: str) -> None:
        """Nothing is: a bucket has no folders."""

    async def keys(self, prefix: str, limit: int | None = None) -> list[str]:
        async with self._translated("listed"):
            found: list[str] = []
            store: Any = self._store  # what it may also answer with is of a package that is not here
            async for batch in store.list(prefix):
                found.extend(each["path"] for each in batch)
                if limit is not None and len(found) >= limit:
                    break
            return found[:limit]

    @asynccontextmanager
    async def _translated(self, what: str) -> AsyncIterator[None]:
        try:
            yield
        except (BaseError, OSError) as error:
            raise Unavailable(
                f"an artifact can't be {what} in {self.name}: {_told(error)}",
                hint="Look at the bucket, its endpoint and the credentials in the environment.",
                retry_after=5.0,
            ) from error


def _told(error: Exception) -> str:
    """The first line of what obstore says; the rest is a dump of its own structures."""
    return str(error).strip().split("\n", 1)[0][:200]
