"""Starter policies, one YAML file each, all in `observe`: to be read, copied and changed."""

from __future__ import annotations

from importlib.resources import files


def texts() -> dict[str, str]:
    """Name → the document as it is written, in the order of names."""
    found = (path for path in files(__name__).iterdir() if path.name.endswith(".yaml"))
    return {path.name.removesuffix(".yaml"): path.read_text("utf-8") for path in sorted(found, key=lambda p: p.name)}
