"""`${NAME}` in documents: what it reaches, and what it never does."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.secrets import MissingSecret, Secrets

ENVIRONMENT = {
    "CURFEW_SECRET_SLACK": "T0/B0/xyz",
    "CURFEW_SECRET_KEY": "k" * 40,
    "CURFEW_ADMIN_TOKEN": "t" * 40,
    "PATH": "/bin",
}


def test_a_name_reads_its_own_variable(tmp_path: Path) -> None:
    assert Secrets(folder=None, environment=ENVIRONMENT).reveal({"a": ["slack://${SLACK}"]}) == {
        "a": ["slack://T0/B0/xyz"]
    }


@pytest.mark.parametrize("name", ["KEY", "ADMIN_TOKEN", "PATH", "NOPE", "CURFEW_SECRET_KEY"])
def test_nothing_else_of_the_environment_is_reached(name: str) -> None:
    with pytest.raises(MissingSecret, match=name):
        Secrets(folder=None, environment=ENVIRONMENT).reveal(f"json://host/${{{name}}}")


def test_a_file_of_that_name_is_read_and_its_last_line_end_dropped(tmp_path: Path) -> None:
    (tmp_path / "SLACK_VISION").write_text("xyz\n")

    assert Secrets(folder=tmp_path, environment={}).get("SLACK_VISION") == "xyz"


@pytest.mark.parametrize("text", ["${../passwd}", "${a/b}", "${}", "$SLACK", "${SLACK"])
def test_what_is_no_name_stays_as_it_is(text: str, tmp_path: Path) -> None:
    assert Secrets(folder=tmp_path, environment=ENVIRONMENT).reveal(text) == text


def test_known_secrets_are_taken_out_of_texts() -> None:
    secrets = Secrets(folder=None, environment=ENVIRONMENT)

    assert secrets.mask("failed: https://hooks/T0/B0/xyz said no") == "failed: https://hooks/${SLACK} said no"
