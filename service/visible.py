"""Takes out of texts that others wrote what no reader should meet: controls of a terminal, bidi marks, line breaks.

Names and tags may be set by anyone who can create a machine. How a text goes on from here (a chat, a mail, a table)
is its reader's own.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

HIDDEN = frozenset({"Cc", "Cf", "Co", "Cs", "Cn", "Zl", "Zp"})
"""Unicode categories that break lines, reorder text or show nothing: never let through."""


def hidden(character: str) -> bool:
    return unicodedata.category(character) in HIDDEN


def visible(text: str) -> str:
    """The same with a blank for each hidden character."""
    return text if text.isprintable() else "".join(" " if hidden(c) else c for c in text)


def all_visible(value: Any) -> Any:
    """The same answer with all its texts visible."""
    match value:
        case str():
            return visible(value)
        case Mapping():
            return {all_visible(key): all_visible(entry) for key, entry in value.items()}
        case list():
            return [all_visible(entry) for entry in value]
    return value
