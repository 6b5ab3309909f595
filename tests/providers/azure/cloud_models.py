"""What Azure's own SDK knows of the form of things: no answer of the stand-in may have a field that it does not."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from datetime import datetime
from enum import Enum
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

from azure.mgmt.compute import models
from azure.mgmt.compute._utils.model_base import Model
from azure.mgmt.compute.models import _models as everything


def misfits(body: object, model: str) -> list[str]:
    """What the SDK's type of that name has no place for, each as a sentence; of `Name[]`, a page of a list of them."""
    kind: Any = getattr(models, model.removesuffix("[]"))
    if not model.endswith("[]"):
        return [*_misfits(body, kind, model)]
    if not isinstance(body, dict) or not isinstance(body.get("value"), list):
        return [f"{model} has no value"]
    unknown = [f"{model} has no {key}" for key in {*body} - {"value", "nextLink"}]
    return [*unknown, *_misfits(body["value"], list[kind], model)]


@cache
def _fields(model: type[Model]) -> Mapping[str, Any]:
    """The types of a model's fields, by their names in JSON."""
    one = model({})  # only an instance knows them
    hints = get_type_hints(model, {**vars(everything), "_models": models})
    return {field._rest_name: hints[name] for name, field in one._attr_to_rest_field.items()}


def _misfits(value: object, kind: Any, where: str) -> Iterator[str]:
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any or value is None:
        return
    if origin in (Union, types.UnionType):
        found = [[*_misfits(value, one, where)] for one in inner if one is not type(None)]
        yield from min(found, key=len)
    elif origin in (list, dict):
        if not isinstance(value, origin):
            yield f"{where} is no {origin.__name__}"
            return
        inside = value.items() if isinstance(value, dict) else enumerate(value)
        for key, one in inside:
            yield from _misfits(one, inner[-1], f"{where}[{key!r}]")
    elif isinstance(kind, type) and issubclass(kind, Model):
        yield from _of_model(value, kind, where)
    elif not _plain(value, kind):
        yield f"{where}: {value!r} is no {getattr(kind, '__name__', kind)}"


def _of_model(value: object, model: type[Model], where: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{where} is no {model.__name__}"
        return
    known = _fields(model)
    for key, one in value.items():
        if key not in known:
            yield f"{where}: {model.__name__} has no {key}"
        else:
            yield from _misfits(one, known[key], f"{where}.{key}")


def _plain(value: object, kind: Any) -> bool:
    if kind is datetime:
        try:
            return isinstance(value, str) and datetime.fromisoformat(value) is not None
        except ValueError:
            return False
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return value in {one.value for one in kind}
    return isinstance(value, kind) if isinstance(kind, type) else True
