"""Move a trained LoRA from aitk_mcp to comfy_mcp: `python3 scripts/transfer_lora_between_services.py`.

Without flags it moves the newest finished model that ComfyUI lacks. It streams, resumes after any interruption, of
itself too, and compares the sha256 on both sides.
"""

import argparse
import hashlib
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

if find_spec("mcp_toolserver") is None:
    from checkout import prepare

    prepare()

import anyio
import orjson
from anyio import to_thread

from mcp_toolserver.client import ToolClient
from mcp_toolserver.errors import Conflict, InvalidArguments, NotFound, ToolError
from mcp_toolserver.files import sha256_of_file
from mcp_toolserver.retries import Patience, patiently
from mcp_toolserver.terminal import Bars, JsonEvents, Lines, Silence, Teller
from mcp_toolserver.uploads.sender import CallTool, ChunkSender, SenderMemory

EXIT_CODES = """exit codes:
  0    the LoRA is in ComfyUI (also when it was there before)
  1    something else failed
  2    wrong usage
  3    there is no such model, or no finished one
  4    a server does not answer (run again to resume)
  5    ComfyUI's side refuses: the name is taken (--overwrite), no LoRA, no room on the disk
  6    the bytes that arrived are not those that were sent
  7    a token is wrong or missing, or the server has no access to the folder
  130  interrupted (run again to resume)"""
_EXIT_BY_CODE = {
    "not_found": 3,
    "backend_unavailable": 4,
    "timeout": 4,
    "rate_limited": 4,
    "conflict": 5,
    "invalid_arguments": 5,
    "too_large": 5,
    "insufficient_storage": 5,
    "unauthorized": 7,
    "forbidden": 7,
}


@dataclass(frozen=True, kw_only=True)
class TransferOptions:
    """What to move, from where to where: `name` is that in ComfyUI, `state_dir` keeps what resuming needs."""

    aitk_url: str = "http://127.0.0.1:8190"
    comfy_url: str = "http://127.0.0.1:8189"
    aitk_token: str | None = None
    comfy_token: str | None = None
    model: str | None = None
    name: str | None = None
    chunk_bytes: int = 256 * 1024
    retries: int = 5
    first_wait_s: float = 0.5
    overwrite: bool = False
    verify: bool = True
    dry_run: bool = False
    state_dir: Path | None = None


@dataclass(frozen=True, kw_only=True)
class TransferReport:
    """What was done: `method` is `none` when nothing had to be sent, and `checksum_verified` when digests agreed."""

    method: Literal["chunked", "none"]
    model_path: str
    name: str
    size_bytes: int
    sha256: str
    checksum_verified: bool
    already_there: bool
    resumed_at_bytes: int
    dry_run: bool
    seconds: float


class WrongBytes(Exception):
    """The bytes that arrived are not those that were sent."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A model as aitk_mcp offers it."""

    model_path: str
    filename: str
    size_bytes: int
    sha256: str
    url: str
    training_config: Mapping[str, Any] | None


async def transfer(options: TransferOptions, teller: Teller | None = None) -> TransferReport:
    """Move one LoRA and return what was done; raises ToolError as the servers do, and WrongBytes."""
    async with (
        ToolClient(options.aitk_url, options.aitk_token) as aitk,
        ToolClient(options.comfy_url, options.comfy_token) as comfy,
    ):
        return await _Transfer(options, aitk, comfy, teller or Silence()).run()


