"""A whole cloud in memory, on a clock you set: for the demo, for tests and for back-tests."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
