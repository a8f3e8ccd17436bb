"""One transfer: choose the model, find the way, move it, and look whether it is there."""

import hashlib
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
from anyio import to_thread

from comfy_mcp.imports.peer import PeerModel, SourceChanged
from comfy_mcp.loras.names import accepted_name
from mcp_toolserver.errors import Conflict, NotFound
from mcp_toolserver.retries import Patience
from mcp_toolserver.terminal import Silence, Teller
from mcp_toolserver.uploads.sender import CallTool, SenderMemory
from transfers.attempts import Attempts
from transfers.comparison import Compared, Comparison
from transfers.destination import Destination, destination_of
from transfers.options import Method, NoWay, TransferOptions, TransferReport, WrongBytes
from transfers.servers import Server
from transfers.trainer import Trainer
from transfers.ways import Arrived, Ways, brought_by_another

_AUTO: tuple[Method, ...] = ("link", "pull", "tus", "chunked")
_TRIES = 3


@dataclass(frozen=True, slots=True)
class _Chosen:
    """A model, the name that it is to have in ComfyUI, and whether it is there already, byte for byte."""

    model: PeerModel
    name: str
    is_there: bool


async def transfer(options: TransferOptions, teller: Teller | None = None) -> TransferReport:
    """Move one LoRA and return what was done; raises ToolError as the servers do, WrongBytes, and NoWay."""
    async with _aitk_mcp(options) as aitk, destination_of(options) as destination:
        return await _Transfer(options, aitk.call, destination, teller or Silence()).run()


async def compare(options: TransferOptions, teller: Teller | None = None) -> list[Compared]:
    """Return the trainer's finished models, the newest first, with what ComfyUI has of them."""
    async with _aitk_mcp(options) as aitk, destination_of(options) as destination:
        return [each async for each in _Transfer(options, aitk.call, destination, teller or Silence()).compared()]


def _aitk_mcp(options: TransferOptions) -> Server:
    return Server("aitk_mcp", options.aitk_url, options.aitk_token)


