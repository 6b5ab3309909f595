"""What the judge writes for each row and policy: one byte. From OUT on it tells which restriction does not hold."""

from __future__ import annotations

from collections.abc import Mapping

from policies.decision import Verdict

OK, BREACH, UNKNOWN, WHERE_UNKNOWN, WHEN_UNKNOWN, WHEN_FALSE, FORESEEN, OUT = range(8)
VERDICTS: Mapping[int, Verdict] = {
    OK: Verdict.OK,
    BREACH: Verdict.BREACH,
    UNKNOWN: Verdict.UNKNOWN,
    WHERE_UNKNOWN: Verdict.UNKNOWN,
    WHEN_UNKNOWN: Verdict.UNKNOWN,
    WHEN_FALSE: Verdict.OK,
    FORESEEN: Verdict.FORESEEN,
}
