"""The gate: what is understood, what it means, and that nothing else gets through."""

from __future__ import annotations

import duckdb
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sqlglot import exp

from policies.codes import OUT, WHERE_UNKNOWN
from policies.conditions import MAX_BYTES, MAX_NESTING, ConditionError, compile_condition
from policies.evaluate import evaluate
from policies.facts import BASE, COLUMNS, TELEMETRY, Type
from tests.policies.builders import facts_of, machine, ownership_policy


def refused(text: str, *, acting: bool = True) -> str:
    with pytest.raises(ConditionError) as caught:
        compile_condition(text, acting=acting)
    return str(caught.value)


def holds(text: str, **row: object) -> bool | None:
    """What a condition says of one machine, through the whole judge: `where` true = in scope."""
    return answers(text, [machine(**row)])[0]


def answers(text: str, rows: list[dict[str, object]]) -> list[bool | None]:
    policy = ownership_policy(scope={"where": text}, action="notify")
    judgement = evaluate(facts_of(rows, [policy]), [policy])
    assert judgement.faults == {}
    said: dict[int, bool | None] = {WHERE_UNKNOWN: None, OUT: False}
    return [said.get(code, True) for code in judgement.outcomes[policy.name].codes]


UNDERSTOOD = {
    "a whole number compared": ("gpu_count >= 8", True),
    "a ratio compared": ("max_utilisation < 0.05", True),
    "text compared": ("gpu_model = 'H100'", True),
    "text is case-sensitive": ("gpu_model = 'h100'", False),
    "a truth by itself": ("protected", False),
    "a truth compared": ("protected = FALSE", True),
    "and binds closer than or": ("gpu_count = 8 OR gpu_count = 1 AND gpu_model = 'L4'", True),
    "brackets": ("(gpu_count = 8 OR gpu_count = 1) AND gpu_model = 'L4'", False),
    "not": ("NOT gpu_count = 8", False),
    "a list": ("kind IN ('instance', 'workload')", True),
    "not in a list": ("kind NOT IN ('instance', 'workload')", False),
    "a list with negative and broken numbers": ("gpu_count IN (-8, 8.0)", True),
    "between, both ends in": ("gpu_count BETWEEN 8 AND 9", True),
    "not between": ("gpu_count NOT BETWEEN 1 AND 7", True),
    "like": ("sku LIKE 'p5.%'", True),
    "not like": ("sku NOT LIKE 'p5.%'", False),
    "like is case-sensitive": ("sku LIKE 'P5.%'", False),
    "ilike is not": ("sku ILIKE 'P5.%'", True),
    "not ilike": ("sku NOT ILIKE 'P5.%'", False),
    "a backslash is a backslash": ("sku LIKE 'p5.\\%'", False),
    "a doubled quote is a quote": ("name = 'it''s'", False),
    "lower and upper": ("lower(gpu_model) = 'h100' AND upper(name) = 'TRAINER'", True),
    "abs and the minus sign": ("abs(-gpu_count) = 8 AND -gpu_count = -8", True),
    "points before lines": ("gpu_count + 2 * 3 = 14", True),
    "the order of subtraction": ("gpu_count - 3 - 2 = 3", True),
    "brackets in arithmetic": ("(gpu_count - 3) * 2 = 10", True),
    "division is not whole": ("gpu_count / 3 > 2.6", True),
    "the rest of a division": ("gpu_count % 3 = 2", True),
    "numbers of any notation": ("gpu_count = .8e1", True),
    "is null": ("managed_by IS NULL", True),
    "is not null": ("managed_by IS NOT NULL", False),
    "coalesce": ("coalesce(managed_by, 'nobody') = 'nobody'", True),
    "coalesce over several": ("coalesce(managed_by, tags['by'], owner) = 'ana'", True),
    "case": ("CASE WHEN gpu_count > 4 THEN 'big' ELSE 'small' END = 'big'", True),
    "a tag": ("tags['team'] = 'a b'", True),
    "a tag with a quote in its key": ("tags['it''s'] = 'x'", True),
    "two truths compared": ("(gpu_count = 8) = (kind = 'instance') AND (NOT protected) <> (gpu_count = 1)", True),
    "two facts compared": ("running_seconds < age_seconds", True),
    "two lines": ("gpu_count = 8\n  AND state = 'running'", True),
}


@pytest.mark.parametrize(("text", "want"), UNDERSTOOD.values(), ids=UNDERSTOOD.keys())
def test_is_understood(text: str, want: bool) -> None:
    assert holds(text, tags={"team": "a b", "it's": "x"}) is want


