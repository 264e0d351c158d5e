"""What a stranger may send before there is a request: how long, how many, how slow. Each refusal is a whole problem, and closes."""

import asyncio
import time
from contextlib import AsyncExitStack

import pytest

from server.wire import dialled, get
from stack import Process, Stack

POST = b"POST /v1/sessions HTTP/1.1\r\nHost: hansa\r\n"
SMUGGLED = get()


def start_of_post(stack: Stack, length: bytes) -> bytes:
    """A request up to its body."""
    return POST + b"Authorization: Bearer " + stack.key.encode() + b"\r\n" + length + b"\r\n\r\n"


@pytest.fixture(scope="module")
def strict(stack: Stack) -> Process:
    """A control plane with small bounds."""
    return stack.serve(
        HANSA_SERVER_ADDRESS_BYTES="200",
        HANSA_SERVER_HEADER_BYTES="2000",
        HANSA_SERVER_HEADER_COUNT="20",
        HANSA_SERVER_HEADER_SECONDS="0.5",
        HANSA_SERVER_BODY_SECONDS="0.5",
        HANSA_SERVER_SEND_SECONDS="0.5",
        HANSA_SERVER_KEEP_ALIVE_SECONDS="0.5",
        HANSA_SERVER_CONNECTIONS="12",
        HANSA_SERVER_CONNECTIONS_PER_ADDRESS="8",
    )


async def test_a_long_address_is_refused(strict: Process) -> None:
    async with dialled(strict) as wire:
        await wire.send(get("/" + "x" * 200))
        found = (await wire.answer()).problem(414, "address_too_long")
        assert "200 bytes" in found["detail"]
        assert await wire.ended() == b""


async def test_an_address_just_within_the_bound_is_taken(strict: Process) -> None:
    async with dialled(strict) as wire:
        await wire.send(get("/" + "x" * 199))
        (await wire.answer()).problem(404, "not_found")


@pytest.mark.parametrize(
    "headers",
    [
        [f"x-{number}: 1" for number in range(20)],
        ["x: " + "y" * 2000],
        ["x" * 2000 + ": y"],
        [f"x-{number}: {'y' * 200}" for number in range(10)],
    ],
    ids=["many", "a long value", "a long name", "long together"],
)
async def test_too_many_headers_are_refused(strict: Process, headers: list[str]) -> None:
    async with dialled(strict) as wire:
        await wire.send(get("/livez", *headers))
        assert "20 headers" in (await wire.answer()).problem(431, "headers_too_large")["detail"]
        assert await wire.ended() == b""


async def test_a_header_that_never_ends_is_refused_before_it_does(strict: Process) -> None:
    async with dialled(strict) as wire:
        await wire.send(b"GET /livez HTTP/1.1\r\nHost: hansa\r\nx: " + b"y" * 2500)
        (await wire.answer()).problem(431, "headers_too_large")


async def test_as_many_headers_as_are_allowed_are_taken_each_time_on_one_connection(strict: Process) -> None:
    async with dialled(strict) as wire:
        for _ in range(3):
            await wire.send(get("/livez", *(f"x-{number}: {'y' * 80}" for number in range(19))))
            assert (await wire.answer()).status == 200


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /livez\r\n\r\n",
        b"GET /livez HTTP/1.1\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: hansa\r\nHost: other\r\n\r\n",
        b"GET /livez HTTP/3.7\r\nHost: hansa\r\n\r\n",
        b"CONNECT hansa:80 HTTP/1.1\r\nHost: hansa\r\n\r\n",
        b"GET /liv\xc3\xa9z HTTP/1.1\r\nHost: hansa\r\n\r\n",
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello" + SMUGGLED,
        POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        b"GET /livez HTTP/1.1\r\nHost : hansa\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: hansa\r\nx\x00y: z\r\n\r\n",
    ],
    ids=[
        "TLS",
        "HTTP/0.9",
        "no host",
        "two hosts",
        "HTTP/3.7",
        "CONNECT",
        "no ASCII",
        "two lengths",
        "length twice",
        "strange coding",
        "packed",
        "space",
        "NUL",
    ],
)
async def test_what_is_not_http_is_refused_once_and_nothing_after_it_is_read(strict: Process, sent: bytes) -> None:
    async with dialled(strict) as wire:
        await wire.send(sent)
        (await wire.answer()).problem(400, "malformed")
        assert await wire.ended() == b""


async def test_what_comes_behind_a_body_is_no_header(strict: Process, stack: Stack) -> None:
    credential = b"Authorization: Bearer " + stack.key.encode() + b"\r\n"
    body = b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
    async with dialled(strict) as wire:
        await wire.send(POST, body, credential, b"\r\n")
        (await wire.answer()).problem(401, "unauthenticated")
    async with dialled(strict) as wire:
        await wire.send(POST, credential, body, b"Hansa-Tenant: nobody-s\r\n\r\n")
        (await wire.answer()).problem(422, "invalid")


@pytest.mark.parametrize("twice", ["Authorization: Bearer x", "Hansa-Tenant: x", "Hansa-On-Behalf-Of: x", "Idempotency-Key: x"])
async def test_who_somebody_is_and_for_whom_is_said_once(strict: Process, stack: Stack, twice: str) -> None:
    name, _, value = twice.partition(": ")
    first = f"Bearer {stack.key}" if name == "Authorization" else "default" if name == "Hansa-Tenant" else value
    others = [] if name == "Authorization" else [f"Authorization: Bearer {stack.key}"]
    lines = [*others, f"{name}: {first}", twice, "Content-Length: 2"]
    async with dialled(strict) as wire:
        await wire.send(POST, "\r\n".join([*lines, "", "{}"]).encode())
        assert name in (await wire.answer()).problem(400, "malformed")["detail"]


