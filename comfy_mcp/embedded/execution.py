"""Runs graphs, one at a time, in a worker thread.

The cache holds the nodes of the latest graph: a node whose class, inputs and files are the same as then, and whose
sources are, is not run again. So an identical graph runs nothing, and names the same old file.
"""

import hashlib
import json
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from comfy_mcp.embedded.folders import Folders
from comfy_mcp.embedded.narration import Announcer, Narration
from comfy_mcp.embedded.nodes.definitions import Interrupted, NodeResult
from comfy_mcp.embedded.nodes.models import LoadedModels
from comfy_mcp.embedded.queue import Outcome, QueuedPrompt
from comfy_mcp.embedded.validation import Catalogue, Graph, as_link


@dataclass(slots=True)
class Executor:
    """The worker: what is loaded, what is cached, and whether it shall stop.

    `execute` and `forget` are called from one thread at a time; `interrupted` may be set from any.
    """

    folders: Folders
    catalogue: Catalogue
    announcer: Announcer
    models: LoadedModels = field(default_factory=LoadedModels)
    interrupted: threading.Event = field(default_factory=threading.Event)
    _cache: dict[str, NodeResult] = field(default_factory=dict[str, NodeResult])

    def execute(self, prompt: QueuedPrompt) -> Outcome:
        """Run a validated prompt to its end, whatever that is; never raises for what a node does."""
        keys = self._keys(prompt.graph, prompt.outputs)
        self._cache = {key: self._cache[key] for key in keys.values() if key in self._cache}
        narration = Narration(prompt, self.announcer)
        narration.started([node_id for node_id, key in keys.items() if key in self._cache])
        outputs: dict[str, Any] = {}
        executed: list[str] = []
        for node_id, key in keys.items():
            fresh = key not in self._cache
            if fresh:
                narration.node_started(node_id)
                result = self._run_node(narration, node_id, keys, executed)
                if result is None:
                    return Outcome(outputs, completed=False, messages=narration.messages)
                self._cache[key] = result
                executed.append(node_id)
            ui = self._cache[key].ui
            if ui is not None:
                outputs[node_id] = dict(ui)
                narration.node_shows(node_id, ui)
            if fresh:
                narration.node_finished(node_id)
        narration.succeeded()
        return Outcome(outputs, completed=True, messages=narration.messages)

    def forget(self, *, models: bool, results: bool) -> None:
        """Drop what was loaded, what was made, or both."""
        if models:
            self.models.forget()
        if results:
            self._cache = {}

    def _run_node(
        self, narration: Narration, node_id: str, keys: Mapping[str, str], executed: list[str]
    ) -> NodeResult | None:
        """Run one node; None when it failed or was stopped, which has been told then."""
        node = narration.prompt.graph[node_id]
        definition = self.catalogue[node["class_type"]]
        inputs: dict[str, Any] = {}
        for item in definition.inputs:
            if item.name in node["inputs"]:
                value = node["inputs"][item.name]
                link = as_link(value)
                inputs[item.name] = value if link is None else self._cache[keys[link[0]]].values[link[1]]
        where = {"node_id": node_id, "node_type": definition.class_type, "executed": list(executed)}
        try:
            if self.interrupted.is_set():
                raise Interrupted
            return definition.run(_NodeRun(self, narration, node_id), **inputs)
        except Interrupted:
            narration.interrupted(where)
        except Exception as error:
            narration.failed(where, {**_describe(error, inputs), "current_outputs": list(narration.prompt.graph)})
        return None

    def _keys(self, graph: Graph, outputs: list[str]) -> dict[str, str]:
        """Return, for each node that the outputs need, sources first, a digest of all that its result depends on."""
        keys: dict[str, str] = {}

        def visit(node_id: str) -> str:
            if node_id not in keys:
                node = graph[node_id]
                definition = self.catalogue[node["class_type"]]
                given: dict[str, Any] = {
                    item.name: node["inputs"][item.name] for item in definition.inputs if item.name in node["inputs"]
                }
                described: dict[str, Any] = {}
                for name, value in given.items():
                    link = as_link(value)
                    described[name] = {"is": value} if link is None else {"from": visit(link[0]), "slot": link[1]}
                files = ""
                if definition.fingerprint is not None:
                    try:
                        files = definition.fingerprint(self.folders, given)
                    except OSError as error:
                        # The node itself will say so, when it is run.
                        files = str(error)
                state = json.dumps([definition.class_type, described, files], sort_keys=True)
                keys[node_id] = hashlib.blake2b(state.encode(), digest_size=16).hexdigest()
            return keys[node_id]

        for output in outputs:
            visit(output)
        return keys


@dataclass(frozen=True, slots=True)
class _NodeRun:
    """What one running node sees of its run."""

    executor: Executor
    narration: Narration
    node_id: str

    @property
    def folders(self) -> Folders:
        return self.executor.folders

    @property
    def models(self) -> LoadedModels:
        return self.executor.models

    @property
    def png_texts(self) -> Mapping[str, Any]:
        prompt = self.narration.prompt
        return {"prompt": prompt.graph, **(prompt.extra_data.get("extra_pnginfo") or {})}

    def step(self, done: int, total: int, preview: Callable[[], bytes]) -> None:
        if self.executor.interrupted.is_set():
            raise Interrupted
        self.narration.node_stepped(self.node_id, done, total, preview)


def _describe(error: Exception, inputs: Mapping[str, Any]) -> dict[str, Any]:
    kind = type(error)
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return {
        "exception_message": f"{error}\n",
        "exception_type": f"{module}{kind.__qualname__}",
        "traceback": traceback.format_tb(error.__traceback__),
        "current_inputs": {name: [_shown(value)] for name, value in inputs.items()},
    }


def _shown(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else f"<{type(value).__name__}>"
