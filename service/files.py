"""Turns YAML and JSON texts into validated documents, or into every mistake in them with its place.

Each document is checked by itself here; what needs other documents or this installation's settings is
`service.apply`'s.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn, cast, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from yaml.events import CollectionEndEvent, CollectionStartEvent, NodeEvent
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from policies.calendar import check_hours
from policies.policy import BasePolicy, Policy, SchedulePolicy
from providers import registry
from providers.errors import ProviderError
from service.documents import (
    CLOUDS,
    KINDS,
    MODELS,
    REMEDIES,
    AnyDocument,
    Exemption,
    Kind,
    Project,
    Source,
    literal_secrets,
    nearest_of,
    valid_channel,
    valid_currency,
    valid_name,
)

MAX_DEPTH = 32
MAX_VALUES = 100_000
"""After anchors are followed: a few lines of YAML can stand for billions of values."""
MAX_CHARACTERS = 8 * 1024 * 1024
"""The same for the length of all texts together."""
MAX_MISTAKES = 100
"""Nobody reads on after so many, and each costs time to word."""
MAX_NUMBER = 2**53
"""Beyond it numbers are no longer exact everywhere."""

FieldPath = tuple[str | int, ...]


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """One thing that is wrong, and where."""

    file: str
    line: int | None = None
    column: int | None = None
    document: str = ""
    """`policy 'idle-gpus'`, or what can be said of it."""
    field: str = ""
    """Dotted path within the document; empty when it is about the whole."""
    reason: str
    nearest: str | None = None

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)
        about = ", ".join(part for part in (self.document, self.field) if part)
        hint = f"; did you mean {self.nearest!r}?" if self.nearest else ""
        return ": ".join(part for part in (place, about, f"{self.reason}{hint}") if part)


class Refused(ValueError):
    """Documents with mistakes: none of them is applied."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        super().__init__("\n".join(str(mistake) for mistake in mistakes))
        self.mistakes = tuple(mistakes)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Line and column, both from 1."""

    line: int
    column: int


@dataclass(frozen=True, kw_only=True)
class RawDocument:
    """One document as it was written, with the place of every field that has one."""

    file: str
    body: Mapping[str, Any]
    places: Mapping[FieldPath, Place] = field(default_factory=dict)

    def mistake(self, path: FieldPath, reason: str, nearest: str | None = None) -> Mistake:
        """A mistake at this field, or at the closest one around it that has a place."""
        around = next((path[:end] for end in range(len(path), -1, -1) if path[:end] in self.places), None)
        place = None if around is None else self.places[around]
        return Mistake(
            file=self.file,
            line=place.line if place else None,
            column=place.column if place else None,
            document=self._title(),
            field=dotted(path),
            reason=reason,
            nearest=nearest,
        )

    def _title(self) -> str:
        kind, name = self.body.get("kind"), self.body.get("name")
        kind = kind if isinstance(kind, str) and kind in KINDS else "document"
        return f"{kind} {name!r}" if isinstance(name, str) and name else kind


@dataclass(frozen=True, kw_only=True)
class Parsed:
    """A valid document and where it came from."""

    kind: Kind
    document: AnyDocument
    raw: RawDocument

    @property
    def name(self) -> str:
        return self.document.name


def dotted(path: FieldPath) -> str:
    """`match[0].tags.team`"""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


# --- files → raw documents -------------------------------------------------------------------------------------------


def texts_at(path: Path) -> list[tuple[str, str]]:
    """(name, text) of a YAML file, or of every one in a folder and below. Raises Refused when there is none."""
    try:
        files = sorted(_yaml_files(path)) if path.is_dir() else [path]
        if not files:
            raise _unplaced(str(path), "there is no .yaml or .yml file in this folder")
        return [(str(file), file.read_text("utf-8")) for file in files]
    except FileNotFoundError as error:
        raise _unplaced(str(error.filename), "there is no such file or folder") from None
    except UnicodeDecodeError as error:
        raise _unplaced(str(path), f"is not text in UTF-8 ({error.reason})") from None
    except OSError as error:
        raise _unplaced(str(error.filename), f"cannot be read: {error.strerror}") from None


def set_of(path: Path) -> str:
    """The set that files belong to unless another is named: their folder's name."""
    whole = path.resolve()
    return (whole if whole.is_dir() else whole.parent).name or "root"


