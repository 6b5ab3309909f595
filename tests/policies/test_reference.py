"""The reference page is what the code says."""

from __future__ import annotations

import re
from pathlib import Path

from policies.conditions import compile_condition
from policies.facts import COLUMNS
from policies.reference import reference_page

PAGE = Path(__file__).parents[2] / "docs" / "facts.md"


def test_the_committed_page_is_the_written_one() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference_page(), "run: python -m policies.reference > docs/facts.md"


def test_every_fact_has_its_line_and_every_example_is_a_condition() -> None:
    page = reference_page()
    for column in COLUMNS:
        assert f"| `{column.name}` | " in page
    (block,) = re.findall(r"```sql\n(.*?)```", page, flags=re.DOTALL)
    assert len(block.splitlines()) == 3
    for example in block.splitlines():
        assert compile_condition(example, acting=True).columns
