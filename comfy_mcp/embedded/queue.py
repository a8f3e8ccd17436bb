"""What waits, what runs, and what has run. Lives in the event loop's thread and is touched nowhere else."""

import asyncio
import bisect
import itertools
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from comfy_mcp.embedded.validation import Graph

HISTORY_LIMIT = 10_000


@dataclass(frozen=True, slots=True)
class QueuedPrompt:
    """A validated graph in the queue; the lowest `number` runs first."""

    number: float
    prompt_id: str
    graph: Graph
    extra_data: dict[str, Any]
    outputs: list[str]

    @property
    def client_id(self) -> str | None:
        """The client that hears of this prompt; None when everybody does."""
        return self.extra_data.get("client_id")

    def as_list(self) -> list[Any]:
        """Return the five values by which /queue and /history show a prompt."""
        return [self.number, self.prompt_id, self.graph, self.extra_data, self.outputs]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: what its output nodes show, and the messages that tell its course."""

    outputs: dict[str, Any]
    completed: bool
    messages: list[tuple[str, dict[str, Any]]]

    def status(self) -> dict[str, Any]:
        """Return the `status` of a history entry."""
        words = "success" if self.completed else "error"
        return {
            "status_str": words,
            "completed": self.completed,
            "messages": [[event, data] for event, data in self.messages],
        }


@dataclass(frozen=True, slots=True)
class Finished:
    """A prompt that has run."""

    prompt: QueuedPrompt
    outcome: Outcome

    def as_dict(self) -> dict[str, Any]:
        """Return the entry as /history answers it."""
        meta = {
            node_id: {"node_id": node_id, "display_node": node_id, "parent_node": None, "real_node_id": node_id}
            for node_id in self.outcome.outputs
        }
        return {
            "prompt": self.prompt.as_list(),
            "outputs": self.outcome.outputs,
            "status": self.outcome.status(),
            "meta": meta,
        }


@dataclass(slots=True)
class PromptQueue:
    """One line of prompts before one worker; `changed` is called whenever the number of unfinished prompts changes."""

    changed: Callable[[], None]
    pending: list[tuple[float, int, QueuedPrompt]] = field(default_factory=list[tuple[float, int, QueuedPrompt]])
    running: QueuedPrompt | None = None
    history: dict[str, Finished] = field(default_factory=dict[str, Finished])
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)
    _arrivals: "itertools.count[int]" = field(default_factory=itertools.count)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    def next_number(self, *, front: bool) -> float:
        """Return the number of the next prompt; a prompt at the front gets it negated, and so precedes all others."""
        number = next(self._numbers)
        return -number if front else number

    @property
    def remaining(self) -> int:
        """How many prompts wait or run."""
        return len(self.pending) + (self.running is not None)

    def put(self, prompt: QueuedPrompt) -> None:
        """Add a prompt behind those with the same or a lower number."""
        bisect.insort(self.pending, (prompt.number, next(self._arrivals), prompt))
        self._wake.set()
        self.changed()

    async def take(self) -> QueuedPrompt:
        """Wait for the next prompt and mark it as running."""
        while not self.pending:
            self._wake.clear()
            await self._wake.wait()
        self.running = self.pending.pop(0)[2]
        self.changed()
        return self.running

    def finish(self, prompt: QueuedPrompt, outcome: Outcome) -> None:
        """Move the running prompt into the history."""
        self.running = None
        self.history.pop(prompt.prompt_id, None)
        self.history[prompt.prompt_id] = Finished(prompt, outcome)
        while len(self.history) > HISTORY_LIMIT:
            del self.history[next(iter(self.history))]
        self.changed()

    def delete(self, prompt_ids: Collection[str]) -> bool:
        """Remove waiting prompts; say whether any was there. The running one stays."""
        kept = [entry for entry in self.pending if entry[2].prompt_id not in prompt_ids]
        removed = len(kept) < len(self.pending)
        self.pending[:] = kept
        if removed:
            self.changed()
        return removed

    def clear(self) -> None:
        """Remove every waiting prompt."""
        self.pending.clear()
        self.changed()

    def waiting(self) -> list[QueuedPrompt]:
        """Return the waiting prompts, the next one first."""
        return [entry[2] for entry in self.pending]
