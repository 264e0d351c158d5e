"""Ids and randomness of the control plane, in one place so that a test can hold them.

Ids are UUIDv7 (RFC 9562): ordered by time, so new rows land at the end of an index.
"""

import os
import secrets
from uuid import UUID

from hansa import clock


def new_id() -> UUID:
    """A UUIDv7: 48 bits of milliseconds, 74 random bits."""
    milliseconds = int(clock.now().timestamp() * 1000)
    random_bits = int.from_bytes(os.urandom(10), "big")
    value = (milliseconds & 0xFFFFFFFFFFFF) << 80 | 0x7 << 76 | (random_bits >> 68 & 0xFFF) << 64 | 0b10 << 62 | random_bits & (1 << 62) - 1
    return UUID(int=value)


def new_secret(length: int, alphabet: str) -> str:
    """`length` characters drawn evenly from `alphabet` by the operating system's generator."""
    return "".join(secrets.choice(alphabet) for _ in range(length))


def new_key(length: int = 32) -> bytes:
    """Random bytes of the operating system's generator: keys and nonces."""
    return os.urandom(length)


def new_fraction() -> float:
    """A number from 0 up to 1, drawn evenly: for pauses that should not be the same everywhere."""
    return secrets.randbelow(1 << 53) / (1 << 53)
