"""Train as AI Toolkit's `run.py` does: `python -m aitk_mcp.embedded.run [-r] [-n NAME] [-l LOG] CONFIG [CONFIG ...]`.

Exit code 0 when every job was trained or Ctrl-C (SIGINT) stopped it, 1 after a failure. SIGUSR1 saves at once,
SIGUSR2 draws the samples.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import TextIO

from aitk_mcp.embedded.wishes import Wishes

# Read by numpy when it is first imported: on matrices this small a second thread costs more than it gives.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

_EXTENSIONS = ("", ".json", ".jsonc", ".yaml", ".yml")
_RULE = "=" * 40


class Tee:
    """Write to a stream and to the log file."""

    def __init__(self, stream: TextIO, log: TextIO) -> None:
        self._stream, self._log = stream, log

    @property
    def encoding(self) -> str:
        """Return the stream's encoding: progress bars ask whether blocks can be drawn."""
        return self._stream.encoding

    def write(self, text: str) -> int:
        """Write at once: the log is read while the job runs."""
        self._log.write(text)
        self._log.flush()
        return self._stream.write(text)

    def flush(self) -> None:
        """Flush the stream; the log never waits."""
        self._stream.flush()

    def isatty(self) -> bool:
        """Tell whether somebody watches."""
        return self._stream.isatty()


def main() -> int:
    """Run the command line; returns the exit code."""
    wishes = Wishes()
    wishes.listen()
    parser = argparse.ArgumentParser(prog="python -m aitk_mcp.embedded.run", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("configs", nargs="+", type=Path, metavar="CONFIG")
    parser.add_argument("-r", "--recover", action="store_true", help="go on with the next job when one fails")
    parser.add_argument("-n", "--name", help="what [name] stands for in the config")
    parser.add_argument("-l", "--log", type=Path, help="file to write the output to as well")
    arguments = parser.parse_args()
    if arguments.log is None:
        return _run(arguments.configs, arguments.name, wishes, recover=arguments.recover)
    arguments.log.parent.mkdir(parents=True, exist_ok=True)
    streams = sys.stdout, sys.stderr
    with arguments.log.open("a", encoding="utf-8") as log:
        # What tee offers is what print, tracebacks and tqdm use.
        sys.stdout, sys.stderr = Tee(streams[0], log), Tee(streams[1], log)
        try:
            return _run(arguments.configs, arguments.name, wishes, recover=arguments.recover)
        finally:
            sys.stdout, sys.stderr = streams


def _run(configs: list[Path], name: str | None, wishes: Wishes, *, recover: bool) -> int:
    # Late imports: what goes wrong in them belongs into the log too.
    import traceback

    from aitk_mcp.documents import read_text
    from aitk_mcp.embedded.process import TrainingProcess

    completed = failed = 0
    print(f"Running {len(configs)} job{'' if len(configs) == 1 else 's'}")
    for config in configs:
        try:
            path = _find(config)
            wishes.work()
            is_json = path.suffix in (".json", ".jsonc")
            document = read_text(path.read_text("utf-8"), is_json=is_json, environment=os.environ, name=name)
            TrainingProcess(document, Path.cwd(), wishes).run()
            completed += 1
        except KeyboardInterrupt:
            print(f"\n{_RULE}\nJob stopped\n{_RULE}")
            return 0
        except Exception as error:
            failed += 1
            print(f"Error running job: {error}")
            if not recover:
                _print_end(completed, failed)
                traceback.print_exc()
                return 1
            traceback.print_exc()
    if recover:
        _print_end(completed, failed)
    return 1 if failed else 0


def _find(config: Path) -> Path:
    for extension in _EXTENSIONS:
        candidate = config.with_name(config.name + extension)
        if candidate.is_file():
            return candidate
    raise ValueError(f"Could not find config file {config}")


def _print_end(completed: int, failed: int) -> None:
    print(f"\n{_RULE}\nResult:\n - {completed} completed job{'' if completed == 1 else 's'}")
    if failed:
        print(f" - {failed} failure{'' if failed == 1 else 's'}")
    print(_RULE)


if __name__ == "__main__":
    sys.exit(main())
