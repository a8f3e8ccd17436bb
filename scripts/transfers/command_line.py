"""The command line of a transfer: flags, exit codes, and what a person or a program reads of it."""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import anyio
import orjson

from mcp_toolserver.addresses import server_address
from mcp_toolserver.errors import ToolError
from mcp_toolserver.terminal import Bars, JsonEvents, Lines, Silence, prepare_streams, write_line
from mcp_toolserver.uploads.steps import MAX_CHUNK_BYTES
from transfers.comparison import Compared
from transfers.options import Choice, NoWay, TransferOptions, TransferReport, WrongBytes
from transfers.servers import token
from transfers.transfer import compare, transfer

_METHODS = """methods:
  auto     the first of link, pull, tus and chunked that leads there (default)
  link     both servers share a disk: no byte is moved (reflink or hard link), else a copy on that disk
  pull     comfy_mcp fetches the file from aitk_mcp, past this machine
  tus      through this machine, as one stream
  chunked  through this machine, in chunks within tool calls: passes where nothing else does
  direct   without comfy_mcp: into the folder of ComfyUI, or through ComfyUI's own address
"""
_EXIT_CODES = """exit codes:
  0    the LoRA is in ComfyUI (also when it was there before)
  1    something else failed
  2    wrong usage, such as an address where another server answers
  3    there is no such model, or no finished one
  4    a server does not answer (run again to resume)
  5    refused: the name is taken (--overwrite), no LoRA, one that is being written, no room on the disk
  6    the bytes that arrived are not those that were sent
  7    a token is wrong or missing, or there is no access to the folder
  8    the chosen --method leads nowhere here
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


def main(arguments: Sequence[str] | None = None, prog: str = "transfer_lora_between_services.py") -> int:
    """Run the transfer that the arguments ask for and return the exit code."""
    prepare_streams()
    given = _parser(prog).parse_args(arguments)
    # By `direct`, comfy_mcp's own parts run here: what they would note for an administrator is no news to this user.
    logging.basicConfig(level=logging.ERROR, format="%(message)s")
    try:
        return _run(given)
    except NoWay as error:
        return _explain(given, str(error), error.cause.as_dict(), 8)
    except ToolError as error:
        return _explain(given, error.as_text(), error.as_dict(), _exit_code_of(error))
    except WrongBytes as error:
        return _explain(given, str(error), {"code": "wrong_bytes", "message": str(error)}, 6)
    except OSError as error:
        return _explain(given, str(error), {"code": "os_error", "message": str(error)}, 1)
    except KeyboardInterrupt:
        return _explain(given, "Interrupted; run again to resume.", {"code": "interrupted"}, 130)


def _run(given: argparse.Namespace) -> int:
    options = _options(given)
    if given.list:
        with _teller(given) as teller:
            compared = anyio.run(compare, options, teller)
        _print_models(compared, as_json=given.json)
        return 0
    with _teller(given) as teller:
        report = anyio.run(transfer, options, teller)
    if given.json:
        write_line(orjson.dumps({"event": "done", **asdict(report)}).decode())
    elif not given.quiet and report.method != "none":
        write_line(_done_text(report))
    return 0


def _exit_code_of(error: ToolError) -> int:
    if error.details.get("field") in ("--aitk-url", "--comfy-url"):
        return 2
    return 7 if "setting" in error.details else _EXIT_BY_CODE.get(error.code, 1)


def _done_text(report: TransferReport) -> str:
    mb_per_s = report.mb_per_s
    rate = "" if mb_per_s is None else f", {mb_per_s:.0f} MB/s" if mb_per_s >= 1 else f", {mb_per_s * 1e3:.1f} kB/s"
    checked = "verified" if report.checksum_verified else "not verified"
    return f"Done in {report.seconds:.1f} s{rate}: {report.name}, sha256 {report.sha256} ({checked})."


def _explain(given: argparse.Namespace, text: str, error: Mapping[str, Any], exit_code: int) -> int:
    if given.json:
        write_line(orjson.dumps({"event": "error", "error": error, "exit_code": exit_code}).decode())
    write_line(f"transfer: {text}", sys.stderr)
    return exit_code


def _print_models(compared: Sequence[Compared], *, as_json: bool) -> None:
    if as_json:
        models = [
            {
                **each.model,
                "in_comfyui": each.there_as is not None,
                "comfyui_name": each.there_as,
                "name_taken": each.name_taken,
            }
            for each in compared
        ]
        write_line(orjson.dumps({"models": models}).decode())
        return
    for each in compared:
        written, size_bytes = each.model["modified"] or "", each.model["size_bytes"]
        write_line(f"{written[:16].replace('T', ' '):<16}  {size_bytes / 1e6:>9.1f} MB  {each.model['model_path']}")
        write_line(f"{'':<32}{_state_of(each)}")
    if not compared:
        write_line("The trainer has no finished model.")


def _state_of(compared: Compared) -> str:
    if compared.there_as == compared.model["filename"]:
        return "in ComfyUI"
    if compared.there_as is not None:
        return f"in ComfyUI as {compared.there_as}"
    return "not in ComfyUI" + (", which has another LoRA of this name" if compared.name_taken else "")


def _teller(given: argparse.Namespace) -> Silence:
    if given.quiet or (given.list and given.json):
        return Silence()
    if given.json:
        return JsonEvents()
    return Bars() if sys.stdout.isatty() else Lines()


def _default_state_dir() -> Path:
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "loraloop" / "transfers"


def _token_of(server: str, own: str | None, shared: str | None) -> str | None:
    variable = f"{server.upper()}_MCP_TOKEN"
    return token((f"--{server}-token", own), ("--token", shared), (variable, os.environ.get(variable)))


def _options(given: argparse.Namespace) -> TransferOptions:
    return TransferOptions(
        aitk_url=given.aitk_url,
        comfy_url=given.comfy_url,
        aitk_token=_token_of("aitk", given.aitk_token, given.token),
        comfy_token=_token_of("comfy", given.comfy_token, given.token),
        comfyui_dir=given.comfyui_dir,
        comfyui_url=given.comfyui_url,
        model=given.model,
        name=given.name,
        method=given.method,
        chunk_bytes=given.chunk_size,
        retries=given.retries,
        overwrite=given.overwrite,
        verify=given.verify,
        dry_run=given.dry_run,
        state_dir=_default_state_dir(),
    )


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Move a trained LoRA from AI Toolkit (aitk_mcp) to ComfyUI (comfy_mcp), verified on both sides. "
        "Without flags: the newest finished model that ComfyUI lacks, told by its digest.",
        epilog=f"{_METHODS}\n{_EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    aitk_url = os.environ.get("AITK_MCP_URL", TransferOptions.aitk_url)
    comfy_url = os.environ.get("COMFY_MCP_URL", TransferOptions.comfy_url)
    folder = os.environ.get("COMFYUI_DIR")
    add("--aitk-url", type=_address, default=aitk_url, metavar="URL", help="address of aitk_mcp (AITK_MCP_URL)")
    add("--comfy-url", type=_address, default=comfy_url, metavar="URL", help="address of comfy_mcp (COMFY_MCP_URL)")
    add("--token", help="bearer token of both servers")
    add("--aitk-token", metavar="TOKEN", help="bearer token of aitk_mcp (AITK_MCP_TOKEN)")
    add("--comfy-token", metavar="TOKEN", help="bearer token of comfy_mcp (COMFY_MCP_TOKEN)")
    add("--model", type=_text, metavar="PATH", help="model path or job name at the trainer (the newest finished model)")
    add(
        "--as",
        type=_text,
        dest="name",
        metavar="NAME",
        help="name in ComfyUI, sub-folders with / (the model's file name)",
    )
    add("--method", choices=get_args(Choice), default=TransferOptions.method, help="how the bytes go; see below")
    add(
        "--comfyui-dir",
        type=Path,
        default=Path(folder) if folder else None,
        metavar="DIR",
        help="folder of ComfyUI, for --method direct (COMFYUI_DIR)",
    )
    add(
        "--comfyui-url",
        type=_address,
        default=os.environ.get("COMFYUI_API_URL") or None,
        metavar="URL",
        help="address of ComfyUI itself, for --method direct (COMFYUI_API_URL)",
    )
    add(
        "--chunk-size",
        type=_whole(1, MAX_CHUNK_BYTES),
        default=TransferOptions.chunk_bytes,
        metavar="BYTES",
        help=f"of --method chunked: 262144; at most {MAX_CHUNK_BYTES}",
    )
    add(
        "--retries",
        type=_whole(0, 1000),
        default=TransferOptions.retries,
        metavar="N",
        help="tries after a failure in a row (5)",
    )
    add("--overwrite", action="store_true", help="replace a LoRA of the same name")
    add(
        "--verify",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="look at it in ComfyUI afterwards; its digest is compared in any case",
    )
    add("--list", action="store_true", help="list the finished models, and whether ComfyUI has them, and end")
    add("--dry-run", action="store_true", help="say what would be moved and end")
    add("--json", action="store_true", help="write JSON events, one a line")
    add("--quiet", action="store_true", help="write nothing but errors")
    return parser


def _address(text: str) -> str:
    try:
        return server_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _text(given: str) -> str:
    # Where the locale is not one of UTF-8, Python keeps the bytes that it does not understand aside.
    return given.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _whole(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least} to {most}")
        return value

    return read