NOT_KNOWN = {
    "a fact compared": ("hourly_cost > 1", {"hourly_cost": None}),
    "negated": ("NOT hourly_cost > 1", {"hourly_cost": None}),
    "beside something true: TRUE OR NULL": ("gpu_count = 8 OR hourly_cost > 1", {"hourly_cost": None}),
    "beside something false: FALSE AND NULL": ("gpu_count = 1 AND hourly_cost > 1", {"hourly_cost": None}),
    "in a list": ("project IN ('vision')", {"project": None}),
    "not in a list": ("project NOT IN ('vision')", {"project": None}),
    "between": ("hourly_cost BETWEEN 1 AND 2", {"hourly_cost": None}),
    "like": ("owner NOT LIKE 'a%'", {"owner": None}),
    "in a branch of CASE not taken": ("CASE WHEN gpu_count = 8 THEN 1 ELSE hourly_cost END = 1", {"hourly_cost": None}),
    "asked for, and used bare as well": ("owner IS NULL OR owner = 'ana'", {"owner": None}),
    "used bare, and asked for as well": ("owner = 'ana' OR owner IS NULL", {"owner": None}),
    "a tag it does not have": ("tags['team'] <> 'a'", {"tags": {"Team": "a"}}),
    "a truth": ("protected OR gpu_count = 8", {"protected": None}),
    "nothing left to coalesce": ("coalesce(owner, managed_by) = 'ana' OR gpu_count = 8", {"owner": None}),
    "division by zero": ("hourly_cost / (gpu_count - 8) > 0 OR gpu_count = 8", {}),
    "the rest of a division by zero": ("hourly_cost % (gpu_count - 8) = 0", {}),
    "a number beyond all bounds": ("gpu_count * 1e308 * 1e308 > 1", {}),
    "a division by zero, divided by": ("1 / (hourly_cost / (gpu_count - 8)) = 0", {}),
    "a number beyond all bounds chosen by CASE": (
        "CASE WHEN gpu_count = 8 THEN 1e308 * gpu_count * 9 ELSE 1 END > 1",
        {},
    ),
    "infinity less infinity": ("hourly_cost * 1e308 * 1e308 - hourly_cost * 1e308 * 1e308 > 0", {}),
    "a zero hidden in CASE": ("CASE WHEN gpu_count / 0 > 1 THEN 1 ELSE 2 END = 2", {}),
    "a computed value chosen by CASE": ("CASE WHEN gpu_count = 8 THEN gpu_count / 0 ELSE 1 END = 1", {}),
    "in a list of numbers": ("gpu_count / 0 IN (1, 2)", {}),
    "not between, computed": ("gpu_count / 0 NOT BETWEEN 1 AND 2", {}),
    "NaN among the facts": ("hourly_cost > 1", {"hourly_cost": float("nan")}),
    "infinity among the facts": ("hourly_cost > 1", {"hourly_cost": float("inf")}),
}


@pytest.mark.parametrize(("text", "row"), NOT_KNOWN.values(), ids=NOT_KNOWN.keys())
def test_is_unknown_when_a_fact_it_names_is_not_known(text: str, row: dict[str, object]) -> None:
    assert holds(text, **row) is None


@pytest.mark.parametrize(
    "text",
    ["owner IS NULL", "NOT owner IS NOT NULL", "coalesce(owner, '') = ''", "coalesce(tags['x'], owner, 'n') = 'n'"],
)
def test_speaking_of_the_missing_has_an_answer(text: str) -> None:
    assert holds(text, owner=None) is True


def test_integers_do_not_overflow() -> None:
    assert holds("gpu_count * 9223372036854775807 > 9e18") is True
    assert holds("abs(-9223372036854775807 - gpu_count) > 1") is True
    assert holds("gpu_count + 9223372036854775807 + 9223372036854775807 > 1") is True


