"""The machine's state: what nvidia-smi prints, and a machine without it."""

from pathlib import Path

from aitk_mcp.system import read_gpus, read_stats


def test_the_lines_of_nvidia_smi_are_read() -> None:
    text = (
        "0, NVIDIA GeForce RTX 4090, 550.54.15, 41, 97, 24564, 18211, 6353, 301.52, 450.00\n"
        "1, NVIDIA T400, 550.54.15, [N/A], 0, 2048, 1, 2047, [N/A], [Not Supported]\n"
    )
    first, second = read_gpus(text)
    assert (first.index, first.name, first.temperature_c, first.power_draw_w) == (
        0,
        "NVIDIA GeForce RTX 4090",
        41,
        301.52,
    )
    assert first.memory_total_bytes == 24564 * 1024**2
    assert (second.temperature_c, second.power_limit_w, second.memory_used_bytes) == (None, None, 1024**2)


async def test_a_folder_that_is_not_there_yet_has_the_disk_of_its_parent(tmp_path: Path) -> None:
    stats = await read_stats([tmp_path / "later" / "datasets", tmp_path])
    assert [disk.path for disk in stats.disks] == [tmp_path / "later" / "datasets", tmp_path]
    assert stats.disks[0].total_bytes == stats.disks[1].total_bytes > stats.disks[0].free_bytes > 0
    assert stats.cpu_count >= 1
    assert bool(stats.gpus) != bool(stats.gpu_problem)
