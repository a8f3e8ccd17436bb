"""From what callers give as `dataset_path` to the absolute folder that a trainer reads. Blocks, in a worker thread."""

from pathlib import Path, PurePosixPath

from aitk_mcp.datasets.contents import TrainingImages
from aitk_mcp.datasets.port import DatasetHome
from aitk_mcp.recipes.names import dataset_folder_name
from mcp_toolserver.errors import InvalidArguments, NotFound, closest


def locate(datasets: DatasetHome, dataset_path: str) -> TrainingImages:
    """Return what lies at a `dataset_path`: an absolute path, or the bare name of a dataset, which is made absolute.

    Raises InvalidArguments for any other relative path, with the absolute form in the hint, since AI Toolkit would
    look for it in the folder that it happens to run in; NotFound, with what is near, where nothing is there.
    """
    plain = dataset_path.strip().replace("\\", "/") if "/" not in dataset_path else dataset_path.strip()
    if not plain:
        raise InvalidArguments(
            "`dataset_path` is empty.",
            hint="Give the `path` that upload-dataset answered, or a name from list-datasets.",
            details={"field": "dataset_path", "value": dataset_path},
        )
    if Path(dataset_path.strip()).is_absolute():
        # Path() drops a slash at the end, with which AI Toolkit would write other keys into the size file.
        return _at(datasets, Path(dataset_path.strip()))
    if "/" not in plain and plain not in (".", ".."):
        return _at(datasets, datasets.find(plain))
    absolute = _absolute_form(datasets, plain)
    raise InvalidArguments(
        f"`dataset_path` is the relative path {dataset_path!r}, which AI Toolkit would not find.",
        hint=f"Give it absolutely: `{absolute}`, or give only the name of the dataset.",
        details={"field": "dataset_path", "value": dataset_path, "closest_matches": [str(absolute)]},
    )


def _at(datasets: DatasetHome, path: Path) -> TrainingImages:
    images = datasets.training_images(path)
    if images is not None:
        return images
    known = {each.name: each for each in datasets.folders()}
    found = known.get(path.name) or known.get(_folder_name(path.name))
    near = [str(found)] if found else [str(known[name]) for name in closest(path.name, known)]
    raise NotFound(
        f"There is no folder {path} on the trainer's machine.",
        hint=f"Did you mean `{near[0]}`?" if near else "list-datasets shows what is there; upload-dataset adds one.",
        details={"field": "dataset_path", "value": str(path), "closest_matches": near},
    )


def _absolute_form(datasets: DatasetHome, relative: str) -> Path:
    last = PurePosixPath(relative).name
    names = {each.name for each in datasets.folders()}
    found = next((name for name in (last, _folder_name(last), *closest(last, names)) if name in names), None)
    return datasets.root / (found or _folder_name(last) or "my_dataset")


def _folder_name(name: str) -> str:
    try:
        return dataset_folder_name(name)
    except InvalidArguments:
        return ""