ATTACKS = {
    "opens a file": "name IN (SELECT name FROM read_csv('/etc/passwd'))",
    "opens a file as a function": "read_csv('/etc/passwd') = 1",
    "reads a file as text": "read_text('/etc/passwd') = 'x'",
    "lists files": "glob('/*') = 'x'",
    "reads the environment": "getenv('HOME') = 'x'",
    "fills the memory with a text": "length(repeat(name, 4000000000)) > 1",
    "fills the memory with a list": "list_sum(range(2000000000)) > gpu_count",
    "generates": "generate_series(1, 10000000000) = gpu_count",
    "a sub-query as a value": "gpu_count > (SELECT 1)",
    "a sub-query alone": "(SELECT TRUE)",
    "exists": "EXISTS (SELECT 1)",
    "in a table": "gpu_count IN (FROM facts)",
    "any of a sub-query": "gpu_count = ANY (SELECT 1)",
    "unnest": "gpu_count IN UNNEST([1, 2])",
    "an aggregate": "sum(gpu_count) > 3",
    "a window": "row_number() OVER () > 1",
    "a window over a column": "max(gpu_count) OVER (PARTITION BY kind) > 1",
    "a star": "*",
    "columns by pattern": "COLUMNS('.*') = 1",
    "count of a star": "count(*) > 1",
    "a cast": "CAST(gpu_count AS VARCHAR) = '8'",
    "a short cast": "gpu_count::VARCHAR = '8'",
    "a cast that tries": "TRY_CAST(gpu_count AS INTEGER) = 8",
    "try": "TRY(gpu_count = 8)",
    "a macro": "CREATE MACRO f(x) AS x",
    "an unknown function": "f(gpu_count) = 1",
    "a schema-qualified function": "main.f(gpu_count) = 1",
    "attaches": "ATTACH '/tmp/x.db'",
    "copies": "COPY facts TO '/tmp/x'",
    "sets": "SET memory_limit = '1TB'",
    "a pragma": "PRAGMA database_list",
    "calls": "CALL pragma_version()",
    "installs": "INSTALL httpfs",
    "selects": "SELECT TRUE",
    "from first": "FROM facts",
    "drops": "1=1; drop table facts",
    "two statements": "gpu_count = 8; gpu_count = 8",
    "a trailing semicolon": "gpu_count = 8;",
    "union": "gpu_count = 8 UNION SELECT TRUE",
    "a further clause": "gpu_count = 8 LIMIT 1",
    "a name for it": "gpu_count = 8 AS x",
    "two conditions": "gpu_count = 8, gpu_count = 8",
    "a line comment": "gpu_count = 8 -- OR TRUE",
    "a leading comment": "-- hm\ngpu_count = 8",
    "a block comment": "gpu_count /* hm */ = 8",
    "a hint": "/*+ hm */ gpu_count = 8",
    "only a comment": "-- nothing",
    "nothing": "  ",
    "a numbered parameter": "gpu_count = $1",
    "a named parameter": "gpu_count = $count",
    "a colon parameter": "gpu_count = :count",
    "an anonymous parameter": "gpu_count = ?",
    "a column by position": "#1 = 1",
    "a struct": "{'a': gpu_count} = 1",
    "a field of a struct": "name.first = 'a'",
    "a list literal": "[gpu_count] = [8]",
    "a row": "(gpu_count, kind) = (8, 'instance')",
    "a lambda": "list_filter([1], x -> x > gpu_count) = 1",
    "an arrow": "name -> 'a' = 1",
    "a method": "name.lower() = 'x'",
    "a regular expression": "name ~ '(a+)+$'",
    "a regular expression by name": "regexp_matches(name, '(a+)+$')",
    "similar to": "name SIMILAR TO 'a'",
    "glob": "name GLOB 'a*'",
    "like any": "name LIKE ANY ('a', 'b')",
    "like with an escape": "name LIKE 'a!%' ESCAPE '!'",
    "like a column": "name LIKE owner",
    "like a computed pattern": "name LIKE lower('A')",
    "between symmetric": "gpu_count BETWEEN SYMMETRIC 9 AND 1",
    "concatenation": "name || owner = 'x'",
    "neighbouring texts": "name = 'a' 'b'",
    "a power": "gpu_count ** 2 = 64",
    "a caret": "gpu_count ^ 2 = 64",
    "bits": "gpu_count & 1 = 0",
    "whole division": "gpu_count // 3 = 2",
    "factorial": "gpu_count! = 8",
    "a collation": "name COLLATE NOCASE = 'X'",
    "a date": "DATE '2026-01-01' = name",
    "now": "now() > 1",
    "today": "current_date = 1",
    "an interval": "INTERVAL 1 DAY > 1",
    "a time zone": "name AT TIME ZONE 'UTC' = 'x'",
    "chance": "random() > 0.5",
    "is true": "protected IS TRUE",
    "is not false": "protected IS NOT FALSE",
    "is distinct from": "gpu_count IS DISTINCT FROM 8",
    "is not distinct from": "project IS NOT DISTINCT FROM 'x'",
    "equals null": "project = NULL",
    "null in a list": "project IN ('x', NULL)",
    "null alone": "NULL",
    "null in coalesce": "coalesce(project, NULL) = 'x'",
    "is null of something computed": "(gpu_count / 0) IS NULL",
    "is null of a comparison": "(gpu_count = 8) IS NULL",
    "coalesce of something computed": "coalesce(gpu_count / 0, 1) = 1",
    "coalesce ending computed": "coalesce(hourly_cost, gpu_count / 0) = 1",
    "coalesce ending in a condition": "coalesce(protected, gpu_count = 1 OR gpu_memory_mib = 2)",
    "coalesce ending in a function": "coalesce(owner, lower(project)) = 'x'",
    "coalesce ending in a choice": "coalesce(owner, CASE WHEN protected THEN 'a' ELSE 'b' END) = 'a'",
    "nullif": "nullif(gpu_count, 8) = 1",
    "if": "if(gpu_count = 8, TRUE, FALSE)",
    "case with a subject": "CASE gpu_count WHEN 8 THEN TRUE ELSE FALSE END",
    "case without else": "CASE WHEN gpu_count = 8 THEN TRUE END",
    "lower of two": "lower(name, owner) = 'x'",
    "lower of distinct": "lower(DISTINCT name) = 'x'",
    "a filter": "lower(name) FILTER (WHERE TRUE) = 'x'",
    "tags without a key": "tags = 'x'",
    "tags by a name": "tags[team] = 'x'",
    "tags by a number": "tags[1] = 'x'",
    "tags by a computed key": "tags[lower('A')] = 'x'",
    "tags of tags": "tags['a']['b'] = 'x'",
    "a slice of tags": "tags['a':'b'] = 'x'",
    "two keys": "tags['a', 'b'] = 'x'",
    "no key": "tags[] = 'x'",
    "a tag as a field": "tags.team = 'x'",
    "brackets on another column": "name['a'] = 'x'",
    "brackets on a table's tags": "facts.tags['a'] = 'x'",
    "brackets on a list": "['a']['a'] = 'x'",
    "a column of a table": "facts.gpu_count = 8",
    "a column of a schema": "main.facts.gpu_count = 8",
    "the row itself": "facts = 1",
    "the row number": "rowid = 1",
    "an internal column": "\"activity@0\" = 'idle'",
    "text in double quotes": 'state = "running"',
    "an escape string": "name = E'a\\nb'",
    "a dollar string": "name = $$a$$",
    "a national string": "name = N'a'",
    "a bit string": "name = B'0'",
    "a hexadecimal number": "gpu_count = 0x8",
    "a number without end": "gpu_count = 1e999",
    "a whole number without end": "gpu_count = 99999999999999999999",
    "an unclosed quote": "name = 'x",
    "an unclosed comment": "gpu_count = 8 /* x",
    "an unclosed bracket": "(gpu_count = 8",
    "half a comparison": "gpu_count =",
    "a lone minus": "-",
    "a lone tilde": "~",
    "a lone not": "NOT",
    "a NUL": "gpu_count = 8\0",
    "a NUL in a text": "name = 'a\0'",
    "half a surrogate": "name = '\ud800'",
    "a full-width look-alike": "ｇpu_count = 8",
    "a Cyrillic look-alike": "stаte = 'running'",
    "a Kelvin sign": "s\u212au = 'x'",
    "a zero-width space": "gpu_count\u200b = 8",
    "a byte-order mark": "\ufeffgpu_count = 8",
    "typographic quotes": "state = ‘running’",
    "says nothing": "TRUE",
    "compares nothing": "1 = 1",
    "compares two texts": "'activity' = 'idle'",
    "compares two texts beside something sensible": "'activity' = 'idle' OR gpu_count = 8",
    "a number as a condition": "gpu_count",
    "a text as a condition": "name",
    "numbers joined by and": "gpu_count AND TRUE",
    "not a number": "NOT gpu_count",
    "the order of truths": "protected > FALSE",
    "text and number": "gpu_count = '8'",
    "number and text": "name > 5",
    "truth and number": "protected = 1",
    "text calculated with": "name + 1 = 2",
    "a list of mixed kinds": "gpu_count IN (1, 'x')",
    "a list with a column": "gpu_count IN (1, gpu_memory_mib)",
    "an empty list": "gpu_count IN ()",
    "between mixed kinds": "gpu_count BETWEEN 1 AND 'x'",
    "lower of a number": "lower(gpu_count) = 'x'",
    "abs of a text": "abs(name) = 1",
    "like on a number": "gpu_count LIKE '8'",
    "coalesce of mixed kinds": "coalesce(gpu_count, 'x') = 'x'",
    "case of mixed kinds": "CASE WHEN protected THEN 1 ELSE 'x' END = 1",
}


