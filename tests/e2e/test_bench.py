"""The bench still runs and says what it promises; how fast anything is, no test asserts."""

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

BENCH = Path(__file__).parents[2] / "scripts" / "bench.py"
WANTED = {
    "tus_vs_disk", "tus_256k", "tus_1m", "tus_4m", "upload_whole", "chunks_256k", "chunks_1m",
    "chunks_4m", "chunks_4m_rate", "download_lora", "download_model", "memory", "memory_tus",
    "rest_call", "rest_call_p99", "mcp_call", "mcp_call_p99", "mcp_2025_call", "startup_comfy_mcp", "startup_aitk_mcp",
    "memory_pull", "memory_chunks_4m", "pull_vs_disk", "link", "link_known",
    "list_loras_10k", "lora_info_2gb", "check_100_nodes", "engine_overhead",
    "zip_import", "training_status",
}  # fmt: skip


def bench(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, BENCH, *options], check=False, capture_output=True, text=True, timeout=240)


def test_every_subject_is_measured() -> None:
    done = bench("--sketch", "--runs", "1", "--size-mib", "1", "--json")
    assert done.returncode == 0, done.stderr
    last: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert set(last) == {"machine", "rows"}
    rows: list[dict[str, Any]] = last["rows"]
    names = [row["name"] for row in rows]
    assert len(set(names)) == len(names)
    assert set(names) >= WANTED
    assert ("tus_vs_curl" in names) == (shutil.which("curl") is not None)
    for row in rows:
        assert set(row) == {"name", "value", "unit", "yardstick", "yardstick_value", "ratio", "goal", "met"}
        figures = [row["value"], row["yardstick_value"], row["ratio"]]
        assert all(math.isfinite(figure) and figure > 0 for figure in figures), row
        assert row["met"] == (None if row["goal"] is None else row["ratio"] >= row["goal"])
    assert "tus_vs_peer is left out: there is no --peer-tus DIR" in done.stderr


def test_figures_that_cannot_be_measured_are_refused() -> None:
    for options in (("--runs", "0"), ("--size-mib", "0"), ("--only", "nothing")):
        done = bench(*options)
        assert done.returncode == 2
        assert options[0] in done.stderr
