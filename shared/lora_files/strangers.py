"""Files that are often found under a `.safetensors` name and are something else: tell which."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stranger:
    """Name a foreign format: a word for programs, and a sentence for people that says how such a file comes about."""

    reason: str
    message: str


_EMPTY = Stranger("empty", "The file is empty (0 bytes): its download or copy never got going.")
_HTML = Stranger(
    "html",
    "The file is a web page, not a safetensors file: the download answered with a login or error page.",
)
_LFS = Stranger(
    "lfs_pointer",
    "The file is a Git LFS pointer, not the model itself: fetch the model with `git lfs pull` or download it.",
)
_MAGIC: tuple[tuple[bytes, Stranger], ...] = (
    (
        b"PK\x03\x04",
        Stranger("zip", "The file is a zip archive, as PyTorch's .pt and .ckpt are; renaming makes no safetensors."),
    ),
    (b"GGUF", Stranger("gguf", "The file is a GGUF model, which ComfyUI's LoRA loaders do not read.")),
    (b"version https://git-lfs", _LFS),
    (b"\x1f\x8b", Stranger("gzip", "The file is gzip-compressed: unpack it first.")),
    (b"7z\xbc\xaf\x27\x1c", Stranger("archive", "The file is a 7-Zip archive: unpack it first.")),
    (b"Rar!", Stranger("archive", "The file is a RAR archive: unpack it first.")),
    (b"\x89PNG", Stranger("image", "The file is a PNG picture, not a safetensors file.")),
    (b"\xff\xd8\xff", Stranger("image", "The file is a JPEG picture, not a safetensors file.")),
)
_PICKLE = Stranger(
    "pickle",
    "The file is a Python pickle, which can run any code when it is opened; it is refused, whatever its name is.",
)
_JSON = Stranger("json", "The file is JSON text, not a safetensors file: the download answered with an error message.")


def name_stranger(opening: bytes) -> Stranger | None:
    """Return what a file with these first bytes is, or None where it may be a safetensors file."""
    if not opening:
        return _EMPTY
    # Any of the marks below can also be the length of a real header: its upper bytes are zero, and JSON follows.
    if opening[4:9] == b"\0\0\0\0{":
        return None
    for magic, stranger in _MAGIC:
        if opening.startswith(magic):
            return stranger
    # A pickle opens with PROTO and its version.
    if opening[0] == 0x80 and opening[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return _PICKLE
    text = opening.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text[:1] == b"<":
        return _HTML
    return _JSON if text[:1] in (b"{", b"[") else None
