"""Say in one sentence why a training failed, and what to do, from the end of its log."""

import re
from dataclasses import dataclass
from typing import Literal

FailureKind = Literal[
    "out_of_memory",
    "gated_model",
    "no_images",
    "dataset_missing",
    "bad_model_path",
    "bad_config",
    "checkpoint_mismatch",
    "disk_full",
    "no_gpu",
    "download_failed",
    "missing_package",
    "missing_file",
    "killed",
    "not_started",
    "unknown",
]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a job failed: a kind for programs, one sentence for people, what to do, and the trainer's own words."""

    kind: FailureKind
    reason: str
    hint: str
    message: str


@dataclass(frozen=True, slots=True)
class _Rule:
    """Recognise a failure: `reason` is a template over the pattern's groups; one of `near` must stand in the log."""

    kind: FailureKind
    pattern: re.Pattern[str]
    reason: str
    hint: str
    near: tuple[str, ...] = ("",)


_RULES: tuple[_Rule, ...] = (
    _Rule(
        "out_of_memory",
        re.compile(
            r"CUDA out of memory|CUDA error: out of memory|OutOfMemoryError|OOM during training step 3 times"
            r"|CUBLAS_STATUS_ALLOC_FAILED"
        ),
        "The GPU ran out of memory.",
        "Set low_vram and gradient_checkpointing to true, batch_size to 1, and a smaller resolution or rank;"
        " free the GPU of other programs (ComfyUI: free-memory).",
    ),
    _Rule(
        "gated_model",
        re.compile(
            r"(?:Cannot access gated repo for url \S*?\.co/|Access to model )(?P<model>[\w.-]+/[\w.-]+)",
        ),
        "The model {model} is gated and this machine's token may not read it.",
        "Accept the licence on the model's page and set HF_TOKEN where the trainer runs,"
        " or train on a public model such as ostris/Flex.1-alpha.",
    ),
    _Rule(
        "gated_model",
        re.compile(r"GatedRepoError|gated repo|(?:401|403) Client Error"),
        "The model is gated (or private) and this machine's token may not read it.",
        "Accept the licence on the model's page and set HF_TOKEN where the trainer runs,"
        " or train on a public model such as ostris/Flex.1-alpha.",
    ),
    _Rule(
        "no_images",
        re.compile(r"no (?:images|videos) found in (?P<path>.+)"),
        "There are no images that the trainer can read in {path}.",
        "Upload .jpg, .jpeg, .png or .webp files with upload-dataset and start again.",
    ),
    _Rule(
        "dataset_missing",
        re.compile(r"No such file or directory: '(?P<path>[^']+)'"),
        "The dataset {path} does not exist where the trainer runs.",
        "Use the absolute path that upload-dataset or list-datasets answers as dataset_path.",
        # AI Toolkit's module and the embedded engine's function, as a traceback names them.
        near=("data_loader", "load_datasets"),
    ),
    _Rule(
        "bad_model_path",
        re.compile(
            r"(?:pretrained_model_name_or_path \"(?P<quoted>[^\"]+)\" is neither|^(?P<plain>\S+) is not a local folder"
            r" and is not a valid model identifier)",
            re.MULTILINE,
        ),
        "The model {model} is neither a folder on this machine nor a model that can be downloaded.",
        "Correct model_name: list-model-presets shows names that work.",
    ),
    _Rule(
        "bad_model_path",
        re.compile(r"RepositoryNotFoundError|Repository Not Found|404 Client Error"),
        "The model cannot be found under this name.",
        "Correct model_name: list-model-presets shows names that work.",
    ),
    _Rule(
        "bad_config",
        re.compile(r"(?P<message>the embedded engine (?:trains|runs) .+)"),
        "The training was refused: {message}.",
        "Create the config again with what the message names.",
    ),
    _Rule(
        "bad_config",
        re.compile(
            r"(?P<message>config file must have [^\n]+|config file error\. [^\n]+"
            r"|Environment variable \S+ not set\.[^\n]*|Could not find config file [^\n]+)"
        ),
        "The training config cannot be used: {message}",
        "Write it again with create-training-config, or see its problems with validate-config.",
    ),
    _Rule(
        "checkpoint_mismatch",
        re.compile(r"size mismatch for|shape mismatch|the LoRA to go on from has rank"),
        "The output folder holds a checkpoint of another rank or architecture, from which the trainer tried to resume.",
        "Give the config a new name, or delete the old model.",
    ),
    _Rule(
        "disk_full",
        re.compile(
            r"No space left on device|Disk quota exceeded|File too large|Errno (?:27|28|122)\b|ENOSPC"
            r"|database or disk is full"
        ),
        "The disk is full.",
        "Delete old models or datasets, then resume-training goes on from the last checkpoint.",
    ),
    _Rule(
        "no_gpu",
        re.compile(r"Torch not compiled with CUDA enabled|Found no NVIDIA driver|No CUDA GPUs are available"),
        "The trainer found no GPU that it can use.",
        "Check nvidia-smi, the driver, and CUDA_VISIBLE_DEVICES; get-system-stats shows what this machine has.",
    ),
    _Rule(
        "download_failed",
        re.compile(r"LocalEntryNotFoundError|Max retries exceeded|couldn't connect to|Name or service not known"),
        "The model could not be downloaded: the network or the model hub did not answer.",
        "Check the network where the trainer runs, or give model_name as a local folder; then start again.",
    ),
    _Rule(
        "missing_package",
        re.compile(r"No module named '(?P<module>[^']+)'"),
        "The trainer's Python lacks the package {module}.",
        "Install AI Toolkit's requirements into the Python that runs it.",
    ),
    _Rule(
        "missing_package",
        re.compile(r"cannot import name '(?P<name>[^']+)' from '(?P<module>[^']+)'"),
        "The package {module} in the trainer's Python has no {name}: it is of a version that AI Toolkit does not fit.",
        "Install AI Toolkit's requirements, in the versions that it names, into the Python that runs it.",
    ),
    _Rule(
        "missing_package",
        re.compile(
            r"Could not load this library: (?P<path>\S+)|(?P<library>\S+\.so\S*): cannot open shared object file"
        ),
        "The compiled library {path} in the trainer's Python cannot be loaded.",
        "Install AI Toolkit's requirements again, with torch, torchvision and torchaudio built for each other.",
    ),
    _Rule(
        "missing_file",
        re.compile(r"No such file or directory: '(?P<path>[^']+)'"),
        "The file {path} does not exist where the trainer runs.",
        "Correct the path in the training config.",
    ),
)

