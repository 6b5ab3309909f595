"""What a running Curfew is made of, composed once at start-up: settings, clock, database, secrets.

Everything that serves a request or runs a cycle is handed this value; nothing reaches for globals.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from service.clock import Clock
from service.secrets import Secrets
from service.settings import Settings
from service.store.database import Database


@dataclass(kw_only=True)
class Runtime:
    """Shared by the API, the pages and the cycle."""

    settings: Settings
    clock: Clock
    database: Database
    secrets: Secrets = field(repr=False)
