"""Judging: facts and `now` in, decisions out. No network, no database, no clock, no environment."""