def _yaml_files(folder: Path) -> Iterator[Path]:
    for file in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        if file.suffix in (".yaml", ".yml") and file.is_file() and not hidden:
            yield file


def _unplaced(file: str, reason: str) -> Refused:
    return Refused([Mistake(file=file, reason=reason)])


def read_yaml(text: str, file: str) -> tuple[list[RawDocument], list[Mistake]]:
    """Every document of a YAML stream."""
    documents: list[RawDocument] = []
    reader = _YamlReader(file)
    try:
        _not_too_much(text, file)
        for node in yaml.compose_all(text, Loader=_Core):  # nodes only: no object is ever made
            if node.tag == _NULL:
                continue
            document = reader.document(node)
            if document is not None:
                documents.append(document)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        words = ", ".join(part for part in (error.context, error.problem) if part)
        line, column = (mark.line + 1, mark.column + 1) if mark else (None, None)
        reason = f"this is no valid YAML: {words}"
        reader.mistakes.append(Mistake(file=file, line=line, column=column, reason=reason))
    except (yaml.YAMLError, UnicodeError) as error:
        reason = "this is no valid YAML: " + str(error).splitlines()[0]
        reader.mistakes.append(Mistake(file=file, reason=reason))
    except _TooMuchError as error:
        reader.mistakes.append(error.mistake)
    return documents, reader.mistakes


def read_json(text: str, file: str) -> list[RawDocument]:
    """One document, or a list of them. Raises Refused."""
    try:
        found = json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
    except RecursionError:
        raise _unplaced(file, f"is nested deeper than {MAX_DEPTH}") from None
    except json.JSONDecodeError as error:
        reason = f"this is no valid JSON: {error.msg}"
        raise Refused([Mistake(file=file, line=error.lineno, column=error.colno, reason=reason)]) from None
    except ValueError as error:
        raise _unplaced(file, f"this is no valid JSON: {error}") from None
    return json_documents(found, file)


def json_documents(found: Any, file: str) -> list[RawDocument]:
    """Parsed JSON as raw documents. Raises Refused."""
    bodies = found if isinstance(found, list) else [found]
    if not all(isinstance(body, dict) for body in bodies):
        raise _unplaced(file, "a document is an object with kind, name and its fields")
    return [RawDocument(file=file, body=body) for body in bodies]


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"{twice!r} is there twice")
    return found


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


# --- YAML, by the rules of 1.2 ---------------------------------------------------------------------------------------

_NULL = "tag:yaml.org,2002:null"
_BOOL = "tag:yaml.org,2002:bool"
_INT = "tag:yaml.org,2002:int"
_FLOAT = "tag:yaml.org,2002:float"
_TEXT = "tag:yaml.org,2002:str"


