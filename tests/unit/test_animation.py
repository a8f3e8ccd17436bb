"""Pictures become an animated file that keeps every frame and its time."""

from io import BytesIO

from PIL import Image, ImageSequence

from comfy_mcp.animation import joined
from tests.servers.comfy_tools import png


def times_ms(content: bytes) -> list[int]:
    times: list[int] = []
    with Image.open(BytesIO(content)) as video:
        for frame in ImageSequence.Iterator(video):
            # Pillow knows it once the frame was read.
            frame.load()
            times.append(frame.info["duration"])
    return times


def test_every_frame_is_kept_for_its_time() -> None:
    frames = [png(colour="red"), png(colour="blue"), png(colour="lime")]
    content, warnings = joined(frames, frame_duration_s=0.25, quality="high")
    assert warnings == []
    with Image.open(BytesIO(content)) as video:
        seen = [frame.convert("RGB").getpixel((8, 8)) for frame in ImageSequence.Iterator(video)]
    assert len(seen) == 3
    assert [max(range(3), key=lambda index: pixel[index]) for pixel in seen if isinstance(pixel, tuple)] == [0, 2, 1]
    assert times_ms(content) == [250, 250, 250]


def test_a_frame_of_another_size_is_scaled_and_said() -> None:
    content, warnings = joined([png(48, 32), png(96, 64)], frame_duration_s=1.0, quality="draft")
    with Image.open(BytesIO(content)) as video:
        assert video.size == (48, 32)
    assert warnings == ["Frame 2 was scaled from 96 x 64 to 48 x 32, the size of the first."]


def test_frames_that_are_the_same_fill_their_time() -> None:
    content, _ = joined([png(), png(), png(colour="red")], frame_duration_s=0.5, quality="standard")
    assert sum(times_ms(content)) == 1500
