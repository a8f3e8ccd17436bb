"""Images with captions beside them in a zip or a folder on this machine, gathered without trusting either.

Nothing is unpacked to disk: an entry is read into memory, proven to be an image, and only then written under a name of
ours. Everything blocks.
"""

import os
import stat
import zlib
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from typing import Protocol
from zipfile import BadZipFile, ZipFile, ZipInfo

from aitk_mcp.datasets.staging import BadUpload, Renamed
from aitk_mcp.images import BadImage, is_image
from mcp_toolserver.errors import Forbidden, InvalidArguments, NotFound, closest
from mcp_toolserver.files import safe_relative

_CAPTIONS = (".txt", ".caption")
_JUNK = {"thumbs.db", "desktop.ini", "__macosx"}
_MOST_ENTRIES = 100_000
_LARGEST_IMAGE_BYTES = 256 * 1024 * 1024
_LARGEST_CAPTION_BYTES = 1024 * 1024
_LARGEST_TOTAL_BYTES = 64 * 1024**3
# Deflate makes text a thousand times smaller at most, an image hardly at all.
_HIGHEST_RATIO = 100
_ALWAYS_ALLOWED_BYTES = 1024 * 1024
# What zipfile and each kind of compression raise for bytes that they cannot read; RuntimeError is for a kind that is
# not known, UnicodeDecodeError for the name that an entry repeats before its bytes.
_DAMAGE = (BadZipFile, EOFError, LZMAError, RuntimeError, UnicodeDecodeError, zlib.error)


@dataclass(frozen=True, slots=True)
class Source:
    """A zip or a folder on this machine, how its caller calls it, and by which argument."""

    path: Path
    called: str
    field: str


@dataclass(frozen=True, slots=True)
class Ignored:
    """A file that was not taken, and why."""

    filename: str
    reason: str


class _Entry(Protocol):
    """A file in a zip or a folder; `name` is its path there with `/`."""

    @property
    def name(self) -> str: ...

    @property
    def size_bytes(self) -> int: ...

    def problem(self) -> str | None:
        """Return why it must not be taken, or None."""
        ...

    def read(self) -> bytes:
        """Return its bytes; raises BadImage where it is damaged."""
        ...


@dataclass(frozen=True, slots=True)
class FoundImage:
    """An image to be stored under `filename`, a bare name."""

    filename: str
    caption: str | None
    entry: _Entry

    def read(self) -> bytes:
        """Return its bytes; raises BadImage."""
        return self.entry.read()


@dataclass(frozen=True, slots=True)
class Gathered:
    """Everything that a source holds for a dataset; `total_bytes` is what its images take on disk."""

    images: tuple[FoundImage, ...]
    renamed: tuple[Renamed, ...]
    ignored: tuple[Ignored, ...]
    total_bytes: int


def find_source(path: str, roots: Sequence[Path]) -> Source:
    """Return the zip or folder at a path within the import roots; a relative path is looked for in each of them.

    Raises Forbidden for any other place, also by way of a link, and NotFound with the closest names.
    """
    if not roots:
        raise Forbidden(
            "This server imports nothing from its disk: no import root is set.",
            hint="Set AITK_MCP_IMPORT_ROOTS to the folders that may be imported from, or send the images with"
            " upload-dataset.",
            details={"field": "path", "value": path},
        )
    given = Path(path.strip()).expanduser()
    candidates = [given] if given.is_absolute() else [root / given for root in roots]
    allowed = [place for place in (Path(os.path.normpath(each)) for each in candidates) if _is_within(place, roots)]
    if not allowed:
        raise _outside(path, roots)
    found = next((place for place in allowed if place.exists()), None)
    if found is None:
        parent = allowed[0].parent
        names = [each.name for each in parent.iterdir()] if parent.is_dir() and _is_within(parent, roots) else []
        near = [str(parent / name) for name in closest(allowed[0].name, names)]
        raise NotFound(
            f"There is no {allowed[0]} on this machine.",
            hint=f"Did you mean `{near[0]}`?" if near else "Give the path of a zip or a folder.",
            details={"field": "path", "value": path, "closest_matches": near},
        )
    if not _is_within(found.resolve(), [root.resolve() for root in roots]):
        raise _outside(path, roots)
    return Source(found.resolve(), str(found.resolve()), "path")


