"""What trainings offer beside the tools: pictures to look at, and the status addresses that older scripts call."""

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Route

from aitk_mcp.images import BadImage, thumbnail
from aitk_mcp.tools.training import describe
from aitk_mcp.training.jobs import TrainingJobs
from aitk_mcp.training.loss_plots import MEDIA_TYPES, LossPlots, PlotFormat
from mcp_toolserver.envelope import JsonResponse
from mcp_toolserver.errors import InvalidArguments

_MOST_JOBS = 200
# What trainers draw; the standard library's table is read from disk at its first use, which would block the loop.
_MEDIA_TYPES = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".mp4": "video/mp4",
}


def training_routes(jobs: TrainingJobs, plots: LossPlots) -> list[BaseRoute]:
    """Return the routes of trainings."""

    async def loss_picture(request: Request) -> Response:
        form: PlotFormat = "svg" if request.url.path.endswith(".svg") else "png"
        plot = await jobs.loss_plot(request.path_params["job_id"])
        picture = await to_thread.run_sync(plots.draw, plot, form)
        return Response(picture, media_type=MEDIA_TYPES[form], headers={"Cache-Control": "no-cache"})

    async def sample(request: Request) -> Response:
        path = await jobs.sample_file(request.path_params["job_id"], request.path_params["filename"])
        if request.query_params.get("thumb", "0") in ("", "0", "false"):
            return FileResponse(path, media_type=_MEDIA_TYPES.get(path.suffix.lower(), "application/octet-stream"))
        try:
            small = await to_thread.run_sync(lambda: thumbnail(path.read_bytes()))
        except BadImage as error:
            raise InvalidArguments(
                f"`{path.name}` has no small picture: {error}.",
                hint="Ask for it without `thumb`.",
                details={"field": "thumb", "filename": path.name},
            ) from error
        return Response(small, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})

    async def all_jobs(request: Request) -> Response:
        reports, _ = await jobs.all(limit=_MOST_JOBS)
        found = [describe(report).model_dump(mode="json") for report in reports]
        # `id` is what AI Toolkit's own address calls it.
        return JsonResponse({"jobs": [{"id": job["job_id"], **job} for job in found]})

    return [
        Route("/jobs/{job_id}/loss.png", loss_picture, methods=["GET"]),
        Route("/jobs/{job_id}/loss.svg", loss_picture, methods=["GET"]),
        Route("/samples/{job_id}/{filename}", sample, methods=["GET"]),
        Route("/api/jobs", all_jobs, methods=["GET"]),
        Route("/api/v2/training/status", all_jobs, methods=["GET"]),
    ]
