"""Read what ComfyUI's /queue and /history say about a prompt: where it is, how it ended, what it made."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from comfy_mcp.workflows.graphs import class_of, inputs_of, is_list, is_object, link_of

EndStatus = Literal["completed", "failed", "cancelled"]

_LONGEST_SENTENCE = 400


@dataclass(frozen=True, slots=True)
class OutputFile:
    """Name a file that a node wrote, as /view takes it: `kind` is ComfyUI's folder (output, temp or input)."""

    node_id: str
    filename: str
    subfolder: str
    kind: str
    animated: bool


@dataclass(frozen=True, slots=True)
class Ending:
    """Tell how a prompt ended.

    `cached` is True when nothing was rendered: the pictures are those of an earlier identical run, often under its very
    file names.
    `error` is one sentence; `details` holds node_id, node_type and exception_type of a failure.
    """

    status: EndStatus
    outputs: tuple[OutputFile, ...] = ()
    cached: bool = False
    error: str | None = None
    details: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class QueueState:
    """List the ids of the prompts that run and that wait, in their order."""

    running: tuple[str, ...]
    pending: tuple[str, ...]


def read_queue(body: object) -> QueueState:
    """Read the answer of GET /queue."""
    fields: Mapping[str, Any] = body if is_object(body) else {}
    return QueueState(_prompt_ids(fields.get("queue_running")), _prompt_ids(fields.get("queue_pending")))


def read_ending(entry: object) -> Ending | None:
    """Read one entry of /history; None when it has no verdict yet, or is no history entry."""
    if not is_object(entry):
        return None
    status = entry.get("status")
    if not is_object(status):
        return None
    messages = _messages(status.get("messages"))
    outputs = _outputs(entry.get("outputs"))
    if status.get("status_str") == "success":
        return Ending("completed", outputs, cached=_nothing_ran(entry, messages))
    if "execution_interrupted" in messages:
        return Ending("cancelled", outputs)
    if status.get("status_str") == "error":
        sentence, details = _failure(messages.get("execution_error", {}), entry)
        return Ending("failed", outputs, error=sentence, details=details)
    return None


def read_files(node_id: str, output: object) -> tuple[OutputFile, ...]:
    """Read the files in what one node shows, as /history and the event `executed` hold it."""
    if not is_object(output):
        return ()
    animated = output.get("animated")
    moves = is_list(animated) and any(animated)
    lists = [items for items in output.values() if is_list(items)]
    return tuple(_file(node_id, item, moves) for items in lists for item in items if _is_file(item))


def _prompt_ids(rows: object) -> tuple[str, ...]:
    # A row is [number, prompt_id, graph, extra_data, outputs].
    return tuple(str(row[1]) for row in rows if is_list(row) and len(row) > 1) if is_list(rows) else ()


def _messages(rows: object) -> dict[str, Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}
    for row in rows if is_list(rows) else []:
        if is_list(row) and len(row) == 2 and is_object(row[1]):
            found[str(row[0])] = row[1]
    return found


def _outputs(by_node: object) -> tuple[OutputFile, ...]:
    files: list[OutputFile] = []
    for node_id, output in by_node.items() if is_object(by_node) else ():
        files.extend(read_files(str(node_id), output))
    # What was saved comes before what was only previewed.
    return tuple(sorted(files, key=lambda file: file.kind != "output"))


def _is_file(item: object) -> bool:
    return is_object(item) and isinstance(item.get("filename"), str)


def _file(node_id: str, item: Mapping[str, Any], animated: bool) -> OutputFile:
    return OutputFile(
        node_id=node_id,
        filename=item["filename"],
        subfolder=str(item.get("subfolder") or ""),
        kind=str(item.get("type") or "output"),
        animated=animated,
    )


def _nothing_ran(entry: Mapping[str, Any], messages: Mapping[str, Mapping[str, Any]]) -> bool:
    """Tell whether everything but, perhaps, the saving of the outputs came from the cache."""
    cached = messages.get("execution_cached", {}).get("nodes")
    prompt = entry.get("prompt")
    if not is_list(cached) or not is_list(prompt) or len(prompt) < 5 or not is_object(prompt[2]):
        return False
    outputs = {str(node) for node in prompt[4]} if is_list(prompt[4]) else set[str]()
    work = _ancestors(prompt[2], outputs) - outputs or outputs
    return bool(work) and work <= {str(node) for node in cached}


def _ancestors(graph: Mapping[str, Any], nodes: set[str]) -> set[str]:
    found: set[str] = set()
    waiting = list(nodes)
    while waiting:
        node_id = waiting.pop()
        if node_id not in found:
            found.add(node_id)
            links = map(link_of, inputs_of(graph.get(node_id)).values())
            waiting.extend(link.node_id for link in links if link is not None)
    return found


def _failure(error: Mapping[str, Any], entry: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    node_id = str(error.get("node_id", ""))
    node_type = str(error.get("node_type") or _class_in(entry, node_id) or "a node")
    kind = str(error.get("exception_type", "")).rsplit(".", 1)[-1]
    message = " ".join(str(error.get("exception_message", "")).split()).rstrip(".") or "no reason was given"
    if len(message) > _LONGEST_SENTENCE:
        message = message[: _LONGEST_SENTENCE - 1] + "…"
    where = f"{node_type} (node {node_id})" if node_id else "ComfyUI"
    sentence = f"{where} failed: {kind + ': ' if kind else ''}{message}."
    return sentence, {"node_id": node_id, "node_type": node_type, "exception_type": kind}


def _class_in(entry: Mapping[str, Any], node_id: str) -> str:
    prompt = entry.get("prompt")
    graph = prompt[2] if is_list(prompt) and len(prompt) > 2 else None
    return class_of(graph.get(node_id)) if is_object(graph) else ""