@contextmanager
def gathered(source: Source) -> Generator[Gathered]:
    """Open a zip or a folder; raises InvalidArguments that names each file in it that must not be taken."""
    if source.path.is_dir():
        yield _gather(list(_folder_entries(source.path)), source)
        return
    with _opened(source) as archive:
        # Not by `is_dir`, which fails on an empty name.
        files = [info for info in archive.infolist() if not info.filename.endswith("/")]
        yield _gather([_ZipEntry(archive, info) for info in files], source)


def _opened(source: Source) -> ZipFile:
    try:
        return ZipFile(source.path)
    except (BadZipFile, NotImplementedError, UnicodeDecodeError) as error:
        # Beside damage: a version of the format that is not known, a name that is not in the code that it claims.
        raise InvalidArguments(
            f"{source.called} is no zip that can be read: {error}.",
            hint="Give a zip of images, or a folder of them by `path`.",
            details={"field": source.field, "value": source.called},
        ) from error


@dataclass(frozen=True, slots=True)
class _ZipEntry:
    archive: ZipFile
    info: ZipInfo

    @property
    def name(self) -> str:
        # The name as it stands there: zipfile cuts its own at a NUL.
        return self.info.orig_filename.removeprefix("./")

    @property
    def size_bytes(self) -> int:
        return self.info.file_size

    def problem(self) -> str | None:
        kind = stat.S_IFMT(self.info.external_attr >> 16)
        if kind == stat.S_IFLNK:
            return "it is a symbolic link"
        if kind not in (0, stat.S_IFREG):
            return "it is no plain file"
        if self.info.flag_bits & 0x1:
            return "it is encrypted; unlock the archive first"
        size, packed = self.info.file_size, self.info.compress_size
        if size > _ALWAYS_ALLOWED_BYTES and size > packed * _HIGHEST_RATIO:
            return f"it unpacks to {size // max(1, packed)} times its size, as no image does"
        return None

    def read(self) -> bytes:
        try:
            with self.archive.open(self.info) as file:
                return file.read()
        except _DAMAGE as error:
            raise BadImage(f"it is damaged in the archive: {error}") from error
        except OSError as error:
            # Of the disk, or without a number of the system for what bzip2 cannot unpack.
            raise BadImage(f"it cannot be read: {error.strerror or error}") from error


@dataclass(frozen=True, slots=True)
class _FileEntry:
    path: Path
    name: str
    size_bytes: int
    is_link: bool

    def problem(self) -> str | None:
        return "it is a symbolic link" if self.is_link else None

    def read(self) -> bytes:
        try:
            # Looked at before, but it may have been changed into a link since.
            handle = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError as error:
            raise BadImage(f"it cannot be read: {error.strerror}") from error
        with os.fdopen(handle, "rb") as file:
            return file.read(_LARGEST_IMAGE_BYTES + 1)


def _folder_entries(folder: Path) -> Generator[_FileEntry]:
    for parent, folders, files in os.walk(folder):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        folders.sort()
        for name in sorted([*files, *links]):
            path = Path(parent, name)
            state = path.lstat()
            if stat.S_ISREG(state.st_mode) or stat.S_ISLNK(state.st_mode):
                place = path.relative_to(folder).as_posix()
                yield _FileEntry(path, place, state.st_size, stat.S_ISLNK(state.st_mode))


def _gather(entries: Sequence[_Entry], source: Source) -> Gathered:
    if len(entries) > _MOST_ENTRIES:
        too_many = f"it holds {len(entries)} files, more than {_MOST_ENTRIES}"
        raise _refused(source, [BadUpload(source.called, too_many)])
    bad: list[BadUpload] = []
    ignored: list[Ignored] = []
    images: dict[PurePosixPath, _Entry] = {}
    captions: dict[PurePosixPath, _Entry] = {}
    for entry in entries:
        reason = _why_ignored(entry.name)
        problem = entry.problem() or _bad_name(entry.name, is_ignored=reason is not None)
        if problem is None and reason is None and entry.size_bytes > _LARGEST_IMAGE_BYTES:
            problem = f"it has {entry.size_bytes} bytes, more than {_LARGEST_IMAGE_BYTES}"
        if problem is not None:
            bad.append(BadUpload(entry.name, problem))
        elif reason is not None:
            ignored.append(Ignored(entry.name, reason))
        else:
            place = safe_relative(entry.name)
            (images if is_image(place.name) else captions)[place] = entry
    total = sum(entry.size_bytes for entry in images.values())
    if total > _LARGEST_TOTAL_BYTES:
        bad.append(BadUpload(source.called, f"its images have {total} bytes, more than {_LARGEST_TOTAL_BYTES}"))
    if bad:
        raise _refused(source, bad)
    if not images:
        raise InvalidArguments(
            f"{source.called} holds no image that AI Toolkit reads (.jpg, .jpeg, .png, .webp).",
            details={"field": source.field, "value": source.called},
        )
    texts = {place: _text(entry, bad) for place in images if (entry := _caption_of(place, captions)) is not None}
    if bad:
        raise _refused(source, bad)
    beside = {entry.name for place in images if (entry := _caption_of(place, captions)) is not None}
    ignored += [Ignored(entry.name, "no image of its name") for entry in captions.values() if entry.name not in beside]
    flat = _flat_names(images)
    renamed = [
        Renamed(str(place), name, "a dataset is one folder, and it lay in another")
        for place, name in flat.items()
        if place.name != name
    ]
    found = [FoundImage(flat[place], texts.get(place), entry) for place, entry in images.items()]
    return Gathered(tuple(found), tuple(renamed), tuple(ignored), total)


