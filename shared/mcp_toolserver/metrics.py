"""Count what a server does, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class ToolMetrics:
    """Calls and their duration in seconds, by tool and by outcome (`ok` or an error's code)."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._calls = Counter("tool_calls", "Tool calls", ["tool", "outcome"], registry=self._registry)
        self._seconds = Histogram("tool_call_seconds", "Duration of tool calls", ["tool"], registry=self._registry)

    def count(self, tool: str, outcome: str, seconds: float) -> None:
        """Add one call."""
        self._calls.labels(tool, outcome).inc()
        self._seconds.labels(tool).observe(seconds)

    def as_text(self) -> bytes:
        """Return everything in Prometheus' text form."""
        return generate_latest(self._registry)
