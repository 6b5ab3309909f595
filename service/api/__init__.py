"""Thin routes: check who asks, call one function, shape the answer. No SQL and no decisions."""