@pytest.mark.parametrize("acting", [True, False], ids=["acting", "notifying"])
@pytest.mark.parametrize("text", ATTACKS.values(), ids=ATTACKS.keys())
def test_is_refused(text: str, acting: bool) -> None:
    assert refused(text, acting=acting)


def test_too_long_is_refused_and_the_limit_itself_is_not() -> None:
    filler = "gpu_count = 8 OR "
    longest = filler * ((MAX_BYTES - 20) // len(filler)) + "gpu_count = 8"
    longest += " " * (MAX_BYTES - len(longest))
    assert holds(longest) is True
    assert "longer than 4096 bytes" in refused(longest + " ")
    assert "longer" in refused("name = '" + "ü" * (MAX_BYTES // 2) + "'")
    assert "longer" in refused("a" * 10_000)


def test_too_deep_is_refused_and_the_limit_itself_is_not() -> None:
    assert holds("(" * MAX_NESTING + "gpu_count = 8" + ")" * MAX_NESTING) is True
    assert "nested" in refused("(" * (MAX_NESTING + 1) + "gpu_count = 8" + ")" * (MAX_NESTING + 1))
    for opening, closing in (
        ("(", ")"),
        ("lower(", ")"),
        ("tags[", "]"),
        ("NOT ", ""),
        ("- ", ""),
        ("CASE WHEN ", " END"),
    ):
        assert refused(f"{opening * 300}gpu_count = 8{closing * 300}")
    assert holds("name = '" + "(" * 100 + "CASE'") is False  # text is no nesting


def test_a_small_stack_is_a_refusal_not_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    def overflow(*_: object, **__: object) -> None:
        raise RecursionError

    monkeypatch.setattr("policies.conditions._parse", overflow)
    assert "nested too deeply" in refused("gpu_count = 1234")


ERRORS = {
    "`gpu_cout` at 1:1 is no fact; did you mean `gpu_count`?": "gpu_cout > 1",
    "`gpu_cout` at 2:5 is no fact; did you mean `gpu_count`?": "state = 'running'\nAND gpu_cout > 1",
    "`State` at 1:1 is no fact; did you mean `state`?": "State = 'running'",
    "`running` at 1:9 is no fact; text stands in single quotes: 'running'": 'state = "running"',
    "`tags.team` at 1:1 is no fact; did you mean tags['team']?": "tags.team = 'x'",
    "`qqq` at 1:1 is no fact; the facts are listed in docs/facts.md": "qqq = 1",
    "`gpu_count` at 1:1 is a whole number, compared with text 'x'": "gpu_count = 'x'",
    "`gpu_count` at 1:1 is a whole number, compared with `name`, which is text": "gpu_count = name",
    "`name` at 1:1 is text, compared with the number 5": "5 = name",
    "`gpu_count` is a whole number, where a condition says true or false": "gpu_count",
    "`read_csv` at 1:1 is no function of conditions; there are lower, upper, abs, coalesce": "read_csv('x') = 1",
    "`f` at 1:9 is no function of conditions; there are lower, upper, abs, coalesce": "name <> f(1)",
    "a sub-query at 1:9: a condition sees the facts of one resource, nothing else": "(select 1) = 1",
    "cast at 1:1 is not part of the language of conditions": "gpu_count::int = 1",
    "the condition cannot be read at 1:13, near `b`": "gpu_count=1 b",
    "a condition carries no comments; use the policy's description": "gpu_count = 8 -- x",
    "`;` at 1:14: a condition is one expression, not statements": "gpu_count = 8; x",
    "the character '\\x00' at 1:2 cannot be read": "a\0",
    "NULL stands alone; ask with IS NULL or IS NOT NULL, which are answers, not comparisons": "name = NULL",
    "`tags` at 1:1 is read by its key, like tags['team']": "tags = 'x'",
    "the condition names no fact, so it says the same of every resource": "TRUE",
}


@pytest.mark.parametrize(("sentence", "text"), ERRORS.items())
def test_errors_name_the_place_the_reason_and_the_nearest_right_thing(sentence: str, text: str) -> None:
    assert refused(text) == sentence


@pytest.mark.parametrize("fact", [column.name for column in TELEMETRY if column.of_silence])
def test_a_policy_that_acts_may_not_speak_of_how_much_is_silent(fact: str) -> None:
    for text in (f"{fact} >= 1", f"gpu_count = 8 OR NOT {fact} < 0.9", f"{fact} IS NULL"):
        assert f"`{fact}` at" in refused(text)
        assert "silence is never a reason" in refused(text)
        assert compile_condition(text, acting=False).columns >= {fact}


@pytest.mark.parametrize("fact", [column.name for column in TELEMETRY if not column.of_silence])
def test_a_policy_that_acts_cannot_turn_missing_telemetry_into_a_value(fact: str) -> None:
    literal = "'idle'" if fact == "activity" else "0"
    for text in (
        f"{fact} IS NULL",
        f"{fact} IS NOT NULL",
        f"({fact}) IS NULL",
        f"gpu_count = 8 AND NOT {fact} IS NULL",
        f"coalesce({fact}, {literal}) = {literal}",
        f"ifnull({fact}, {literal}) = {literal}",
        f"CASE WHEN {fact} = {literal} THEN TRUE ELSE FALSE END",
        f"CASE WHEN gpu_count = 8 THEN {fact} ELSE {literal} END = {literal}",
        f"CASE WHEN CASE WHEN {fact} = {literal} THEN TRUE ELSE FALSE END THEN 1 ELSE 2 END = 1",
    ):
        assert f"`{fact}` at" in refused(text)
        assert "rests on telemetry" in refused(text)
        assert compile_condition(text, acting=False).columns >= {fact}
    assert compile_condition(f"{fact} = {literal}", acting=True).columns - {"unknown_gpus"} == {fact}
    beside = "CASE WHEN protected THEN TRUE ELSE FALSE END OR owner IS NULL OR coalesce(owner, 'x') = 'x'"
    assert fact in compile_condition(f"{beside} OR {fact} = {literal}", acting=True).columns


def test_a_condition_says_which_facts_and_tags_it_names() -> None:
    condition = compile_condition("gpu_count > 1 OR tags['a'] = coalesce(owner, tags['b'], 'x')", acting=True)
    assert condition.columns == {"gpu_count", "owner"}
    assert condition.tags == {"a", "b"}
    assert condition.text == "gpu_count > 1 OR tags['a'] = coalesce(owner, tags['b'], 'x')"


# The allow-list, held against everything the parser and the engine know.


def test_of_all_functions_of_the_engine_and_the_parser_only_four_pass() -> None:
    with duckdb.connect() as connection:
        names = {name for (name,) in connection.sql("SELECT DISTINCT function_name FROM duckdb_functions()").fetchall()}
    for function in exp.ALL_FUNCTIONS:
        names.update(name.lower() for name in function.sql_names())
    names = {name for name in names if name.isidentifier()}
    calls = {
        f"{name}({arguments}) = {value}": name
        for name in names
        for arguments, value in (("", 1), ("name", "'x'"), ("gpu_count", 1), ("name, 'x'", "'x'"), ("gpu_count, 1", 1))
    }
    passed = {name for call, name in calls.items() if refusal(call, acting=True) is None}
    assert len(names) > 1000
    assert passed == {"lower", "upper", "abs", "coalesce"} | {
        "lcase",
        "ucase",
        "ifnull",
        "nvl",
        "mod",
    }  # other spellings


BUILT = {
    *(exp.And, exp.Or, exp.Not, exp.Paren, exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE, exp.Between, exp.In),
    *(
        exp.Like,
        exp.ILike,
        exp.Is,
        exp.Null,
        exp.Literal,
        exp.Boolean,
        exp.Column,
        exp.Identifier,
        exp.Bracket,
        exp.Neg,
    ),
    *(exp.Add, exp.Sub, exp.Mul, exp.Div, exp.Mod, exp.Abs, exp.Lower, exp.Upper, exp.Coalesce, exp.Case, exp.If),
    *(exp.Cast, exp.DataType, exp.Nullif, exp.IsInf, exp.Anonymous),  # written by the gate itself around arithmetic
}

# fmt: off
FRAGMENTS = st.sampled_from([
    *(column.name for column in COLUMNS), "tags['a']", "tags['b']", "1", "0", "2.5", "1e308", "'x'", "''",
    "AND", "OR", "NOT", "(", ")", "=", "<>", "<", ">=", "+", "-", "*", "/", "%", ",", "IN", "LIKE", "ILIKE", "IS",
    "NULL", "BETWEEN", "CASE", "WHEN", "THEN", "ELSE", "END", "TRUE", "FALSE", "lower(", "upper(", "abs(", "coalesce(",
    "SELECT", "FROM", "facts", ";", "--", "/*", "*/", "::", "$1", "?", "{", "}", "read_csv(", "range(", "sum(", "OVER",
    "EXISTS", "CAST(", "AS", "VARCHAR", "EXPLAIN", "SET", "ATTACH", ".", "tags[", "[", "]", "'", '"', "\\", "||", "->",
])
# fmt: on


def refusal(text: str, *, acting: bool) -> str | None:
    """The sentence, or None where the text is a condition. Anything but a ConditionError fails the test."""
    try:
        compile_condition(text, acting=acting)
    except ConditionError as error:
        return str(error)
    return None


@settings(max_examples=300, deadline=None)
@given(st.lists(FRAGMENTS, min_size=1, max_size=14).map(" ".join), st.booleans())
def test_whatever_is_written_is_refused_in_words_or_judged_without_error(text: str, acting: bool) -> None:
    sentence = refusal(text, acting=acting)
    if sentence is None:
        assert {type(node) for node in compile_condition(text, acting=acting).expression.walk()} <= BUILT
        judged_without_error(text)
    else:
        assert len(sentence) > 20


def judged_without_error(text: str) -> None:
    rows = [
        machine(),
        machine(**{column.name: None for column in COLUMNS}, tags={}),
        machine(gpu_count=0, tags={"a": "x"}),
    ]
    assert len(answers(text, rows)) == 3


# Random conditions of the whole language; `foreign` may stand wherever a number can.


def condition_texts(foreign: st.SearchStrategy[str] | None = None) -> st.SearchStrategy[str]:
    def of(type_: Type) -> list[str]:
        return [column.name for column in COLUMNS if column.type is type_]

    fact_texts = st.sampled_from([*of(Type.TEXT), "tags['a']", "tags['b']"])
    texts = fact_texts | st.builds("coalesce({}, owner, 'x')".format, fact_texts)
    texts |= st.builds("upper(lower({}))".format, texts)
    facts = st.sampled_from([*of(Type.INTEGER), *of(Type.NUMBER)])
    leaves = facts | st.builds("coalesce({}, 0)".format, facts)
    if foreign is not None:
        leaves |= foreign
    plain = st.sampled_from(["0", "1", "-2.5", "1e308", "9223372036854775807"])
    numbers = st.recursive(
        leaves,
        lambda inner: (
            st.builds("({} {} {})".format, inner, st.sampled_from("+-*/%"), inner | plain)
            | st.builds("{}{})".format, st.sampled_from(["abs(", "-(", "("]), inner)
            | st.builds("CASE WHEN protected THEN {} ELSE {} END".format, inner, inner | plain)
        ),
        max_leaves=4,
    )
    signs = st.sampled_from(["=", "<>", "<", "<=", ">", ">="])
    tests = (
        st.builds("{} {} {}".format, numbers, signs, numbers | plain)
        | st.builds("{} {}BETWEEN {} AND {}".format, numbers, st.sampled_from(["", "NOT "]), numbers | plain, plain)
        | st.builds("{} {}IN (1, {})".format, numbers, st.sampled_from(["", "NOT "]), plain)
        | st.builds("{} {} 'a%'".format, texts, st.sampled_from(["=", "<", "LIKE", "ILIKE", "NOT LIKE"]))
        | st.builds("{} IS {}NULL".format, facts, st.sampled_from(["", "NOT "]))
        | st.just("protected")
    )
    return st.recursive(
        tests,
        lambda inner: (
            st.builds("({} {} {})".format, inner, st.sampled_from(["AND", "OR"]), inner)
            | st.builds("(({}) = ({}))".format, inner, inner)
            | st.builds("NOT ({})".format, inner)
            | st.builds("CASE WHEN {} THEN {} ELSE {} END".format, inner, inner, inner)
        ),
        max_leaves=4,
    )


@settings(max_examples=100, deadline=None)
@given(condition_texts())
def test_the_whole_language_is_judged_without_error_and_built_of_known_parts_only(text: str) -> None:
    condition = compile_condition(text, acting=False)
    assert {type(node) for node in condition.expression.walk()} <= BUILT
    judged_without_error(text)


FOREIGN = [
    *(
        "(SELECT 1)",
        "sum(gpu_count)",
        "CAST(gpu_count AS INT)",
        "gpu_count::INT",
        "?",
        "$1",
        "read_csv('x')",
        "random()",
    ),
    *("length(repeat('x', 9))", "facts.gpu_count", "rowid", "count(*)", "row_number() OVER ()", "tags['a']['b']"),
    *(
        "gpu_count // 2",
        "gpu_count ^ 2",
        "(NULL)",
        "(gpu_count, 1)",
        "ｇpu_count",
        "list_sum(range(9))",
        "nullif(1, 2)",
    ),
]


@settings(max_examples=150, deadline=None)
@given(condition_texts(st.sampled_from(FOREIGN)), st.booleans())
def test_one_foreign_part_anywhere_spoils_the_whole(text: str, acting: bool) -> None:
    assume(any(part in text for part in FOREIGN))
    assert refusal(text, acting=acting) is not None


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60))
def test_any_text_at_all_is_a_condition_or_refused_in_words(text: str) -> None:
    sentence = refusal(text, acting=True)
    assert sentence is None or len(sentence) > 20


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30))
def test_a_text_means_itself_whatever_it_contains(value: str) -> None:
    quoted = value.replace("'", "''")
    assert holds(f"name = '{quoted}'", name=value) is True
    assert holds(f"tags['{quoted}'] = 'x'", tags={value: "x"}) is True


