"""Names this process to the lease, and tells whether another one that was named so is gone for certain.

A process killed on the same machine cannot govern any more, so its successor need not wait for the lease to run out.
Anything less certain (another machine, another container) is waited for.
"""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path

_NAMESPACE = Path("/proc/self/ns/pid")
_BOOT = Path("/proc/sys/kernel/random/boot_id")


def this_process() -> str:
    """`host boot pid-namespace pid nonce`: no two processes ever share it."""
    return f"{_place()} {os.getpid()} {secrets.token_hex(4)}"


def is_gone(holder: str) -> bool:
    """True only when the holder ran in our own process space and no process has its number now."""
    place, _, rest = holder.rpartition(" ")[0].rpartition(" ")
    if not rest.isdigit() or place != _place():
        return False
    if int(rest) == os.getpid():
        return True  # our number, another nonce: the process before us had it
    try:
        os.kill(int(rest), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _place() -> str:
    """Where process numbers mean the same as here."""
    boot = _BOOT.read_text().strip() if _BOOT.exists() else "-"
    namespace = os.readlink(_NAMESPACE) if _NAMESPACE.exists() else "-"
    return f"{socket.gethostname()} {boot} {namespace}"
