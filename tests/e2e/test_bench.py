"""The bench still runs and says what it promises; how fast anything is, no test asserts."""

import json
import math
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parents[2] / "scripts" / "bench.py"


def test_the_transfers_are_measured() -> None:
    command = [sys.executable, BENCH, "--only", "transfers", "--runs", "1", "--size-mib", "1", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    rows = json.loads(done.stdout.splitlines()[-1])["rows"]
    assert [row["name"] for row in rows] == ["tus_vs_disk", "tus_256k", "tus_1m", "tus_4m"]
    for row in rows:
        figures = [row["value"], row["yardstick_value"], row["ratio"]]
        assert all(math.isfinite(figure) and figure > 0 for figure in figures), row
