"""Where the real data lies: beside the project, never in it. What reads it is skipped where it is absent.

What must hold everywhere is proven with data made for it; the real data shows that what was made is like what is.
"""

from __future__ import annotations

from pathlib import Path

import pytest

REAL_DATA = Path(__file__).parents[2] / "shared" / "data"


def needs(*paths: str) -> pytest.MarkDecorator:
    """Skips the tests it marks where one of these is missing, and says which."""
    missing = ", ".join(f"../shared/data/{path}" for path in paths if not (REAL_DATA / path).exists())
    return pytest.mark.skipif(bool(missing), reason=f"real data is not beside the project: {missing}")