class _Core(yaml.CSafeLoader):
    """YAML 1.2's core schema: `on`, `yes`, `12:30:00` and dates are texts, unlike in PyYAML's 1.1."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own protocol


for _tag, _pattern, _first in (
    (_NULL, r"^(~|null|Null|NULL|)$", [*"~nN", ""]),
    (_BOOL, r"^(true|True|TRUE|false|False|FALSE)$", [*"tTfF"]),
    (_INT, r"^([-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$", [*"-+0123456789"]),
    (_FLOAT, r"^([-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$",
     [*"-+0123456789."]),
):  # fmt: skip
    _Core.add_implicit_resolver(_tag, re.compile(_pattern), _first)


NO_FURTHER = f"there are {MAX_MISTAKES} mistakes by now; what comes after is not looked at"


class _TooMuchError(Exception):
    """The text stands for more than anybody would write."""

    def __init__(self, mistake: Mistake) -> None:
        super().__init__(str(mistake))
        self.mistake = mistake


def _not_too_much(text: str, file: str) -> None:
    """Raises _TooMuchError before anything is composed: that recurses in C, where nothing stops it in time."""
    depth = nodes = 0
    try:
        for event in yaml.parse(text, Loader=_Core):
            if isinstance(event, CollectionEndEvent):
                depth -= 1
                continue
            nodes += isinstance(event, NodeEvent)
            depth += isinstance(event, CollectionStartEvent)
            deep = depth > MAX_DEPTH + 1  # the document itself is none of them
            if deep or nodes > 2 * MAX_VALUES:  # a field's name is a node, too
                line = event.start_mark.line + 1 if event.start_mark else None
                what = f"nested deeper than {MAX_DEPTH}" if deep else f"more than {MAX_VALUES} values"
                raise _TooMuchError(Mistake(file=file, line=line, reason=f"this is {what}"))
    except (yaml.YAMLError, UnicodeError):
        return  # told where it is composed, after the documents before it


class _YamlReader:
    """Builds plain values out of YAML nodes and remembers where each one stood."""

    def __init__(self, file: str) -> None:
        self.mistakes: list[Mistake] = []
        self._file = file
        self._values = 0
        self._characters = 0
        self._places: dict[FieldPath, Place] = {}
        self._broken = False

    def document(self, node: Node) -> RawDocument | None:
        """None when it is so broken that nothing further can be said about it."""
        self._broken = False
        self._places = {(): _place(node)}
        body = self._value(node, ())
        if not isinstance(body, dict):
            self._mistake(node, (), "a document is a mapping of fields, beginning with `kind:`")
        if self._broken:
            return None
        return RawDocument(file=self._file, body=body, places=self._places)

    def _value(self, node: Node, path: FieldPath) -> Any:
        self._values += 1
        self._characters += len(node.value) if isinstance(node, ScalarNode) else 0
        if self._values > MAX_VALUES or self._characters > MAX_CHARACTERS or len(path) > MAX_DEPTH:
            what = f"more than {MAX_VALUES} values or {MAX_CHARACTERS} characters"
            if len(path) > MAX_DEPTH:
                what = f"nested deeper than {MAX_DEPTH}"
            raise _TooMuchError(self._at(node, (), f"this is {what}; are anchors and aliases at play?"))
        if isinstance(node, MappingNode):
            return self._mapping(node, path)
        if isinstance(node, SequenceNode):
            return [self._item(entry, (*path, index)) for index, entry in enumerate(node.value)]
        return self._scalar(cast(ScalarNode, node), path)

    def _item(self, node: Node, path: FieldPath) -> Any:
        self._places[path] = _place(node)
        return self._value(node, path)

    def _mapping(self, node: MappingNode, path: FieldPath) -> dict[str, Any]:
        found: dict[str, Any] = {}
        first: dict[str, int] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, ScalarNode):
                self._mistake(key_node, path, "a field's name is a plain word")
                continue
            key = str(key_node.value)
            if key in found:
                line = _place(key_node).line
                self._mistake(key_node, (*path, key), f"is written twice: in line {first[key]} and in line {line}")
                continue
            first[key] = _place(key_node).line
            self._places[(*path, key)] = _place(key_node)
            found[key] = self._value(value_node, (*path, key))
        return found

    def _scalar(self, node: ScalarNode, path: FieldPath) -> Any:
        text = str(node.value)
        try:
            match node.tag:
                case "tag:yaml.org,2002:str":
                    return text
                case "tag:yaml.org,2002:null":
                    return None
                case "tag:yaml.org,2002:bool":
                    return {"true": True, "false": False}[text.lower()]
                case "tag:yaml.org,2002:int":
                    return int(text, 0) if text.startswith(("0o", "0x")) else int(text)
                case "tag:yaml.org,2002:float":
                    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        except (ValueError, KeyError):
            self._mistake(node, path, f"{text[:40]!r} is not what its tag says")
            return None
        self._mistake(node, path, f"the tag {node.tag} is not supported")
        return None

    def _mistake(self, node: Node, path: FieldPath, reason: str) -> None:
        self._broken = True
        self.mistakes.append(self._at(node, path, reason))
        if len(self.mistakes) >= MAX_MISTAKES:
            raise _TooMuchError(self._at(node, (), NO_FURTHER))

    def _at(self, node: Node, path: FieldPath, reason: str) -> Mistake:
        place = _place(node)
        return Mistake(file=self._file, line=place.line, column=place.column, field=dotted(path), reason=reason)


def _place(node: Node) -> Place:
    return Place(line=node.start_mark.line + 1, column=node.start_mark.column + 1)


# --- raw documents → documents ---------------------------------------------------------------------------------------


def parse(raws: Iterable[RawDocument]) -> tuple[list[Parsed], list[Mistake]]:
    """Every valid document, and every mistake in the others."""
    parsed: list[Parsed] = []
    mistakes: list[Mistake] = []
    for raw in raws:
        found = _parse_one(raw)
        if isinstance(found, Parsed):
            parsed.append(found)
        else:
            mistakes += found
        if len(mistakes) >= MAX_MISTAKES:
            return parsed, [*mistakes[:MAX_MISTAKES], raw.mistake((), NO_FURTHER)]
    mistakes += islice(_written_twice(parsed), MAX_MISTAKES)
    return parsed, mistakes


def _parse_one(raw: RawDocument) -> Parsed | list[Mistake]:
    unsound = [raw.mistake(path, reason) for path, reason in islice(_unsound(raw.body, ()), MAX_MISTAKES)]
    if unsound:
        return unsound
    kind = raw.body.get("kind")
    if kind not in KINDS:
        words = ", ".join(KINDS[:-1]) + f" or {KINDS[-1]}"
        if kind is None:
            return [raw.mistake(("kind",), f"is missing; it is one of {words}")]
        return [raw.mistake(("kind",), f"there is no kind {kind!r}; it is {words}", nearest_of(str(kind), KINDS))]
    fields = {key: value for key, value in raw.body.items() if key not in ("kind", "metadata")}
    try:
        document = MODELS[kind].validate_python(fields)
    except ValidationError as error:
        return _mistakes_of(raw, kind, error)
    except ArithmeticError:
        return [raw.mistake((), "holds a number or a length of time beyond all measure")]
    parsed = Parsed(kind=kind, document=document, raw=raw)
    return list(_beyond_the_model(parsed)) or parsed


def _unsound(value: Any, path: FieldPath) -> Iterator[tuple[FieldPath, str]]:
    """What no field of any document may hold."""
    if len(path) > MAX_DEPTH:
        yield path[:1], f"is nested deeper than {MAX_DEPTH}"
    elif isinstance(value, dict):
        for key, entry in value.items():
            if not _storable(key):
                yield path, "a field's name holds a character that is no text"
            else:
                yield from _unsound(entry, (*path, key))
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            yield from _unsound(entry, (*path, index))
    elif isinstance(value, str) and not _storable(value):
        yield path, "holds a character that is no text (NUL or half of a surrogate pair)"
    elif isinstance(value, int | float) and not abs(value) <= MAX_NUMBER:  # nor is what is no number at all
        yield path, "is no number that can be counted with"


def _storable(text: str) -> bool:
    return not re.search("[\x00\ud800-\udfff]", text)


def _written_twice(parsed: Sequence[Parsed]) -> Iterator[Mistake]:
    first: dict[tuple[Kind, str], Parsed] = {}
    for entry in parsed:
        before = first.setdefault((entry.kind, entry.name), entry)
        if before is not entry:
            place = before.raw.places.get(("name",))
            where = f"{before.raw.file}:{place.line}" if place else before.raw.file
            yield entry.raw.mistake(("name",), f"this {entry.kind} is already in {where}")


def _beyond_the_model(parsed: Parsed) -> Iterator[Mistake]:
    """What the models cannot say: names and channels of policies, conditions, actions, secrets written out."""
    document, raw = parsed.document, parsed.raw
    if isinstance(document, Source):
        for path in literal_secrets(document.config):
            yield raw.mistake(path, "a secret is not written into a document; name it as ${NAME}")
    if isinstance(document, BasePolicy):
        yield from _wrong(raw, ("name",), valid_name, document.name)
        for index, channel in enumerate(document.notify):
            yield from _wrong(raw, ("notify", index), valid_channel, channel)
        yield from _reaches_nothing(document, raw)
        yield from _wrong_conditions(document, raw)
        yield from _impossible_action(document, raw)


def _reaches_nothing(policy: BasePolicy, raw: RawDocument) -> Iterator[Mistake]:
    """What can be read and never comes true: providers and currencies that nobody has, hours without a meaning."""
    providers = {*CLOUDS, *registry.known()}
    for index, provider in enumerate(policy.scope.providers):
        if provider not in providers:
            path = ("scope", "providers", index)
            yield raw.mistake(path, f"there is no provider {provider!r}", nearest_of(provider, providers))
    cap = policy.disruption_budget.max_hourly_cost
    if cap is not None and cap.currency is not None:
        yield from _wrong(raw, ("disruption_budget", "max_hourly_cost", "currency"), valid_currency, cap.currency)
    if isinstance(policy, SchedulePolicy):
        check = partial(check_hours, holidays=policy.schedule.holidays)
        yield from _wrong(raw, ("schedule", "on"), check, policy.schedule.on)


def _wrong(raw: RawDocument, path: FieldPath, check: Callable[[str], object], value: str) -> Iterator[Mistake]:
    """What a check says of a value."""
    try:
        check(value)
    except ValueError as error:
        yield raw.mistake(path, *_split_hint(str(error)))


def _wrong_conditions(policy: BasePolicy, raw: RawDocument) -> Iterator[Mistake]:
    from policies.conditions import ConditionError, compile_condition

    kind = str(getattr(policy, "type", ""))
    texts: list[tuple[FieldPath, str | None]] = [
        (("scope", "where"), policy.scope.where),
        ((kind, "when"), getattr(getattr(policy, kind, None), "when", None)),
    ]
    for path, text in texts:
        if text is None:
            continue
        try:
            compile_condition(text, acting=policy.acts)
        except ConditionError as error:
            reason, nearest = _split_hint(str(error))
            yield raw.mistake(path, reason, nearest)


def _impossible_action(policy: BasePolicy, raw: RawDocument) -> Iterator[Mistake]:
    """Of the kinds a policy names each must be able to take its action; one that names none meets those that can."""
    unable = [kind for kind in policy.scope.kinds if policy.action not in REMEDIES[kind]]
    if unable:
        possible = sorted(frozenset.intersection(*(REMEDIES[kind] for kind in policy.scope.kinds)))
        yield raw.mistake(
            ("action",), f"{' and '.join(unable)} cannot take {policy.action}; possible here: {', '.join(possible)}"
        )


# --- Pydantic's words → ours -----------------------------------------------------------------------------------------


def _mistakes_of(raw: RawDocument, kind: Kind, error: ValidationError) -> list[Mistake]:
    """Every mistake a model found, in the order of the file, each once."""
    model = _model_of(raw, kind)
    found = []
    for details in error.errors(include_url=False)[:MAX_MISTAKES]:
        if kind == "source" and details["loc"][:1] not in [(name,) for name in Source.model_fields]:
            continue  # the provider's own fields are asked about below
        location = details["loc"][1:] if kind == "policy" else details["loc"]  # without the discriminator's value
        found.append(_mistake_of(raw, model, location, details))
    if kind == "source" and raw.body.get("provider") in registry.known():
        own = {"kind", "metadata", *Source.model_fields}
        try:
            config = registry.load(raw.body["provider"]).Config
            config.model_validate({key: value for key, value in raw.body.items() if key not in own})
        except ProviderError as error_of_provider:
            found.append(raw.mistake(("provider",), error_of_provider.sentence))
        except ValidationError as inner:
            found += [_mistake_of(raw, config, details["loc"], details) for details in inner.errors()]
    inside = [mistake.field for mistake in found]
    found = [
        m for m in found if not any(field.startswith((m.field + ".", m.field + "[")) for field in inside if m.field)
    ]
    return sorted(dict.fromkeys(found), key=lambda mistake: (mistake.line or 0, mistake.column or 0))


def _mistake_of(
    raw: RawDocument, model: type[BaseModel] | None, location: tuple[int | str, ...], details: ErrorDetails
) -> Mistake:
    path = _path_in(raw.body, location, details["type"])
    path, reason, nearest = _sentence(raw, model, path, details)
    return raw.mistake(path, reason, nearest)


def _model_of(raw: RawDocument, kind: Kind) -> type[BaseModel] | None:
    if kind != "policy":
        models: dict[str, type[BaseModel]] = {"source": Source, "project": Project, "exemption": Exemption}
        return models[kind]
    return next(
        (m for m in _policy_models() if raw.body.get("type") in get_args(m.model_fields["type"].annotation)), None
    )


def _policy_models() -> list[type[BaseModel]]:
    return list(_models_in([Policy]))


def _path_in(body: Any, location: tuple[int | str, ...], error: str) -> FieldPath:
    """The error's location without the steps that are Pydantic's own (union members, dictionary keys)."""
    path: list[str | int] = []
    here = body
    for index, part in enumerate(location):
        named = isinstance(here, dict) and part in here
        counted = isinstance(here, list) and isinstance(part, int) and part < len(here)
        if named or counted:
            here = here[part]
            path.append(part)
        elif index == len(location) - 1 and error in ("missing", "extra_forbidden"):
            path.append(part)
    return tuple(path)


def _sentence(
    raw: RawDocument, model: type[BaseModel] | None, path: FieldPath, details: ErrorDetails
) -> tuple[FieldPath, str, str | None]:
    """(where, why, what was probably meant)"""
    given, context, error = details["input"], details.get("ctx", {}), details["type"]
    match error:
        case "extra_forbidden" if len(path) == 1 and path[0] in _policy_types() and "type" in raw.body:
            return path, f"belongs to a policy of type {path[0]}, and this one is {raw.body['type']}", None
        case "extra_forbidden":
            fields = _field_names(model, path[:-1])
            if "provider" in raw.body and len(path) == 1:
                fields += Source.model_fields
            return path, "there is no such field", nearest_of(str(path[-1]), fields)
        case "missing":
            return path, "is missing", None
        case "union_tag_not_found" | "union_tag_invalid":
            return _policy_type(raw)
        case "enum" | "literal_error":
            allowed = re.findall(r"'([^']*)'", context.get("expected", ""))
            return path, f"{given!r} is not one of {', '.join(allowed)}", nearest_of(str(given), allowed)
        case "value_error" | "assertion_error":
            reason, nearest = _split_hint(details["msg"].partition(", ")[2])
            prefix, colon, rest = reason.partition(": ")
            if colon and prefix in _field_names(model, path):
                return (*path, prefix), rest, nearest
            return path, reason, nearest
        case "string_type":
            in_quotes = f'; put it in quotes: "{json.dumps(given)}"' if isinstance(given, bool | int | float) else ""
            return path, f"must be a text{in_quotes}", None
        case "tuple_type" | "list_type":
            return path, "must be a list: [one, two], or lines that begin with a hyphen", None
        case "dict_type" | "model_type" | "model_attributes_type" | "dict_attributes_type":
            return path, "must be a mapping of fields", None
    return path, re.sub(r"^(Input|String|Tuple) should", "should", details["msg"]), None


def _policy_type(raw: RawDocument) -> tuple[FieldPath, str, str | None]:
    types = _policy_types()
    given = raw.body.get("type")
    if given is None:
        return ("type",), f"is missing; a policy's type is one of {', '.join(sorted(types))}", None
    reason = f"there is no policy type {given!r}; there are {', '.join(sorted(types))}"
    return ("type",), reason, nearest_of(str(given), types)


def _policy_types() -> list[str]:
    return [get_args(model.model_fields["type"].annotation)[0] for model in _policy_models()]


def _split_hint(text: str) -> tuple[str, str | None]:
    """A sentence that already names the nearest thing, apart."""
    found = re.fullmatch(r"(.*?)[;,.]? [Dd]id you mean [`'\"]?(.+?)[`'\"]?\?", text, re.DOTALL)
    return (found[1], found[2]) if found else (text, None)


def _field_names(model: type[BaseModel] | None, path: FieldPath) -> list[str]:
    """The fields one may write at this place."""
    here: list[type[BaseModel]] = [model] if model else []
    for part in path:
        if isinstance(part, str):
            here = [
                found
                for candidate in here
                for name, info in candidate.model_fields.items()
                if part in (name, info.alias)
                for found in _models_in([info.annotation])
            ]
    return [info.alias or name for candidate in here for name, info in candidate.model_fields.items()]


def _models_in(annotations: Iterable[Any]) -> Iterator[type[BaseModel]]:
    """The models a field's type is made of."""
    for annotation in annotations:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield annotation
        else:
            yield from _models_in(get_args(annotation))
