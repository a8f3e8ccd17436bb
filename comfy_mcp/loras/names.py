"""Names of LoRAs: which an upload may have, and what a caller meant who used one that is not there."""

from collections.abc import Sequence
from pathlib import PurePosixPath

from comfy_mcp.loras.folder import PICKLE_EXTENSIONS, SUPPLIED_SUFFIX
from mcp_toolserver.errors import Conflict, InvalidArguments, NotFound, closest
from mcp_toolserver.files import LONGEST_NAME_BYTES
from mcp_toolserver.uploads.names import sent_name


def accepted_name(name: str) -> str:
    """Return the name that an uploaded LoRA will have; raises InvalidArguments with a better one."""
    path = sent_name(name)
    extension = path.suffix.lower()
    if extension == ".safetensors":
        _require_room_for_sidecar(path)
        return path.as_posix()
    if extension in PICKLE_EXTENSIONS:
        raise InvalidArguments(
            f"`filename` is {name!r}: {extension} files can run code when they are opened, and are not accepted.",
            hint="Convert the LoRA to .safetensors and send that.",
            details={"field": "filename", "value": name},
        )
    better = f"{path.as_posix().removesuffix(path.suffix) if extension == '.sft' else path.as_posix()}.safetensors"
    raise InvalidArguments(
        f"`filename` is {name!r}: a LoRA's name ends in .safetensors.",
        hint=f"Send `{better}`.",
        details={"field": "filename", "value": name, "closest_matches": [better]},
    )


def _require_room_for_sidecar(path: PurePosixPath) -> None:
    size_bytes, most_bytes = len(path.name.encode()), LONGEST_NAME_BYTES - len(SUPPLIED_SUFFIX)
    if size_bytes > most_bytes:
        stem = path.stem.encode()[: most_bytes - len(path.suffix)].decode(errors="ignore")
        longest = path.with_name(stem.rstrip(". ") + path.suffix).as_posix()
        raise InvalidArguments(
            f"`filename` ends in a name of {size_bytes} bytes; a LoRA's has at most {most_bytes}, so that"
            f" `NAME{SUPPLIED_SUFFIX}` may lie beside it.",
            hint=f"Send a shorter one; the longest is `{longest}`.",
            details={"field": "filename", "value": path.name, "most_bytes": most_bytes, "closest_matches": [longest]},
        )


def taken(name: str) -> Conflict:
    """Say that another LoRA has this name."""
    return Conflict(
        f"A LoRA `{name}` exists already.",
        hint="Send `overwrite: true` to replace it, or choose another `filename`.",
        details={"filename": name},
    )


def absent(name: str, names: Sequence[str]) -> NotFound:
    """Say that no LoRA has this name, which of `names` come closest, and what about the name is not exact."""
    matches = closest(name.removesuffix(".safetensors"), [each.removesuffix(".safetensors") for each in names])
    by_stem = {each.removesuffix(".safetensors"): each for each in names}
    same = [each for each in names if _loosely(each) == _loosely(name)]
    offered = list(dict.fromkeys([*same, *(by_stem[match] for match in matches)]))[:3]
    if not names:
        hint = "The loras folder is empty; send one by `upload-lora` or `upload-lora-chunked-start`."
    elif same:
        hint = f"Names are exact: did you mean `{same[0]}`?{_difference(name, same[0])}"
    elif offered:
        hint = f"Did you mean `{offered[0]}`? `list-loras` has them all."
    else:
        hint = "`list-loras` has the names that there are."
    shown = name if len(name) <= 200 else f"{name[:197]}..."
    return NotFound(
        f"There is no LoRA `{shown}` here.",
        hint=hint,
        details={"field": "lora_name", "value": shown, "closest_matches": offered},
    )


def _loosely(name: str) -> str:
    return name.replace("\\", "/").rsplit("/", 1)[-1].lower().removesuffix(".safetensors")


def _difference(name: str, right: str) -> str:
    if "\\" in name:
        return " Sub-folders are written with `/`."
    if right.lower().endswith(name.lower()):
        return " The sub-folder belongs to the name." if right.endswith(name) else " Upper and lower case differ."
    return " The extension belongs to the name." if not name.lower().endswith(".safetensors") else ""
