"""Run ids: UUIDv7 (RFC 9562), so that they sort by time of birth and reveal nothing else."""

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from app.domain.run import RunId


def new_run_id(now: datetime, entropy: Callable[[int], bytes]) -> RunId:
    """48 bits of Unix milliseconds, then 74 random bits."""
    value = int.from_bytes(entropy(10), "big")
    milliseconds = int(now.timestamp() * 1000) & (2**48 - 1)
    value |= milliseconds << 80
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return RunId(UUID(int=value))
