"""YAML is read by the rules of 1.2: what looks like a word is a word."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import files
from service.files import Refused

PLAIN = {
    "on": "on",
    "yes": "yes",
    "no": "no",
    "off": "off",
    "true": True,
    "True": True,
    "false": False,
    "12:30:00": "12:30:00",
    "1_000": "1_000",
    "0755": 755,
    "0o755": 493,
    "0x1F": 31,
    "1e3": 1000.0,
    "2026-12-01": "2026-12-01",
    "2026-12-01T18:00:00Z": "2026-12-01T18:00:00Z",
    "10%": "10%",
    "~": None,
    "null": None,
    "": None,
    "'null'": "null",
    '"12"': "12",
    "!!str 12": "12",
    "<<": "<<",
    "=": "=",
}


@pytest.mark.parametrize("text", PLAIN)
def test_a_plain_scalar_is_what_yaml_1_2_says(text: str) -> None:
    (document,), mistakes = files.read_yaml(f"value: {text}\n", "f")
    assert not mistakes
    assert document.body["value"] == PLAIN[text]
    assert type(document.body["value"]) is type(PLAIN[text])


def test_a_field_called_on_keeps_its_name() -> None:
    (document,), _ = files.read_yaml('schedule: {on: "Mo-Fr 08:00-20:00", off: x, 2024: y}\n', "f")
    assert document.body == {"schedule": {"on": "Mo-Fr 08:00-20:00", "off": "x", "2024": "y"}}


def test_anchors_may_be_used_in_earnest() -> None:
    (document,), mistakes = files.read_yaml("a: &tags {team: x}\nb: *tags\n", "f")
    assert not mistakes
    assert document.body["b"] == {"team": "x"}


def test_empty_documents_are_nothing() -> None:
    assert files.read_yaml("---\n---\n# only a comment\n---\n", "f") == ([], [])


plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8", exclude_characters="\x00")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3),
    max_leaves=10,
)


@given(body=st.dictionaries(st.text("abc", min_size=1), plain_values, max_size=4))
def test_what_json_writes_is_read_as_it_was(body: dict[str, Any]) -> None:
    (document,) = files.read_json(json.dumps(body), "f")
    assert document.body == body


@given(text=st.text())
def test_no_text_is_more_than_a_mistake(text: str) -> None:
    raws, mistakes = files.read_yaml(text, "f")
    parsed, more = files.parse(raws)
    assert len(parsed) + len(mistakes) + len(more) >= len(raws)


@given(text=st.text())
def test_no_text_sent_as_json_is_more_than_a_mistake(text: str) -> None:
    try:
        raws, mistakes = files.read_json(text, "f"), []
    except Refused as refused:
        raws, mistakes = [], list(refused.mistakes)
    parsed, more = files.parse(raws)
    assert len(parsed) + len(mistakes) + len(more) >= len(raws)
    assert mistakes or json.loads(text) == [] or raws


BAD_JSON = {
    "a field twice": ('{"a": 1, "a": 2}', "'a' is there twice"),
    "not a number": ('{"a": NaN}', "NaN is no number"),
    "cut off": ('{"a": ', "this is no valid JSON"),
    "nested without end": ("[" * 100_000, "nested deeper"),
    "many fields, the last one twice": ("{" + ",".join(f'"a{n}": 1' for n in [*range(50_000), 49_999]) + "}", "twice"),
    "a number of many digits": ('{"a": ' + "9" * 5000 + "}", "this is no valid JSON"),
    "a bare word": ('"policy"', "a document is an object"),
}


@pytest.mark.parametrize("case", BAD_JSON)
def test_bad_json_is_refused(case: str) -> None:
    text, says = BAD_JSON[case]
    with pytest.raises(Refused, match=says):
        files.read_json(text, "f")


def test_a_number_that_no_machine_counts_with_is_a_mistake() -> None:
    raws = files.read_json('{"kind": "project", "name": "p", "description": 1' + "0" * 4000 + "}", "f")
    _, (mistake,) = files.parse(raws)
    assert "no number that can be counted with" in mistake.reason


def test_half_a_surrogate_pair_is_no_text() -> None:
    raws = files.read_json(r'{"kind": "project", "name": "p", "description": "\ud800"}', "f")
    _, (mistake,) = files.parse(raws)
    assert mistake.field == "description"
    assert "no text" in mistake.reason


def test_a_folder_is_read_whole_and_in_order(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.yml", "deep/c.yaml", ".hidden/d.yaml", "notes.txt"):
        path = tmp_path / "team" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {name}")
    names = [Path(name).relative_to(tmp_path / "team").as_posix() for name, _ in files.texts_at(tmp_path / "team")]
    assert names == ["a.yml", "b.yaml", "deep/c.yaml"]


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9")
    for path, says in (
        (tmp_path / "missing.yaml", "there is no such file or folder"),
        (tmp_path / "latin.yaml", "is not text in UTF-8"),
    ):
        with pytest.raises(Refused, match=says):
            files.texts_at(path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(Refused, match=r"no .yaml or .yml file"):
        files.texts_at(tmp_path / "empty")
