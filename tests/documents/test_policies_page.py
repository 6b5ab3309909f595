"""docs/policies.md: every example is a document that is taken, and what it says of types and kinds is so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from policies.evaluate import compile_policy
from policies.policy import BasePolicy, DisruptionBudget, Mode, Policy, Scope
from service import apply, files
from service.documents import REMEDIES
from service.gate import Gate
from service.pipeline.currency import Rates
from service.pipeline.price import PriceFile
from service.settings import Settings
from service.store.database import Database
from tests.conftest import MONDAY

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "policies.md").read_text(encoding="utf-8")
MODELS = {get_args(model.model_fields["type"].annotation)[0]: model for model in get_args(get_args(Policy)[0])}


def blocks(page: str) -> list[tuple[int, str]]:
    """(line, text) of every YAML block."""
    return [
        (page.count("\n", 0, found.start()) + 1, found[1]) for found in re.finditer(r"```yaml\n(.*?)```", page, re.S)
    ]


EXAMPLES = {f"line {line}": text for line, text in blocks(PAGE)}
OTHERS = {
    f"{name}, line {line}": text
    for name in ("README.md", "docs/spend.md", "docs/prices.md")
    for line, text in blocks((ROOT / name).read_text(encoding="utf-8"))
    if text.startswith("kind:")
}


@pytest.mark.parametrize("example", [*EXAMPLES, *OTHERS])
def test_every_example_is_taken(example: str) -> None:
    raws, mistakes = files.read_yaml((EXAMPLES | OTHERS)[example], example)
    assert raws
    for parsed in apply.check(Settings(), raws, mistakes):
        if isinstance(parsed.document, BasePolicy):
            assert compile_policy(parsed.document).policy == parsed.document
            assert parsed.document.mode is Mode.OBSERVE


def test_the_files_of_prices_and_rates_are_taken(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "prices.md").read_text(encoding="utf-8")
    *of_prices, of_rates = (text for _, text in blocks(page) if text.startswith("- "))
    assert len(of_prices) == 2
    for text, read in (*((text, PriceFile.read) for text in of_prices), (of_rates, Rates.read)):
        (tmp_path / "file.yaml").write_text(text, encoding="utf-8")
        assert read(tmp_path / "file.yaml")


def test_the_examples_can_be_applied_together(sqlite_url: str) -> None:
    parsed = apply.check(Settings(), *apply.read_texts(EXAMPLES.items()))
    database = Database(sqlite_url)
    with database.reading() as session:
        changes = apply.plan(session, parsed, set_name=None, prune=False, gate=Gate(now=MONDAY))
    database.close()
    assert {change.action for change in changes} == {"create"}


def test_every_type_has_a_section_with_an_example_of_it() -> None:
    [types] = re.findall(r"^## Types\n(.*?)(?=^## )", PAGE, re.S | re.M)
    sections = dict(re.findall(r"^### (\w+)\n(.*?)(?=^###|\Z)", types, re.S | re.M))
    assert set(sections) == set(MODELS)
    for name, text in sections.items():
        assert f"type: {name}\n" in text


@pytest.mark.parametrize("model", [BasePolicy, Scope, DisruptionBudget, *MODELS.values()])
def test_every_field_is_on_the_page(model: type) -> None:
    fields = [info.alias or name for name, info in model.model_fields.items()]  # type: ignore[attr-defined]
    for name in {*fields} - {"name", "type"}:
        assert re.search(rf"\b{name}\b", PAGE), name


def test_the_actions_of_each_kind_are_those_that_are_accepted() -> None:
    table = dict(re.findall(r"^\| `(\w+)` \| (`notify`.*) \|$", PAGE, re.M))
    assert {kind: set(re.findall(r"`(\w+)`", cell)) for kind, cell in table.items()} == {
        kind: {remedy.value for remedy in remedies} for kind, remedies in REMEDIES.items()
    }


@pytest.mark.parametrize("type", MODELS)
@pytest.mark.parametrize("kind", REMEDIES)
def test_of_each_kind_every_type_may_ask_what_it_can_take_and_nothing_else(type: str, kind: str) -> None:
    example = next(text for text in EXAMPLES.values() if f"type: {type}\n" in text)
    (raw,) = [raw for raw in files.read_yaml(example, "page")[0] if raw.body.get("type") == type]
    for action in ("notify", "stop", "hibernate", "suspend", "scale_to_zero", "terminate", "move_to_spot"):
        body = {**raw.body, "action": action, "scope": {"kinds": [kind]}}
        _, mistakes = files.parse(files.json_documents(body, "body"))
        accepted = action in {remedy.value for remedy in REMEDIES[kind]}
        assert [mistake.field for mistake in mistakes] == ([] if accepted else ["action"]), action
