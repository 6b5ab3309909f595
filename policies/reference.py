"""Writes the reference page `docs/facts.md`: the facts and the language of conditions, from the lists in the code."""

from __future__ import annotations

from collections.abc import Iterable

from policies.conditions import FUNCTIONS, MAX_BYTES, MAX_NESTING, TYPE_WORDS
from policies.facts import COLUMNS, Column

_HEAD = """# Facts

<!-- Written by `python -m policies.reference > docs/facts.md`; do not edit. -->

Every policy judges one table: one row per governed resource, with the columns below. They are the words of a policy's
own conditions, `scope.where` and `when`. A fact that is not known is NULL.
"""

_TAGS = """
A resource's tags (labels) are read by key, always as text: `tags['team']`.

Facts *from telemetry* follow the policy's own idle profile, or the installation's default where it has none.
"""

_LANGUAGE = """
## Conditions

A condition is one SQL expression that is true or false:

```sql
gpu_model = 'H100' AND idle_seconds > 1800 AND hourly_cost > 50
kind IN ('instance', 'workload') AND NOT name LIKE 'prod-%'
hourly_cost / gpu_count > 4 OR coalesce(tags['team'], '') = ''
```

| | |
|---|---|
| joined by | `AND`, `OR`, `NOT`, brackets |
| compared by | `=`, `<>`, `<`, `<=`, `>`, `>=`, `BETWEEN … AND …`, `IN (…)`, `LIKE`, `ILIKE` |
| asked for | `IS NULL`, `IS NOT NULL` |
| calculated by | `+`, `-`, `*`, `/`, `%` |
| chosen by | `CASE WHEN … THEN … ELSE … END` |
| functions | {functions} |

Text stands in single quotes, names of facts in none. Nothing else is understood: no sub-query, no cast, no other
function. At most {bytes} bytes, nested at most {nesting} deep.

### What is not known

**Where any fact a condition names is not known, the whole condition is unknown**, whatever the rest of it says, and
unknown never stops anything. A tag that a resource does not carry is not known either; nor is a division by zero.
There are two ways to speak of what is missing:

- `owner IS NULL` and `owner IS NOT NULL` ask, and always have an answer. (`owner IS NOT NULL AND owner LIKE 'a%'` still
  names `owner` outside of the question, and is unknown without one.)
- `coalesce(owner, 'nobody')` says what to take instead.

Facts from telemetry allow neither in a policy whose `action` is more than `notify`: there, silence stays silence. In
such a policy

- {over_gpus} are known only while no GPU is silent;
- {of_silence} may not be named: how much is not known is never a reason to act;
- the `scope.where` of a `spot` policy names no telemetry: its allowed share would shrink with what is known.
"""


def reference_page() -> str:
    """The whole page."""
    functions = ", ".join(f"`{name}`" for name in FUNCTIONS)
    language = _LANGUAGE.format(
        functions=functions,
        bytes=f"{MAX_BYTES:,}",
        nesting=MAX_NESTING,
        over_gpus=_listed(column for column in COLUMNS if column.over_gpus),
        of_silence=_listed(column for column in COLUMNS if column.of_silence),
    )
    rows = ["", "| fact | type | unit | meaning |", "|---|---|---|---|", *map(_row, COLUMNS)]
    return "\n".join([_HEAD.rstrip(), *rows, _TAGS.rstrip(), language])


def _listed(columns: Iterable[Column]) -> str:
    return ", ".join(f"`{column.name}`" for column in columns)


def _row(column: Column) -> str:
    meaning = f"{column.meaning} (from telemetry)" if column.telemetry else column.meaning
    return f"| `{column.name}` | {TYPE_WORDS[column.type]} | {column.unit} | {meaning} |"


if __name__ == "__main__":
    print(reference_page(), end="")  # noqa: T201
