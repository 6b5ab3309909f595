"""Runs every bench and prints its figures. Each compares within one run, asserts equal results first, and says what
limits it; `bench/README.md` keeps figures of a known machine.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> int:
    """One process each, so that none warms up another."""
    failed = 0
    for path in sorted(HERE.glob("[!_]*.py")):
        print(f"\n=== {path.stem} ===", flush=True)
        failed += (
            subprocess.run([sys.executable, "-m", f"bench.{path.stem}"], cwd=HERE.parent, check=False).returncode != 0
        )
    return failed


if __name__ == "__main__":
    sys.exit(main())