class _Transfer:
    def __init__(self, options: TransferOptions, aitk: CallTool, destination: Destination, teller: Teller) -> None:
        self._options = options
        self._destination = destination
        self._teller = teller
        self._attempts = Attempts(Patience(retries=options.retries, first_wait_s=options.first_wait_s), teller)
        self._comfy = self._attempts.calling(destination.call)
        self._trainer = Trainer(options.aitk_url, options.aitk_token, self._attempts.calling(aitk))

    def compared(self) -> AsyncGenerator[Compared]:
        """Yield the trainer's finished models with what ComfyUI has of them."""
        return Comparison(self._trainer, self._comfy).models()

    async def run(self) -> TransferReport:
        """Move the model that the options mean."""
        began_s = time.monotonic()
        chosen = await self._chosen()
        for _ in range(_TRIES):
            self._say_chosen(chosen)
            try:
                return await self._bring(chosen, began_s)
            except SourceChanged:
                self._teller.say("changed", "The trainer wrote another file meanwhile: beginning anew with that.")
                chosen = await self._by_name(chosen.model.model_path)
        raise Conflict(
            f"`{chosen.model.model_path}` changed each time while it was moved: a trainer is writing it.",
            hint="Run again once its training has ended, or move a checkpoint or an export.",
            details={"model_path": chosen.model.model_path},
        )

    async def _bring(self, chosen: _Chosen, began_s: float) -> TransferReport:
        memory = SenderMemory(self._state_of(chosen), self._warn_of_no_memory)
        if chosen.is_there:
            self._say_there(chosen.name)
            await to_thread.run_sync(memory.forget)
            return self._report(chosen, began_s)
        if self._options.dry_run:
            self._teller.say("dry_run", f"{chosen.name} would be sent; nothing was changed.", name=chosen.name)
            return self._report(chosen, began_s)
        moving_s = time.monotonic()
        method, arrived = await self._move(chosen, memory)
        moving_s = time.monotonic() - moving_s
        for warning in arrived.warnings:
            self._warn(warning)
        if self._options.verify:
            await self._verify(chosen.model, arrived.name)
            arrived = replace(arrived, listed=arrived.listed is not False)
        await to_thread.run_sync(memory.forget)
        report = self._report(replace(chosen, name=arrived.name, is_there=arrived.was_there), began_s)
        moved_bytes = 0 if arrived.how in ("reflink", "link") else report.size_bytes - arrived.resumed_at_bytes
        return replace(
            report,
            method="none" if arrived.was_there else method,
            how=arrived.how,
            checksum_verified=arrived.checksum_verified,
            listed=arrived.listed,
            resumed_at_bytes=arrived.resumed_at_bytes,
            mb_per_s=round(moved_bytes / 1e6 / moving_s, 4) if moved_bytes and not arrived.was_there else None,
            warnings=list(arrived.warnings),
        )

    def _report(self, chosen: _Chosen, began_s: float) -> TransferReport:
        return TransferReport(
            method="none",
            how=None,
            model_path=chosen.model.model_path,
            name=chosen.name,
            size_bytes=chosen.model.size_bytes,
            sha256=chosen.model.sha256,
            checksum_verified=chosen.is_there,
            listed=None,
            already_there=chosen.is_there,
            resumed_at_bytes=0,
            dry_run=self._options.dry_run,
            seconds=round(time.monotonic() - began_s, 3),
            mb_per_s=None,
            warnings=[],
        )

    async def _move(self, chosen: _Chosen, memory: SenderMemory) -> tuple[Method, Arrived]:
        ways = Ways(self._options, self._destination, self._trainer, memory, self._attempts, self._teller)
        wanted = self._options.method
        open_ways: tuple[Method, ...] = _AUTO if wanted == "auto" else (wanted,)
        peerless = False
        for way in open_ways:
            if way == "pull" and peerless:
                continue
            try:
                arrived = await ways.go(way, chosen.model, chosen.name)
            except NoWay as no_way:
                if way == open_ways[-1]:
                    raise
                peerless = no_way.whole_peer
                names = "link and pull" if peerless else way
                text = f"Not by {names}: {no_way.cause.message}"
                self._teller.say("skipped", text, method=way, error=no_way.cause.as_dict())
                continue
            except Conflict:
                # Somebody else may have brought it since it was looked for.
                if not (await self._by_name(chosen.model.model_path)).is_there:
                    raise
                await ways.drop_unfinished()
                arrived = brought_by_another(chosen.name)
            if way in ("link", "pull"):
                await ways.drop_unfinished()
            if arrived.was_there:
                self._say_there(arrived.name)
            else:
                self._teller.say("moved", _moved_text(way, arrived), method=way, how=arrived.how)
            return way, arrived
        raise AssertionError("the last way returns or raises")

    def _state_of(self, chosen: _Chosen) -> Path:
        model = chosen.model
        told = [self._options.aitk_url, model.model_path, model.sha256, self._destination.address, chosen.name]
        return self._options.state_dir / f"{hashlib.sha256(orjson.dumps(told)).hexdigest()[:24]}.json"

    def _say_chosen(self, chosen: _Chosen) -> None:
        model = chosen.model
        self._teller.say(
            "model",
            f"{model.model_path} ({model.size_bytes / 1e6:.1f} MB, sha256 {model.sha256[:12]}…) -> {chosen.name}",
            model_path=model.model_path,
            name=chosen.name,
            size_bytes=model.size_bytes,
            sha256=model.sha256,
        )

    def _warn(self, warning: str) -> None:
        self._teller.say("warning", f"Note: {warning}", warning=warning)

    def _warn_of_no_memory(self, error: OSError) -> None:
        self._warn(
            f"{self._options.state_dir} cannot be written ({error.strerror}): if this is interrupted, it begins anew. "
            "XDG_STATE_HOME names another folder."
        )

    def _say_there(self, name: str) -> None:
        self._teller.say("already_there", f"{name} is in ComfyUI already, with the same sha256.", name=name)

    async def _chosen(self) -> _Chosen:
        if self._options.model is not None:
            return await self._by_name(self._options.model)
        newest: Compared | None = None
        async with aclosing(self.compared()) as compared:
            async for each in compared:
                newest = newest or each
                if each.there_as is None:
                    return await self._by_name(each.model["model_path"])
        if newest is None:
            raise NotFound("The trainer has no finished model.", hint="Wait for its end: `wait-training`.")
        if self._options.name is not None:
            return await self._by_name(newest.model["model_path"])
        assert newest.there_as is not None
        return _Chosen(await self._trainer.told(newest.model["model_path"]), newest.there_as, is_there=True)

    async def _by_name(self, model_path: str) -> _Chosen:
        model = await self._trainer.told(model_path)
        name = accepted_name(self._options.name or model.filename)
        there = await self._existing(name)
        is_there = there is not None and there["sha256"] == model.sha256
        if there is not None and not is_there and not self._options.overwrite:
            raise Conflict(
                f"ComfyUI has another LoRA `{name}` already.",
                hint="Use --overwrite to replace it, or --as NAME to keep both.",
                details={"name": name, "there_sha256": there["sha256"], "sha256": model.sha256},
            )
        return _Chosen(model, name, is_there)

    async def _existing(self, name: str) -> dict[str, Any] | None:
        try:
            return await self._comfy("get-lora-info", {"lora_name": name})
        except NotFound as absent:
            if absent.details.get("field") != "lora_name":
                # It is the folder that is not there, or the tool.
                raise
            return None

    async def _verify(self, model: PeerModel, name: str) -> None:
        listed = await self._comfy("list-loras", {"query": name, "limit": 1000})
        if all(lora["name"] != name for lora in listed["loras"]):
            raise NotFound(f"list-loras does not show `{name}`.", hint="Look into the log of comfy_mcp.")
        info = await self._comfy("get-lora-info", {"lora_name": name})
        if info["sha256"] not in (None, model.sha256):
            raise WrongBytes(f"{name} has sha256 {info['sha256']} in ComfyUI, and {model.sha256} at the trainer.")
        words = ", ".join(info["trigger_words"]) or "none"
        text = f"ComfyUI has it: {info['architecture']}, trigger words: {words}."
        self._teller.say("verified", text, architecture=info["architecture"], trigger_words=info["trigger_words"])


def _moved_text(way: Method, arrived: Arrived) -> str:
    words = {
        "reflink": "the two files share their bytes on disk",
        "link": "it is one file under two names",
        "copy": "ComfyUI's side copied it on its own disk",
        "pull": "ComfyUI's side fetched it",
    }
    return f"Moved by {way}{f': {words[arrived.how]}' if arrived.how in words else ''}."