def _why_ignored(name: str) -> str | None:
    parts = name.replace("\\", "/").split("/")
    if any(part.lower() in _JUNK or (part.startswith(".") and part.strip(".")) for part in parts):
        return "it is hidden, or an operating system's own"
    suffix = PurePosixPath(parts[-1]).suffix.lower()
    if is_image(parts[-1]) or suffix in _CAPTIONS:
        return None
    return f"AI Toolkit does not train on {suffix or 'files without an ending'}"


def _bad_name(name: str, *, is_ignored: bool) -> str | None:
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or (len(name) > 1 and name[1] == ":"):
        return "its path leads out of the dataset"
    if is_ignored:
        return None
    try:
        safe_relative(name)
    except InvalidArguments as error:
        return error.message.split(": ", 1)[-1].rstrip(".")
    return None


def _caption_of(image: PurePosixPath, captions: dict[PurePosixPath, _Entry]) -> _Entry | None:
    return next((captions[place] for each in _CAPTIONS if (place := image.with_suffix(each)) in captions), None)


def _text(entry: _Entry, bad: list[BadUpload]) -> str | None:
    if entry.size_bytes > _LARGEST_CAPTION_BYTES:
        bad.append(BadUpload(entry.name, f"it is a caption of {entry.size_bytes} bytes"))
        return None
    try:
        return entry.read().decode("utf-8-sig")
    except UnicodeDecodeError:
        bad.append(BadUpload(entry.name, "it is a caption that is no UTF-8 text, at which the trainer would stop"))
    except BadImage as error:
        bad.append(BadUpload(entry.name, str(error)))
    return None


def _flat_names(places: Iterable[PurePosixPath]) -> dict[PurePosixPath, str]:
    """Return a bare name for each path: without the folders that all share, the others joined to it by `_`."""
    paths = list(places)
    shared = os.path.commonpath([path.parent for path in paths])
    names: dict[PurePosixPath, str] = {}
    taken: set[str] = set()
    for path in paths:
        stem, suffix = "_".join(path.relative_to(shared).with_suffix("").parts), path.suffix
        while (stem + suffix).casefold() in taken:
            stem += "_"
        taken.add((stem + suffix).casefold())
        names[path] = stem + suffix
    return names


def _is_within(place: Path, roots: Sequence[Path]) -> bool:
    return any(place.is_relative_to(root) for root in roots)


def _outside(path: str, roots: Sequence[Path]) -> Forbidden:
    places = ", ".join(str(root) for root in roots)
    return Forbidden(
        f"`path` is {path!r}, which lies outside of the import roots.",
        hint=f"Put it into {places}, or add its folder to AITK_MCP_IMPORT_ROOTS.",
        details={"field": "path", "value": path, "allowed": [str(root) for root in roots]},
    )


def _refused(source: Source, bad: Sequence[BadUpload]) -> InvalidArguments:
    return InvalidArguments(
        f"{source.called} was refused, and nothing was stored: "
        + "; ".join(f"`{each.filename}`: {each.problem}" for each in bad[:20])
        + (f"; and {len(bad) - 20} more." if len(bad) > 20 else "."),
        hint="Remove or correct these files, and import it again.",
        details={
            "problems": [{"field": source.field, "filename": each.filename, "message": each.problem} for each in bad]
        },
    )
