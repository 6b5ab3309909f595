"""The real data stays where it is: tests read it there, and no file of it is in the project."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from tests.real_data import REAL_DATA, needs

ROOT = Path(__file__).parents[2]
FOLDERS = ("alembic", "bench", "docs", "helm", "policies", "providers", "service", "tests")


def contents(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in folder.rglob("*"):
        if path.is_file() and path.stat().st_size:
            yield sha256(path.read_bytes()).hexdigest(), path


@needs("MANIFEST.csv")
def test_no_file_of_it_is_in_the_project() -> None:
    real = dict(contents(REAL_DATA))
    ours = [(content, path) for folder in FOLDERS for content, path in contents(ROOT / folder)]

    assert len(real) > 100
    assert len(ours) > 300
    assert [str(path.relative_to(ROOT)) for content, path in ours if content in real] == []
