"""Waits for what comes by itself: no longer than it takes, and not without end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx


def soon(told: Callable[[], Any], what: str, *, within: float = 60, every: float = 0.02) -> Any:
    """The first truthy answer; no connection counts as none."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            if answer := told():
                return answer
        except httpx.TransportError:
            pass
        time.sleep(every)
    raise AssertionError(f"not within {within:.0f} s: {what}")
