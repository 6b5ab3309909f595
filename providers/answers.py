"""Turns the chunks of an answer into its bytes, within bounds: whoever answers may never stop."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from providers.errors import Unreachable

MOST_BYTES = 256 * 2**20
"""No answer is longer; a page of 500 machines has a hundredth of it."""


def whole(chunks: Iterable[bytes], where: str, *, seconds: float, monotonic: Callable[[], float]) -> bytes:
    """All of it. Raises Unreachable once it is too long, or not complete after so many seconds."""
    until = monotonic() + seconds
    body = bytearray()
    for chunk in chunks:
        body += chunk
        if len(body) > MOST_BYTES:
            raise Unreachable(f"{where} was answered with more than {MOST_BYTES // 2**20} MiB")
        if monotonic() > until:
            raise Unreachable(f"{where} was not answered in full within {seconds:g} s")
    return bytes(body)
