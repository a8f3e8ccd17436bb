"""The datasets of AI Toolkit's server as its API has them."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from aitk_mcp.trainers.ui_http import UiHttp, UiRefused
from mcp_toolserver.errors import Forbidden

_AT_ONCE = 500


class UiDatasets:
    """List, make and delete the datasets of one server, and read and write captions; paths are those of its machine."""

    def __init__(self, http: UiHttp) -> None:
        self._http = http

    async def names(self) -> list[str]:
        """Return every dataset, by name; AI Toolkit makes its folder of datasets when it is asked."""
        return self._texts("/api/datasets/list", await self._http.get("/api/datasets/list"))

    async def create(self, name: str) -> None:
        """Make an empty dataset under a name that is normalised already; one that is there stays as it is."""
        _require_plain(name)
        path = "/api/datasets/create"
        made = self._object(path, await self._http.post(path, {"name": name})).get("name")
        if made != name:
            raise self._http.strange(path, f"it made {made!r}, not {name!r}")

    async def delete(self, name: str) -> None:
        """Delete a dataset with everything in it."""
        # By an empty name AI Toolkit deletes the folder of all datasets, and by a dotted one what lies elsewhere.
        _require_plain(name)
        await self._http.post("/api/datasets/delete", {"name": name})
        if name in await self.names():
            raise self._http.strange("/api/datasets/delete", f"dataset `{name}` is still there")

    async def media(self, name: str) -> list[str] | None:
        """Return images and videos of a dataset by their paths within it; None where there is no such dataset."""
        _require_plain(name)
        path = "/api/datasets/listImages"
        try:
            found = self._object(path, await self._http.post(path, {"datasetName": name})).get("images")
        except UiRefused as error:
            if error.answer_status == 404:
                return None
            raise
        return self._texts(path, found)

    async def captions(self, image_paths: Sequence[str]) -> dict[str, str]:
        """Return the caption of each image by its path: empty where there is none."""
        path = "/api/caption/getBatch"
        captions: dict[str, str] = {}
        for start in range(0, len(image_paths), _AT_ONCE):
            asked = list(image_paths[start : start + _AT_ONCE])
            answer = self._object(path, await self._http.post(path, {"imgPaths": asked}))
            found = self._object(path, answer.get("captions"))
            if missing := [each for each in asked if not isinstance(found.get(each), str)]:
                raise self._http.strange(path, f"it has no caption for {missing[0]}")
            captions |= {each: str(found[each]) for each in asked}
        return captions

    async def set_caption(self, image_path: str, caption: str) -> None:
        """Write the caption of an image; raises FileNotFoundError where the image is gone."""
        try:
            await self._http.post("/api/img/caption", {"imgPath": image_path, "caption": caption})
        except UiRefused as error:
            if error.answer_status == 404:
                raise FileNotFoundError(image_path) from error
            raise

    async def delete_image(self, image_path: str) -> None:
        """Delete an image and the caption beside it; one that is gone already is no error."""
        await self._http.post("/api/img/delete", {"imgPath": image_path})

    def _object(self, path: str, found: object) -> Mapping[str, Any]:
        if not isinstance(found, Mapping):
            raise self._http.strange(path, "it answers no object")
        return cast(Mapping[str, Any], found)

    def _texts(self, path: str, found: object) -> list[str]:
        if not isinstance(found, list) or not all(isinstance(each, str) for each in cast(list[object], found)):
            raise self._http.strange(path, "it answers no list of names")
        return cast(list[str], found)


def _require_plain(name: str) -> None:
    if not name.strip() or name.startswith(".") or any(letter in name for letter in "/\\\0"):
        raise Forbidden(
            f"`dataset_name` is {name!r}, which AI Toolkit would not take for the name of one dataset.",
            hint="list-datasets shows what is there.",
            details={"field": "dataset_name", "value": name},
        )
