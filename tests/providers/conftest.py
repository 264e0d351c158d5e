"""Fixtures for provider plugins: a real HTTP server that speaks their protocols, and what core lends them."""

import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2
import pytest

from doubles.llm_upstream import LLMUpstream
from hansa_sdk import ProviderServices


@pytest.fixture
def upstream() -> Iterator[LLMUpstream]:
    with LLMUpstream() as server:
        yield server


@pytest.fixture(scope="session")
def tls() -> ssl.SSLContext:
    """Made once: reading all the world's certificates takes longer than most tests here, and none of them needs one."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@pytest.fixture
async def services(tls: ssl.SSLContext, tmp_path: Path) -> AsyncIterator[ProviderServices]:
    async with httpx2.AsyncClient(trust_env=False, verify=tls) as http:
        yield ProviderServices(http=http, data_dir=tmp_path)
