"""Listing LoRAs while others write and delete them."""

import threading
from pathlib import Path

from comfy_mcp.loras.folder import find, scan

SCANS = 300


def test_a_file_that_vanishes_while_its_folder_is_read_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "stays.safetensors").touch()
    is_over = threading.Event()

    def come_and_go() -> None:
        while not is_over.is_set():
            for number in range(20):
                path = tmp_path / f"stays{number}.safetensors"
                path.touch()
                path.with_name(f"{path.name}.metadata.json").touch()
            for path in tmp_path.glob("stays?*.*"):
                if path.name != "stays.safetensors":
                    path.unlink()

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        for _ in range(SCANS):
            assert "stays.safetensors" in scan([tmp_path])
            assert find([tmp_path], "stays.safetensors") is not None
    finally:
        is_over.set()
        thread.join()
