"""The pictures of a dataset: whole by ranges, or small ones to look at."""

from pathlib import Path, PurePosixPath
from urllib.parse import quote

from anyio import CapacityLimiter, to_thread
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from aitk_mcp.datasets.datasets import Datasets
from aitk_mcp.datasets.remote import RemoteDatasets
from aitk_mcp.images import THUMBNAIL_SIDE, BadImage, thumbnail
from mcp_toolserver.errors import InvalidArguments, NotFound
from mcp_toolserver.files import ranged_file_response

_DECODERS = 2
_MOST_IMAGE_BYTES = 256 * 1024 * 1024


def image_url(base_url: str, dataset_name: str, filename: str) -> str:
    """Return the address of an image; `?thumb=1` after it is that of its small picture."""
    return f"{base_url}/datasets/{quote(dataset_name, safe='')}/{quote(filename)}"


def dataset_routes(datasets: Datasets) -> list[Route]:
    """Return `GET` and `HEAD /datasets/{name}/{file}`; with `?thumb=1` a JPEG of at most 256 x 256, turned upright."""
    # A page of thumbnails asks for all of them at once, and each may take much memory while it is made.
    threads = CapacityLimiter(_DECODERS)

    async def picture(request: Request) -> Response:
        filename = request.path_params["file"]
        path = await datasets.image_file(request.path_params["name"], filename)
        try:
            if request.query_params.get("thumb", "0") in ("", "0", "false"):
                return await ranged_file_response(path, request)
            tag = await to_thread.run_sync(_tag, path)
            headers = {"ETag": tag, "Cache-Control": "private, max-age=3600"}
            if request.headers.get("if-none-match") == tag:
                return Response(status_code=304, headers=headers)
            small = await to_thread.run_sync(lambda: thumbnail(path.read_bytes()), limiter=threads)
        except FileNotFoundError:
            raise _deleted(filename) from None
        except BadImage as error:
            raise _no_thumbnail(filename, error) from error
        return Response(small, media_type="image/jpeg", headers=headers)

    return [Route("/datasets/{name}/{file:path}", picture, methods=["GET"])]


def _tag(path: Path) -> str:
    state = path.stat()
    return f'"{state.st_ino:x}-{state.st_size:x}-{state.st_mtime_ns:x}-{THUMBNAIL_SIDE}"'


def remote_dataset_routes(datasets: RemoteDatasets) -> list[Route]:
    """Return the same routes over images on AI Toolkit's disk, which pass through."""
    threads = CapacityLimiter(_DECODERS)

    async def picture(request: Request) -> Response:
        filename = request.path_params["file"]
        path = await datasets.image_path(request.path_params["name"], filename)
        try:
            if request.query_params.get("thumb", "0") in ("", "0", "false"):
                return await datasets.disk.answer(path, request, filename=PurePosixPath(filename).name)
            # AI Toolkit sends the whole image where it has not made a small one yet.
            image = await datasets.disk.read(path, most_bytes=_MOST_IMAGE_BYTES, small=True)
            small = await to_thread.run_sync(thumbnail, image, limiter=threads)
        except FileNotFoundError:
            raise _deleted(filename) from None
        except BadImage as error:
            raise _no_thumbnail(filename, error) from error
        return Response(small, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})

    return [Route("/datasets/{name}/{file:path}", picture, methods=["GET"])]


def _deleted(filename: str) -> NotFound:
    return NotFound(f"`{filename}` was deleted at this moment.", hint="get-dataset lists what is left.")


def _no_thumbnail(filename: str, error: BadImage) -> InvalidArguments:
    return InvalidArguments(
        f"`{filename}` has no small picture: {error}.",
        hint="check-dataset names every file that does not decode.",
        details={"field": "thumb", "filename": filename},
    )
