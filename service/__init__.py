"""The service: the only place that knows both what to judge (`policies`) and how to reach clouds (`providers`)."""

__version__ = "0.1.0"
