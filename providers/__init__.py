"""Clouds: each package lists resources, prices and telemetry of one cloud, and acts on it.

Nothing here knows projects, spend budgets, people or HTTP routes of our own; that is `service`.
"""