# Meaning, held against a reading in Python of the same condition.

NUMBERS = ["gpu_count", "age_seconds", "hourly_cost", "max_utilisation"]
TEXTS = ["state", "project", "activity"]
COMPARE = {
    "=": lambda a, b: a == b,
    "<>": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


@st.composite
def number_tests(draw):  # type: ignore[no-untyped-def]
    fact, sign, value = draw(st.sampled_from(NUMBERS)), draw(st.sampled_from(list(COMPARE))), draw(st.integers(-3, 9))
    shift = draw(st.integers(-2, 2))
    return f"{fact} + {shift} {sign} {value}", lambda row: COMPARE[sign](row[fact] + shift, value), {fact}


@st.composite
def text_tests(draw):  # type: ignore[no-untyped-def]
    fact, values = draw(st.sampled_from(TEXTS)), draw(st.lists(st.sampled_from("abc"), min_size=1, max_size=3))
    listed = ", ".join(f"'{value}'" for value in values)
    no = draw(st.booleans())
    return f"{fact} {'NOT ' * no}IN ({listed})", lambda row: (row[fact] in values) is not no, {fact}


def joined(inner):  # type: ignore[no-untyped-def]
    def both(pair):  # type: ignore[no-untyped-def]
        (a, fa, na), (b, fb, nb), is_and = pair
        if is_and:
            return f"({a}) AND ({b})", lambda row: fa(row) and fb(row), na | nb
        return f"({a}) OR ({b})", lambda row: fa(row) or fb(row), na | nb

    negated = inner.map(lambda part: (f"NOT ({part[0]})", lambda row: not part[1](row), part[2]))
    return st.tuples(inner, inner, st.booleans()).map(both) | negated


def cells(name: str) -> st.SearchStrategy[object]:
    values = st.integers(-3, 9) if name in NUMBERS else st.sampled_from("abc")
    return st.none() | values


@settings(max_examples=80, deadline=None)
@given(
    st.recursive(number_tests() | text_tests(), joined, max_leaves=6),
    st.lists(st.fixed_dictionaries({name: cells(name) for name in NUMBERS + TEXTS}), min_size=1, max_size=8),
)
def test_means_what_it_says_and_is_unknown_where_any_named_fact_is(written, rows) -> None:  # type: ignore[no-untyped-def]
    text, meaning, named = written
    told = answers(text, [machine(**row) for row in rows])
    assert told == [None if any(row[fact] is None for fact in named) else meaning(row) for row in rows]


def test_every_type_of_fact_can_be_compared() -> None:
    literal = {Type.TEXT: "'x'", Type.INTEGER: "1", Type.NUMBER: "1.5", Type.BOOLEAN: "TRUE"}
    for column in (*BASE, *TELEMETRY):
        condition = compile_condition(f"{column.name} = {literal[column.type]}", acting=not column.of_silence)
        assert condition.columns == {column.name}
