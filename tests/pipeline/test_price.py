"""Which price a resource gets: the file before the provider, discounts only on the latter, never zero by omission."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.records import CapacityType, Kind, Price, ResourceRecord, ResourceRef
from service.documents import Discount, Source, effective, written
from service.files import Mistake, parse, read_yaml
from service.pipeline.decide import decide
from service.pipeline.price import FilePrice, PriceFile, price_of
from tests.pipeline.builders import known, world

REF = ResourceRef(provider="aws", account="123456789012", region="us-east-1", kind=Kind.INSTANCE, external_id="i-0abc")
TRAINER = ResourceRecord(
    ref=REF,
    incarnation="i-0abc",
    name="trainer",
    zone="us-east-1a",
    sku="p5.48xlarge",
    gpu_vendor="nvidia",
    gpu_model="H100",
    gpu_count=8,
    capacity_type=CapacityType.ON_DEMAND,
)
DAY = date(2026, 11, 16)
LISTED = Price(rate_micros=55_040_000, currency="USD", source="list 2026-11-01, USD")


def less(percent: str, **fields: object) -> Discount:
    return Discount.model_validate({"percent": percent, **fields})


def quoted(*discounts: Discount, record: ResourceRecord = TRAINER, price: Price = LISTED) -> Price:
    found = price_of(record, PriceFile(), {REF: price}, discounts, on=DAY)
    assert found is not None
    return found


# Discounts.


def test_a_discount_comes_off_the_quoted_price_and_says_so() -> None:
    assert quoted(less("28%")) == Price(
        rate_micros=39_628_800, currency="USD", source="list 2026-11-01, USD; less 28 %"
    )


@pytest.mark.parametrize(
    ("discount", "applies"),
    {
        "one without conditions fits everything": (less("10%"), True),
        "its capacity type": (less("10%", capacity_types=["reserved", "on_demand"]), True),
        "another capacity type": (less("10%", capacity_types=["spot"]), False),
        "its machine type": (less("10%", skus=["p4d.*", "p5.*"]), True),
        "another machine type": (less("10%", skus=["p5e.*"]), False),
        "both must fit": (less("10%", capacity_types=["spot"], skus=["p5.*"]), False),
    }.values(),
)
def test_a_discount_is_for_what_it_names(discount: Discount, applies: bool) -> None:
    assert quoted(discount).rate_micros == (49_536_000 if applies else LISTED.rate_micros)


def test_of_several_discounts_the_first_that_fits_counts_and_none_is_added_up() -> None:
    found = quoted(less("5%", skus=["g5.*"]), less("30%", skus=["p5.*"]), less("10%"))

    assert found.source == "list 2026-11-01, USD; less 30 %"
    assert found.rate_micros == 38_528_000


@pytest.mark.parametrize(
    ("rate", "percent", "expected"),
    [(1, "50%", 0), (3, "50%", 2), (5, "50%", 2), (1_000_001, "12.5%", 875_001), (10, "100%", 0), (7, "0.000001%", 7)],
)
def test_a_discounted_rate_is_whole_micro_units_ties_to_even(rate: int, percent: str, expected: int) -> None:
    assert quoted(less(percent), price=replace(LISTED, rate_micros=rate)).rate_micros == expected


@given(st.integers(0, 10**12), st.integers(1, 10**8))
def test_a_discounted_rate_is_exact_and_never_more(rate: int, millionths_of_a_percent: int) -> None:
    whole, rest = divmod(millionths_of_a_percent, 10**6)
    found = quoted(less(f"{whole}.{rest:06d}%"), price=replace(LISTED, rate_micros=rate)).rate_micros

    assert type(found) is int
    assert 0 <= found <= rate
    assert abs(found - rate * (1 - Fraction(millionths_of_a_percent, 10**8))) <= Fraction(1, 2)


def test_nobody_gets_a_discount_on_a_price_that_is_not_known() -> None:
    assert price_of(TRAINER, PriceFile(), {}, [less("28%")], on=DAY) is None


def test_the_price_file_is_final(tmp_path: Path) -> None:
    file = a_file(tmp_path, "- {sku: p5.48xlarge, hourly: 31.46, as_of: 2026-11-01}")

    assert price_of(TRAINER, file, {REF: LISTED}, [less("28%")], on=DAY) == Price(
        rate_micros=31_460_000, currency="USD", source="file prices.yaml, 2026-11-01"
    )


# Discounts in a source's document.

SOURCE = "kind: source\nname: research-aws\nprovider: aws\n"


def read(text: str) -> Source:
    [found], mistakes = parse(read_yaml(SOURCE + text, "sources.yaml")[0])
    assert mistakes == []
    assert isinstance(found.document, Source)
    return found.document


def test_a_source_names_its_discounts() -> None:
    source = read('discounts: [{percent: 28.50%, capacity_types: [on_demand], skus: ["p5.*"]}]\n')

    assert source.discounts == (less("28.5%", capacity_types=["on_demand"], skus=["p5.*"]),)
    assert source.config == {}, "it is ours, not the provider's"
    assert Source.model_validate(written(source)) == Source.model_validate(effective(source)) == source
    assert written(source)["discounts"] == [{"percent": "28.5%", "capacity_types": ["on_demand"], "skus": ["p5.*"]}]


@pytest.mark.parametrize(
    ("text", "field", "says"),
    [
        ("discounts: [{percent: 28}]", "discounts[0].percent", "write it with its sign, like 28%"),
        ("discounts: [{percent: 0%}]", "discounts[0].percent", "write it with its sign"),
        ("discounts: [{percent: 101%}]", "discounts[0].percent", "to 100%"),
        ("discounts: [{skus: [p5.*]}]", "discounts[0].percent", "is missing"),
        ("discounts: [{percent: 5%, sku: p5}]", "discounts[0].sku", "no such field; did you mean 'skus'?"),
        (
            "discounts: [{percent: 5%, capacity_types: [sopt]}]",
            "discounts[0].capacity_types[0]",
            "did you mean 'spot'?",
        ),
        ("discouts: [{percent: 5%}]", "discouts", "no such field; did you mean 'discounts'?"),
    ],
)
def test_a_mistake_in_a_discount_is_named(text: str, field: str, says: str) -> None:
    _, mistakes = parse(read_yaml(SOURCE + text, "sources.yaml")[0])
    [mistake] = mistakes

    assert isinstance(mistake, Mistake)
    assert mistake.field == field
    assert says in str(mistake)


# The price file.


def a_file(folder: Path, text: str) -> PriceFile:
    path = folder / "prices.yaml"
    path.write_text(text)
    return PriceFile.read(path)


def test_the_first_entry_that_fits_wins(tmp_path: Path) -> None:
    file = a_file(
        tmp_path,
        """
