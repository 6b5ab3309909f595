"""Turns a YAML list that a person keeps (prices, exchange rates) into validated entries, or into every mistake in it.

What the entries mean is their own module's business.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from service.documents import nearest

Entry = TypeVar("Entry", bound=BaseModel)


def read_entries(path: Path, entry: type[Entry], *, what: str) -> tuple[Entry, ...]:
    """All entries of the file. Raises ValueError that names the file, and line, entry and field of every mistake."""
    try:
        found = list(_plain(path.read_text("utf-8")))
    except OSError as error:
        raise ValueError(f"the {what} {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ValueError(f"the {what} {path} cannot be used: it is not text in UTF-8") from None
    except RecursionError:
        raise ValueError(f"the {what} {path} cannot be used: it is nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"the {what} {path} cannot be used: {_in_one_line(error)}") from None
    entries: list[Entry] = []
    mistakes: list[str] = []
    for number, (line, fields) in enumerate(found, 1):
        try:
            entries.append(entry.model_validate(fields))
        except ValidationError as error:
            mistakes += (f"line {line}, entry {number}, {_sentence(entry, one)}" for one in error.errors())
    if mistakes:
        raise ValueError(f"the {what} {path} cannot be used:\n" + "\n".join(mistakes))
    return tuple(entries)


def _in_one_line(error: Exception) -> str:
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return str(error).splitlines()[0]
    words = ", ".join(part for part in (error.context, error.problem) if part)
    return f"line {error.problem_mark.line + 1}: this is no valid YAML: {words}"


def _plain(text: str) -> Iterator[tuple[int, Any]]:
    """Each entry with its line. Every value stays the text it was written as: no number passes through a float."""
    loader = yaml.BaseLoader(text)
    root = loader.get_single_node()
    if root is None:
        return
    if not isinstance(root, yaml.SequenceNode):
        raise ValueError("it is a list of entries, each beginning with a hyphen")
    for node in root.value:
        if isinstance(node, yaml.MappingNode):
            keys = [str(key.value) for key, _ in node.value]
            if twice := next((key for key in keys if keys.count(key) > 1), None):
                raise ValueError(f"line {node.start_mark.line + 1}: {twice!r} is written twice")
        yield node.start_mark.line + 1, loader.construct_object(node, deep=True)


def _sentence(entry: type[BaseModel], error: ErrorDetails) -> str:
    """`hourly: '1,5' is no amount of money; …`"""
    field = ".".join(str(part) for part in error["loc"])
    match error["type"]:
        case "extra_forbidden":
            reason = f"there is no such field{nearest(field, _fields(entry))}"
        case "missing":
            reason = "is missing"
        case "value_error":
            reason = error["msg"].partition(", ")[2]
        case "model_type":
            return f"must be fields like {{{', '.join(_fields(entry))}}}"
        case "date_from_datetime_parsing" | "date_parsing" | "date_from_datetime_inexact":
            reason = f"{error['input']!r} is no date; write it like 2026-11-01"
        case _:
            reason = error["msg"]
    return f"{field}: {reason}" if field else reason


def _fields(entry: type[BaseModel]) -> Sequence[str]:
    return [info.alias or name for name, info in entry.model_fields.items()]
