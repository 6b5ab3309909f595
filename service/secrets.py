"""Turns `${NAME}` in documents into the secret of that name, at the last moment and only there.

`${NAME}` reads `CURFEW_SECRET_NAME` from the environment or the file `NAME` in `CURFEW_SECRETS_DIR`; nothing else of
the environment can be reached. `mask` takes every known secret out of a text before it is stored or shown.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PLACEHOLDER = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")

PREFIX = "CURFEW_SECRET_"
SIGNING_KEY = "CURFEW_SECRET_KEY"
"""A setting that happens to begin like a secret's name. No document may ever send it anywhere."""


def placeholders(value: Any) -> set[str]:
    """The names of all secrets that a document's texts speak of."""
    if isinstance(value, str):
        return set(PLACEHOLDER.findall(value))
    entries = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return {name for entry in entries for name in placeholders(entry)}


class MissingSecret(LookupError):
    """A document names a secret this installation does not have."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"the secret ${{{name}}} is not set; set CURFEW_SECRET_{name} or put a file {name} into CURFEW_SECRETS_DIR"
        )


class Secrets:
    """The secrets of this installation."""

    def __init__(self, *, folder: Path | None, environment: Mapping[str, str] = os.environ) -> None:
        self._folder = folder
        self._named = {
            key.removeprefix(PREFIX): value
            for key, value in environment.items()
            if key.startswith(PREFIX) and key != SIGNING_KEY
        }

    def get(self, name: str) -> str:
        value = self._named.get(name)
        if value is None and self._folder is not None:
            path = self._folder / name
            value = path.read_text().rstrip("\n") if path.is_file() else None
        if value is None:
            raise MissingSecret(name)
        return value

    def reveal(self, value: Any) -> Any:
        """The same value with every `${NAME}` in its texts replaced. Raises MissingSecret."""
        if isinstance(value, str):
            return PLACEHOLDER.sub(lambda match: self.get(match[1]), value)
        if isinstance(value, Mapping):
            return {key: self.reveal(entry) for key, entry in value.items()}
        if isinstance(value, list | tuple):
            return [self.reveal(entry) for entry in value]
        return value

    def mask(self, text: str) -> str:
        """The text with every secret we know replaced by its name; for errors that may quote an URL."""
        for name in self._names():
            value = self.get(name)
            if len(value) >= 4:
                text = text.replace(value, f"${{{name}}}")
        return text

    def _names(self) -> list[str]:
        names = list(self._named)
        if self._folder is not None and self._folder.is_dir():
            names += [path.name for path in self._folder.iterdir() if path.is_file()]
        return names