- {provider: gcp, hourly: 1, as_of: 2026-11-01}
- {provider: aws, account: 123456789012, region: "us-*", sku: "p5.*", hourly: 2.000001, as_of: 2026-11-02}
- {hourly: 3, currency: EUR, as_of: 2026-11-03}
""",
    )

    assert file.quote(TRAINER, DAY) == Price(
        rate_micros=2_000_001, currency="USD", source="file prices.yaml, 2026-11-02"
    )
    there = replace(TRAINER, ref=replace(REF, region="eu-west-1"))
    assert file.quote(there, DAY) == Price(rate_micros=3_000_000, currency="EUR", source="file prices.yaml, 2026-11-03")


def test_what_the_file_does_not_name_is_the_providers_to_price(tmp_path: Path) -> None:
    file = a_file(tmp_path, "- {sku: g6.*, hourly: 1, as_of: 2026-11-01}")

    assert price_of(TRAINER, file, {REF: LISTED}, on=DAY) == LISTED
    assert price_of(TRAINER, file, {}, on=DAY) is None


# Dated prices.

DATED = """
- {sku: "p5.*", hourly: 80, as_of: 2026-11-01, from: 2026-06-01}
- {sku: "p5.*", hourly: 98, as_of: 2024-01-15}
- {sku: "p5.*", hourly: 31.5, as_of: 2026-11-01, from: 2026-11-16}
- {sku: "p5.*", hourly: 90, as_of: 2026-11-01, from: 2025-06-05}
"""


@pytest.mark.parametrize(
    ("day", "hourly"),
    [
        ("2020-01-01", 98),
        ("2025-06-04", 98),
        ("2025-06-05", 90),
        ("2026-05-31", 90),
        ("2026-06-01", 80),
        ("2026-11-15", 80),
        ("2026-11-16", 31.5),
        ("2030-01-01", 31.5),
    ],
)
def test_of_the_same_patterns_the_newest_price_counts_that_has_begun(tmp_path: Path, day: str, hourly: float) -> None:
    price = a_file(tmp_path, DATED).quote(TRAINER, date.fromisoformat(day))

    assert price is not None
    assert price.rate_micros == hourly * 1_000_000


def test_a_dated_price_says_since_when_it_counts(tmp_path: Path) -> None:
    price = a_file(tmp_path, DATED).quote(TRAINER, DAY)

    assert price is not None
    assert price.source == "file prices.yaml, 2026-11-01, from 2026-11-16 on"


def test_what_has_not_begun_leaves_it_to_the_next_that_fits_and_then_to_the_provider(tmp_path: Path) -> None:
    file = a_file(
        tmp_path,
        """
- {sku: p5.48xlarge, hourly: 1, as_of: 2026-11-01, from: 2026-11-16}
- {sku: "p5.*", hourly: 2, as_of: 2026-11-01, from: 2026-11-15}
""",
    )
    days = [DAY - timedelta(days=2), DAY - timedelta(days=1), DAY]
    prices = [price_of(TRAINER, file, {REF: LISTED}, on=day) for day in days]

    assert [price.rate_micros if price else None for price in prices] == [LISTED.rate_micros, 2_000_000, 1_000_000]


def test_of_two_prices_for_one_day_the_first_counts(tmp_path: Path) -> None:
    file = a_file(
        tmp_path,
        """
