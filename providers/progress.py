"""How far a listing is, for inventories that ask many parts and can tell meanwhile. Whoever cannot tell need not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, cast

from providers.contract import Inventory


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """The parts of the listing under way, or of the last one, named as in its answer. None of them: not yet known."""

    answered: tuple[str, ...] = ()
    """Well or not."""
    waiting: tuple[str, ...] = ()


class Telling(Protocol):
    """An inventory that tells how far it is."""

    def progress(self) -> Progress:
        """Answers at once, from memory, while `list` runs in another thread."""
        ...


def progress_of(inventory: Inventory) -> Progress | None:
    """None: it cannot tell."""
    return cast(Telling, inventory).progress() if hasattr(inventory, "progress") else None
