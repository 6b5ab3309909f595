"""The charter's first sentence, from samples to verdicts: whatever falls silent, no machine breaches because of it."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from policies.facts import TELEMETRY, Column, Type
from policies.policy import BasePolicy, ExpressionPolicy, Policy
from providers.records import Series, Signal
from service.model import Known, Telemetry
from service.pipeline.evaluate import Look, judge
from tests.pipeline.builders import NOW, known, record, series

POLICY: TypeAdapter[Policy] = TypeAdapter(Policy)
MACHINES: tuple[Known, ...] = (known("i-1", record=record("i-1", gpu_count=2)), known("i-2"))
GPUS = {machine.id: machine.record.gpu_count for machine in MACHINES}
SPOKEN_OF = [column for column in TELEMETRY if not column.of_silence]
SIGNALS = [
    Signal.UTILISATION,
    Signal.TENSOR_ACTIVE,
    Signal.DRAM_ACTIVE,
    Signal.POWER_WATTS,
    Signal.MEMORY_USED_MIB,
]
NUMBERS = {"s": ["60", "2700", "7200"], "0..1": ["0.05", "0.5"], "W": ["0.3", "90"], "MiB": ["0.3", "512"]}


def comparisons(column: Column) -> list[str]:
    if column.type is Type.TEXT:
        return [f"{column.name} {sign} '{word}'" for sign in ("=", "<>") for word in ("idle", "busy")]
    numbers = NUMBERS.get(column.unit, ["0", "1", "2", "8"])
    signs = ["=", "<>", "<", "<=", ">", ">="]
    plain = [f"{column.name} {sign} {number}" for sign in signs for number in numbers]
    computed = [f"{column.name} * 2 - gpu_count {sign} 0" for sign in signs]
    return [*plain, *computed]


CONDITIONS = st.recursive(
    st.sampled_from([text for column in SPOKEN_OF for text in comparisons(column)]) | st.just("gpu_count > 2"),
    lambda part: (
        st.builds("({} AND {})".format, part, part)
        | st.builds("({} OR {})".format, part, part)
        | st.builds("(NOT {})".format, part)
    ),
    max_leaves=4,
)


@st.composite
def acting_policies(draw: st.DrawFn) -> BasePolicy:
    """With a person's own condition where one may stand."""
    condition = draw(CONDITIONS)
    idle = {"busy_gpus_below": draw(st.integers(1, 3))}
    fields = draw(
        st.sampled_from(
            [
                {"type": "expression", "expression": {"when": condition}},
                {"type": "idle", "idle": {**idle, "when": condition}},
                {"type": "idle", "idle": idle, "scope": {"where": condition}},
                {"type": "quota", "quota": {"max_gpus": 2}, "scope": {"where": condition}},
            ]
        )
    )
    return POLICY.validate_python({"name": "theirs", "mode": "enforce", **fields})


@st.composite
def fleets(draw: st.DrawFn) -> dict[str, tuple[Series, ...]]:
    """Every GPU sends every signal, each at a steady level, or only from some minute on."""
    found = {}
    for machine in MACHINES:
        sent = []
        for device in range(GPUS[machine.id]):
            levels = draw(st.lists(st.sampled_from([0.0, 0.0, 0.0, 0.9]), min_size=5, max_size=5))
            first = draw(st.sampled_from([-120, -120, -120, -20]))
            for signal, level in zip(SIGNALS, levels, strict=True):
                one = series(level, device=str(device), of=machine.record.ref, signal=signal, every=240)
                kept = [moment >= int(NOW.timestamp()) + first * 60 for moment in one.times]
                times = tuple(time for time, keep in zip(one.times, kept, strict=True) if keep)
                sent.append(replace(one, times=times, values=one.values[: len(times)]))
        found[machine.id] = tuple(sent)
    return found


def breaching(found: dict[str, tuple[Series, ...]], policies: list[BasePolicy]) -> set[tuple[str, int]]:
    seen = frozenset(GPUS)
    look = Look(resources=MACHINES, seen=seen, telemetry=Telemetry(series=found), cost_to_date={}, at=NOW)
    judgement = judge(look, policies).judgement
    assert judgement.faults == {}
    return {(name, row) for name, outcome in judgement.outcomes.items() for row in outcome.breaches}


@settings(max_examples=20, deadline=None)
@given(fleets(), st.lists(acting_policies(), min_size=3, max_size=6), st.data())
def test_nothing_breaches_because_a_gpu_falls_silent(
    found: dict[str, tuple[Series, ...]], drawn: list[BasePolicy], data: st.DataObject
) -> None:
    policies = [policy.model_copy(update={"name": f"theirs-{index}"}) for index, policy in enumerate(drawn)]
    machine = data.draw(st.sampled_from(sorted(GPUS)))
    device = str(data.draw(st.integers(0, GPUS[machine] - 1)))
    gone = set(data.draw(st.sampled_from([SIGNALS, *([signal] for signal in SIGNALS)])))
    left = tuple(one for one in found[machine] if one.device != device or one.signal not in gone)
    assert breaching({**found, machine: left}, policies) <= breaching(found, policies)


def test_no_comparison_with_any_fact_turns_true_because_a_gpu_falls_silent() -> None:
    policies: list[BasePolicy] = [
        ExpressionPolicy.model_validate({"type": "expression", "name": text, "expression": {"when": text}})
        for column in SPOKEN_OF
        for text in comparisons(column)
    ]
    for level in (0.0, 0.9):
        found = {
            machine.id: tuple(
                series(level, device=str(device), of=machine.record.ref, signal=signal, every=240)
                for device in range(GPUS[machine.id])
                for signal in SIGNALS
            )
            for machine in MACHINES
        }
        left = {id: tuple(one for one in sent if one.device != "0") for id, sent in found.items()}
        before = breaching(found, policies)
        assert before
        assert breaching(left, policies) <= before