- {hourly: 1, as_of: 2026-11-01, from: 2026-11-16}
- {hourly: 2, as_of: 2026-11-02, from: 2026-11-16}
""",
    )
    price = file.quote(TRAINER, DAY)

    assert price is not None
    assert price.rate_micros == 1_000_000


@given(
    st.lists(st.tuples(st.sampled_from(["*", "p5.*", "g6.*"]), st.none() | st.dates(DAY - timedelta(9), DAY))),
    st.dates(DAY - timedelta(10), DAY),
)
def test_however_prices_are_dated_and_ordered_the_one_that_counts_is_found(
    written: list[tuple[str, date | None]], day: date
) -> None:
    entries = [
        FilePrice.model_validate({"sku": sku, "hourly": str(number), "as_of": DAY, "from": since})
        for number, (sku, since) in enumerate(written)
    ]
    begun = [
        (sku, since or date.min, -number)
        for number, (sku, since) in enumerate(written)
        if sku != "g6.*" and (since or date.min) <= day
    ]
    first = next((sku for sku, _ in written if any(sku == one[0] for one in begun)), None)
    expected = max(((since, number) for sku, since, number in begun if sku == first), default=None)
    price = PriceFile(entries).quote(TRAINER, day)

    assert (price and price.rate_micros) == (expected and -expected[1] * 1_000_000)


@pytest.mark.parametrize(
    ("now", "rate"),
    [
        (datetime(2026, 11, 15, 23, 59, 59, tzinfo=UTC), 80_000_000),
        (datetime(2026, 11, 16, tzinfo=UTC), 31_500_000),
        (datetime(2026, 11, 15, 19, tzinfo=timezone(-timedelta(hours=6))), 31_500_000),
    ],
)
def test_a_ruling_takes_the_price_of_its_day_which_begins_in_utc(tmp_path: Path, now: datetime, rate: int) -> None:
    machine = known("i-0abc", record=TRAINER)
    [priced] = decide(world(machine, prices=a_file(tmp_path, DATED)), now).resources

    assert priced.price is not None
    assert priced.price.rate_micros == rate


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- {hourly: 1}", ["line 1, entry 1, as_of: is missing"]),
        (
            "- {hourly: 1, as_of: 2026-11-01, from: soon}",
            ["line 1, entry 1, from: 'soon' is no date; write it like 2026-11-01"],
        ),
        ("- {hourly: 1, as_of: 2026-11-01, since: 2026-11-01}", ["entry 1, since: there is no such field"]),
        (
            "- {hourly: 1, as_of: 2026-11-01}\n\n- hourly: 1,5\n  as_of: soon\n",
            [
                "line 3, entry 2, hourly: '1,5' is no amount of money; write a number like 200 or 199.95",
                "line 3, entry 2, as_of: 'soon' is no date; write it like 2026-11-01",
            ],
        ),
        ("- {hourly: -1, as_of: 2026-11-01}", ["entry 1, hourly: '-1' is no amount of money"]),
        ("- {hourly: 0.0000001, as_of: 2026-11-01}", ["entry 1, hourly: '0.0000001' is no amount of money"]),
        (
            "- {hourly: 1, as_of: 2026-11-01, provder: aws}",
            ["entry 1, provder: there is no such field; did you mean 'provider'?"],
        ),
        (
            "- {hourly: 1, as_of: 2026-11-01, capacity_type: on-demand}",
            ["entry 1, capacity_type: 'on-demand' fits no capacity type; did you mean 'on_demand'?"],
        ),
        ("- {hourly: 1, as_of: 2026-11-01, sku: }", ["entry 1, sku: is empty, which fits nothing"]),
        ("- {hourly: 1, as_of: 2026-11-01, currency: USDD}", ["entry 1, currency: 'USDD' is no ISO 4217"]),
        ("- {hourly: 1, hourly: 2, as_of: 2026-11-01}", ["line 1: 'hourly' is written twice"]),
        ("- p5.48xlarge", ["line 1, entry 1, must be fields like {provider, account,"]),
        ("p5.48xlarge: 31.46", ["it is a list of entries, each beginning with a hyphen"]),
        ("- {hourly: 1", ["line 1: this is no valid YAML: while parsing a flow mapping, expected ',' or '}', but got"]),
        ("[" * 50_000, ["it is nested too deeply"]),
    ],
)
def test_a_mistake_in_the_file_is_named_by_file_entry_and_field(tmp_path: Path, text: str, says: list[str]) -> None:
    with pytest.raises(ValueError, match=r"^the price file .*prices\.yaml cannot be used") as refused:
        a_file(tmp_path, text)

    for words in says:
        assert words in str(refused.value)


@pytest.mark.parametrize("content", [None, b"\xff\xfe- {}"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "prices.yaml"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(ValueError, match=r"^the price file .*prices\.yaml cannot be (read|used)"):
        PriceFile.read(path)