async def test_headers_that_come_too_slowly_are_refused(strict: Process) -> None:
    async with dialled(strict) as wire:
        await wire.send(b"GET /livez HTTP/1.1\r\nHost: hansa\r\n")

        async def trickle() -> None:
            for number in range(100):
                await wire.send(f"x-{number}: 1\r\n".encode())
                await asyncio.sleep(0.2)

        trickling = asyncio.create_task(trickle())
        assert "headers" in (await wire.answer()).problem(408, "request_timeout")["detail"]
        assert await wire.ended() == b""
        trickling.cancel()


async def test_a_second_request_that_comes_too_slowly_is_refused(strict: Process) -> None:
    async with dialled(strict) as wire:
        await wire.send(get(), b"GET /liv")
        assert (await wire.answer()).status == 200
        (await wire.answer()).problem(408, "request_timeout")


async def test_who_says_nothing_is_sent_away_without_a_word(strict: Process) -> None:
    async with dialled(strict) as wire:
        assert await wire.ended() == b""
    async with dialled(strict) as wire:
        await wire.send(get())
        assert (await wire.answer()).status == 200
        assert await wire.ended() == b""  # the keep-alive is over


@pytest.mark.parametrize(("length", "piece"), [(b"Content-Length: 100", b"{"), (b"Transfer-Encoding: chunked", b"1\r\n{\r\n")])
async def test_a_body_that_comes_too_slowly_is_refused(strict: Process, stack: Stack, length: bytes, piece: bytes) -> None:
    async with dialled(strict) as wire:
        await wire.send(start_of_post(stack, length))

        async def trickle() -> None:
            for _ in range(100):
                await wire.send(piece)
                await asyncio.sleep(0.2)

        trickling = asyncio.create_task(trickle())
        assert "body" in (await wire.answer()).problem(408, "request_timeout")["detail"]
        trickling.cancel()
        assert await wire.ended() == b""


async def test_a_body_of_a_request_that_was_refused_is_not_waited_for(strict: Process) -> None:
    async with dialled(strict) as wire:
        await wire.send(POST, b"Content-Length: 100\r\n\r\n{")
        (await wire.answer()).problem(401, "unauthenticated")

        async def trickle() -> None:
            for _ in range(100):
                await wire.send(b"{")
                await asyncio.sleep(0.2)

        trickling = asyncio.create_task(trickle())
        assert await wire.ended() == b""
        trickling.cancel()


async def test_who_takes_nothing_of_an_answer_is_cut_off(strict: Process) -> None:
    async with dialled(strict, limit=1024) as wire:
        await wire.send(get("/docs/swagger-ui-bundle.js") * 12)
        async with asyncio.timeout(10):
            while b"stuck" not in strict.log.read_bytes() and not wire.writer.transport.is_closing():
                try:
                    await wire.send(b"GET")
                except ConnectionError:
                    break
                await asyncio.sleep(0.1)


async def test_connections_of_one_address_are_bounded_and_told_so(strict: Process) -> None:
    async with AsyncExitStack() as opened:
        wires = [await opened.enter_async_context(dialled(strict)) for _ in range(9)]
        await wires[8].send(get())
        refused = await wires[8].answer()
        assert "8" in refused.problem(429, "limit_exceeded")["detail"]
        assert refused.headers["retry-after"] == "1"
        assert await wires[8].ended() == b""
        await wires[0].send(get())
        assert (await wires[0].answer()).status == 200
        wires[1].writer.close()
        await wires[1].writer.wait_closed()
        again = await opened.enter_async_context(dialled(strict))
        await again.send(get())
        assert (await again.answer()).status == 200


async def test_connections_are_bounded_and_what_is_far_above_is_not_even_answered(strict: Process) -> None:
    async with AsyncExitStack() as opened:
        wires = [await opened.enter_async_context(dialled(strict, local_addr=(f"127.0.0.{2 + each // 8}", 0))) for each in range(12)]
        over = await opened.enter_async_context(dialled(strict, local_addr=("127.0.0.9", 0)))
        await over.send(get())
        (await over.answer()).problem(503, "unavailable")
        more = [await opened.enter_async_context(dialled(strict, local_addr=("127.0.0.9", 0))) for _ in range(80)]
        assert await more[-1].ended() == b""
        await wires[0].send(get())
        assert (await wires[0].answer()).status == 200


async def test_pipelined_requests_are_answered_in_order(strict: Process) -> None:
    async with dialled(strict) as wire:
        await wire.send(get("/livez"), get("/nothing"), get("/livez"))
        assert [(await wire.answer()).status for _ in range(3)] == [200, 404, 200]


async def test_a_large_body_may_take_its_time(stack: Stack, strict: Process) -> None:
    """Longer than the bound for small ones, at the pace that is asked for."""
    body = b'{"agent":"' + b"x" * 40_000 + b'"}'
    async with dialled(strict) as wire:
        begun = time.monotonic()
        await wire.send(start_of_post(stack, b"Content-Length: %d" % len(body)))
        for start in range(0, len(body), 4000):
            await wire.send(body[start : start + 4000])
            await asyncio.sleep(0.15)
        (await wire.answer()).problem(422, "invalid")
        assert time.monotonic() - begun > 1.5