class _Transfer:
    def __init__(self, options: TransferOptions, aitk: ToolClient, comfy: ToolClient, teller: Teller) -> None:
        self._options = options
        self._aitk = aitk
        self._comfy = comfy
        self._teller = teller
        self._patience = Patience(retries=options.retries, first_wait_s=options.first_wait_s)

    async def run(self) -> TransferReport:
        began_s = time.monotonic()
        source = await self._source()
        name = self._options.name or source.filename
        self._teller.say(
            "model",
            f"{source.model_path} ({source.size_bytes / 1e6:.1f} MB, sha256 {source.sha256[:12]}…) -> {name}",
            model_path=source.model_path,
            name=name,
            size_bytes=source.size_bytes,
            sha256=source.sha256,
        )
        there = await self._existing(name)
        is_same = there is not None and there["sha256"] == source.sha256
        if there is not None and not is_same and not self._options.overwrite:
            raise Conflict(
                f"ComfyUI has another LoRA `{name}` already.",
                hint="Use --overwrite to replace it, or --as NAME to keep both.",
                details={"name": name, "there_sha256": there["sha256"], "sha256": source.sha256},
            )
        memory = SenderMemory(self._folder_for(source, name))
        resumed_at_bytes, verified = 0, is_same
        if is_same:
            self._teller.say("already_there", f"{name} is in ComfyUI already, with the same sha256.", name=name)
        elif self._options.dry_run:
            self._teller.say("dry_run", f"{name} would be sent; nothing was changed.", name=name)
        else:
            name, resumed_at_bytes, verified = await self._move(source, name, memory)
        if not self._options.dry_run:
            await to_thread.run_sync(memory.forget)
        return TransferReport(
            method="none" if is_same or self._options.dry_run else "chunked",
            model_path=source.model_path,
            name=name,
            size_bytes=source.size_bytes,
            sha256=source.sha256,
            checksum_verified=verified,
            already_there=is_same,
            resumed_at_bytes=resumed_at_bytes,
            dry_run=self._options.dry_run,
            seconds=time.monotonic() - began_s,
        )

    def _folder_for(self, source: Source, name: str) -> Path:
        key = orjson.dumps([self._options.aitk_url, source.model_path, source.sha256, self._options.comfy_url, name])
        return (self._options.state_dir or _default_state_dir()) / hashlib.sha256(key).hexdigest()[:24]

    async def _call(self, client: ToolClient, tool: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        return await patiently(partial(client.call, tool, arguments), self._patience, failed=self._failed)

    def _failed(self, error: ToolError, wait_s: float) -> None:
        text = f"{error.message} Trying again in {wait_s:.1f} s."
        self._teller.say("retry", text, error=error.as_dict(), wait_s=round(wait_s, 3))

    async def _source(self) -> Source:
        if self._options.model is not None:
            return await self._told(self._options.model)
        found = await _listed(partial(self._call, self._aitk), partial(self._call, self._comfy))
        if not found:
            raise NotFound("The trainer has no finished model.", hint="Wait for its end: `wait-training`.")
        for model in found:
            source = await self._told(model["model_path"])
            there = await self._existing(source.filename) if model["in_comfyui"] else None
            if there is None or there["sha256"] != source.sha256:
                return source
        return await self._told(found[0]["model_path"])

    async def _told(self, model: str) -> Source:
        told = await self._call(self._aitk, "download-model", {"model_path": model, "format": "url"})
        return Source(
            model_path=told["model_path"],
            filename=told["filename"],
            size_bytes=told["size"],
            sha256=told["sha256"],
            url=told["url"],
            training_config=told["training_config"],
        )

    async def _existing(self, name: str) -> dict[str, Any] | None:
        try:
            return await self._call(self._comfy, "get-lora-info", {"lora_name": name})
        except NotFound:
            return None

    async def _move(self, source: Source, name: str, memory: SenderMemory) -> tuple[str, int, bool]:
        sender = ChunkSender(partial(self._call, self._comfy), "upload-lora-chunked", memory)
        # Before the download: what ComfyUI's side refuses, it refuses at once.
        started = await sender.start(
            {
                "filename": name,
                "total_size": source.size_bytes,
                "chunk_size": self._options.chunk_bytes,
                "sha256": source.sha256,
                "overwrite": self._options.overwrite,
                "metadata": {
                    "source": {"server": self._options.aitk_url, "model_path": source.model_path},
                    "training_config": source.training_config,
                },
            }
        )
        resumed_at_bytes: int = started["received_bytes"]
        if resumed_at_bytes:
            text = f"{resumed_at_bytes / 1e6:.1f} MB are there already."
            self._teller.say("resumed", text, received_bytes=resumed_at_bytes)
        try:
            await self._download(source, memory.part)
            await sender.send(
                memory.part, started, lambda sent_bytes: self._teller.progress("upload", sent_bytes, source.size_bytes)
            )
            done = await self._finish(sender, started["upload_id"], source)
        except (WrongBytes, InvalidArguments):
            # These bytes will never do: to keep them would be to fail in the same way again.
            await sender.abort(started["upload_id"])
            await to_thread.run_sync(memory.forget)
            raise
        name = done["lora"]["name"]
        if self._options.verify:
            await self._verify(source, name)
        return name, resumed_at_bytes, done["checksum_verified"]

    async def _download(self, source: Source, part: Path) -> None:
        had_bytes = 0.0

        async def report(done: float, /, total: float | None = None, message: str | None = None) -> None:
            nonlocal had_bytes
            had_bytes = done
            self._teller.progress("download", done, source.size_bytes)

        fetch = partial(self._aitk.fetch, source.url, part, report=report)
        await patiently(fetch, self._patience, progress=lambda: had_bytes, failed=self._failed)
        self._teller.progress("download", source.size_bytes, source.size_bytes)
        if self._options.verify and await sha256_of_file(part) != source.sha256:
            raise WrongBytes(f"{source.url} did not give the bytes of sha256 {source.sha256}. Run again to start anew.")

    async def _finish(self, sender: ChunkSender, upload_id: str, source: Source) -> dict[str, Any]:
        try:
            return await sender.finish(upload_id, source.sha256)
        except Conflict as refusal:
            if "actual_sha256" not in refusal.details:
                raise
            raise WrongBytes(f"{refusal.message} Run again to start anew.") from refusal

    async def _verify(self, source: Source, name: str) -> None:
        listed = await self._call(self._comfy, "list-loras", {"query": name, "limit": 1000})
        if all(lora["name"] != name for lora in listed["loras"]):
            raise NotFound(f"list-loras does not show `{name}`.", hint="Look into the log of comfy_mcp.")
        info = await self._call(self._comfy, "get-lora-info", {"lora_name": name})
        if info["sha256"] != source.sha256:
            raise WrongBytes(f"{name} has sha256 {info['sha256']} in ComfyUI, and {source.sha256} at the trainer.")
        words = ", ".join(info["trigger_words"]) or "none"
        text = f"ComfyUI has it: {info['architecture']}, trigger words: {words}."
        self._teller.say("verified", text, architecture=info["architecture"], trigger_words=info["trigger_words"])


async def list_models(options: TransferOptions) -> list[dict[str, Any]]:
    """Return the trainer's finished models, the newest first, each with `in_comfyui`: is there a LoRA of its name."""
    async with (
        ToolClient(options.aitk_url, options.aitk_token) as aitk,
        ToolClient(options.comfy_url, options.comfy_token) as comfy,
    ):
        return await _listed(aitk.call, comfy.call)


async def _listed(aitk: CallTool, comfy: CallTool) -> list[dict[str, Any]]:
    models = (await aitk("list-exported-models", {"finished": True, "limit": 1000}))["models"]
    names, cursor = set[str](), None
    while True:
        page = await comfy("list-loras", {"limit": 1000, "cursor": cursor})
        names.update(lora["name"] for lora in page["loras"])
        cursor = page["next_cursor"]
        if cursor is None:
            return [model | {"in_comfyui": model["filename"] in names} for model in models]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script and return its exit code."""
    given = _parser().parse_args(arguments)
    options = _options(given)
    try:
        if given.list:
            _print_models(anyio.run(list_models, options), as_json=given.json)
            return 0
        with _teller(given) as teller:
            report = anyio.run(transfer, options, teller)
        done = f"Done in {report.seconds:.1f} s: {report.name}, sha256 {report.sha256}"
        if given.json:
            print(orjson.dumps({"event": "done", **asdict(report)}).decode())
        elif not given.quiet and report.method != "none":
            print(f"{done} ({'verified' if report.checksum_verified else 'not verified'}).")
        return 0
    except ToolError as error:
        return _explain(given, error.as_text(), error.as_dict(), _EXIT_BY_CODE.get(error.code, 1))
    except WrongBytes as error:
        return _explain(given, str(error), {"code": "wrong_bytes", "message": str(error)}, 6)
    except OSError as error:
        return _explain(given, str(error), {"code": "os_error", "message": str(error)}, 1)
    except KeyboardInterrupt:
        return _explain(given, "Interrupted; run again to resume.", {"code": "interrupted"}, 130)


def _explain(given: argparse.Namespace, text: str, error: Mapping[str, Any], exit_code: int) -> int:
    if given.json:
        print(orjson.dumps({"event": "error", "error": error, "exit_code": exit_code}).decode(), flush=True)
    print(f"transfer: {text}", file=sys.stderr)
    return exit_code


def _print_models(models: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print(orjson.dumps({"models": models}).decode())
        return
    for model in models:
        megabytes, state = model["size_bytes"] / 1e6, "in ComfyUI" if model["in_comfyui"] else ""
        print(f"{model['modified'][:19]}  {megabytes:>9.1f} MB  {model['model_path']}  {state}".rstrip())
    if not models:
        print("The trainer has no finished model.")


def _teller(given: argparse.Namespace) -> Silence:
    if given.json or given.quiet:
        return JsonEvents() if given.json else Silence()
    return Bars() if sys.stdout.isatty() else Lines()


def _default_state_dir() -> Path:
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "loraloop" / "transfers"


def _options(given: argparse.Namespace) -> TransferOptions:
    return TransferOptions(
        aitk_url=given.aitk_url,
        comfy_url=given.comfy_url,
        aitk_token=given.aitk_token or given.token or os.environ.get("AITK_MCP_TOKEN"),
        comfy_token=given.comfy_token or given.token or os.environ.get("COMFY_MCP_TOKEN"),
        model=given.model,
        name=given.name,
        chunk_bytes=given.chunk_size,
        retries=given.retries,
        overwrite=given.overwrite,
        verify=given.verify,
        dry_run=given.dry_run,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="transfer_lora_between_services.py",
        description="Move a trained LoRA from AI Toolkit (aitk_mcp) to ComfyUI (comfy_mcp), verified on both sides.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    aitk_url = os.environ.get("AITK_MCP_URL", TransferOptions.aitk_url)
    comfy_url = os.environ.get("COMFY_MCP_URL", TransferOptions.comfy_url)
    add("--aitk-url", default=aitk_url, metavar="URL", help="address of aitk_mcp (AITK_MCP_URL)")
    add("--comfy-url", default=comfy_url, metavar="URL", help="address of comfy_mcp (COMFY_MCP_URL)")
    add("--token", help="bearer token of both servers")
    add("--aitk-token", metavar="TOKEN", help="bearer token of aitk_mcp (AITK_MCP_TOKEN)")
    add("--comfy-token", metavar="TOKEN", help="bearer token of comfy_mcp (COMFY_MCP_TOKEN)")
    add("--model", metavar="PATH", help="model path or job name at the trainer (the newest finished model)")
    add("--as", dest="name", metavar="NAME", help="name in ComfyUI, sub-folders with / (the model's file name)")
    add("--chunk-size", type=int, default=TransferOptions.chunk_bytes, metavar="BYTES", help="262144; at most 4194304")
    add("--retries", type=int, default=TransferOptions.retries, metavar="N", help="tries after a failure in a row (5)")
    add("--overwrite", action="store_true", help="replace a LoRA of the same name")
    add("--verify", action=argparse.BooleanOptionalAction, default=True, help="check the result on both sides")
    add("--list", action="store_true", help="list the finished models and end")
    add("--dry-run", action="store_true", help="say what would be moved and end")
    add("--json", action="store_true", help="write JSON events, one a line")
    add("--quiet", action="store_true", help="write nothing but errors")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
