"""One GPU may be told of under several names, and many slices may be one GPU: neither hides one that is silent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from policies.policy import IdleProfile
from providers.records import Kind, ResourceRef, Series, Signal
from service.pipeline.activity import judge_activity

NOW = datetime(2026, 11, 16, 9, tzinfo=UTC)
REF = ResourceRef(provider="aws", account="1", region="us-east-1", kind=Kind.INSTANCE, external_id="i-1")
NUMBERS = [str(number) for number in range(8)]
UUIDS = [f"GPU-{number:08x}" for number in range(8)]


def speaking(devices: list[str], value: float = 0.0) -> list[Series]:
    """A sample a minute for two hours, of each device."""
    end = int(NOW.timestamp())
    times = tuple(range(end - 7200, end, 60))
    return [
        Series(ref=REF, device=device, signal=Signal.UTILISATION, times=times, values=(value,) * len(times))
        for device in devices
    ]


@pytest.mark.parametrize(
    ("series", "word"),
    [
        pytest.param(speaking(NUMBERS) + speaking(UUIDS), "idle", id="all told twice"),
        pytest.param(speaking(NUMBERS[:4]) + speaking(UUIDS[:4]), None, id="four told twice hide four silent ones"),
        pytest.param(speaking(NUMBERS) + speaking(UUIDS[:4]), "idle", id="one source tells of all, the other of some"),
        pytest.param(speaking(NUMBERS) + speaking(UUIDS[:1], 0.9), "busy", id="the other source shows work"),
        pytest.param(speaking(NUMBERS, 0.9) + speaking(UUIDS), "busy", id="either source shows work"),
        pytest.param(speaking([f"{UUIDS[0]}/{n}" for n in range(7)] + UUIDS[1:2]), None, id="seven slices are one GPU"),
        pytest.param(
            speaking([f"{UUIDS[0]}/{n}" for n in range(7)] + UUIDS[1:]), "idle", id="slices beside whole GPUs"
        ),
        pytest.param(
            speaking([f"{UUIDS[0]}/{n}" for n in range(7)]) + speaking(UUIDS), "idle", id="a GPU and its own slices"
        ),
    ],
)
def test_namings(series: list[Series], word: str | None) -> None:
    found = judge_activity(
        series,
        gpu_count=8,
        started_at=NOW - timedelta(days=1),
        ambiguous=False,
        profile=IdleProfile(),
        at=NOW,
    )

    assert found.activity == word