_ERROR = re.compile(
    # What follows where the packages themselves cannot be imported is about run.py's own clean-up, not the cause.
    r"^Error running job: (?P<message>.*?)(?=\n\s*\n|\nError running on_error: |\n=====|\nTraceback |\Z)",
    re.MULTILINE | re.DOTALL,
)
_EXCEPTION = re.compile(
    r"^(?:[A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit|Warning)): (?P<message>.+)$", re.MULTILINE
)
# How the C++ runtime words an exception that nobody caught, past Python and its log.
_ABORT = re.compile(r"^\s*what\(\):\s+(?P<message>.+)$", re.MULTILINE)
_UNKNOWN_HINT = "get-training-logs shows what the trainer wrote."


def read_failure(text: str) -> Failure | None:
    """Return why the trainer failed, or None where its log names no error."""
    message = _message(text)
    if message is None:
        return None
    # The error's own words first: a traceback's frames, or an earlier warning, may match another rule.
    for where in (message, text[text.rfind("Traceback (most recent call last)") :] if "Traceback" in text else ""):
        for rule in _RULES:
            match = rule.pattern.search(where)
            if match and any(word in text for word in rule.near):
                return Failure(rule.kind, _reason(rule, match), rule.hint, message)
    return Failure("unknown", f"The trainer failed: {_one_line(message)}", _UNKNOWN_HINT, message)


def failure_by_exit(returncode: int | None, signal_name: str | None, start_error: str | None) -> Failure:
    """Say why a job failed whose log names no error, by how its process ended."""
    if start_error is not None:
        return Failure(
            "not_started",
            f"The trainer could not be started: {start_error}",
            "Check AITK_DIR and the Python that runs AI Toolkit.",
            start_error,
        )
    if signal_name == "SIGKILL":
        reason = "The trainer was killed (SIGKILL); the system does that when memory runs out."
        hint = "Free memory, then resume-training goes on from the last checkpoint."
    elif signal_name is not None:
        reason = f"The trainer was ended by {signal_name}."
        hint = "resume-training goes on from the last checkpoint."
    elif returncode is None:
        reason = "The trainer's process is gone and left no exit code; the machine may have been restarted."
        hint = "resume-training goes on from the last checkpoint."
    else:
        return Failure(
            "unknown", f"The trainer ended with exit code {returncode} and named no error.", _UNKNOWN_HINT, ""
        )
    return Failure("killed", reason, hint, "")


def _message(text: str) -> str | None:
    errors = _ERROR.findall(text)
    if errors:
        return errors[-1].strip() or "an error without a text"
    exceptions = _EXCEPTION.findall(text)
    if exceptions and "Traceback (most recent call last)" in text:
        return exceptions[-1].strip()
    aborts = _ABORT.findall(text)
    return aborts[-1].strip() if aborts else None


def _reason(rule: _Rule, match: re.Match[str]) -> str:
    groups = {name: value for name, value in match.groupdict().items() if value is not None}
    groups.setdefault("model", groups.get("quoted") or groups.get("plain") or "")
    groups.setdefault("path", groups.get("library", ""))
    return rule.reason.format_map(groups)


def _one_line(message: str) -> str:
    line = " ".join(message.split())
    line = line if len(line) <= 300 else line[:297] + "..."
    return line if line.endswith((".", "!", "?", "...")) else line + "."
