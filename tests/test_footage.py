"""Frames of stills and clips: order, times, colours, windows, memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest
from made_clip import alternating, scene, write_clip, write_stills

from hdrmerge.errors import InputError
from hdrmerge.footage import Clip, open_footage, windows

pytest.importorskip("av")

SMALL = scene(48, 64)


def numbered(count: int) -> list[np.ndarray]:
    """Return grey frames each of which tells its number."""
    return [np.full((48, 64, 3), 8 * n / 255, np.float32) for n in range(count)]


def number_of(frame: object) -> int:
    return round(float(np.median(frame.codes[:][..., 1])) / 8)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    options = {"qp": "0", "g": "4"}  # a key frame every four, to seek to
    return write_clip(tmp_path / "a.mp4", numbered(11), codec="libx264", pix_fmt="yuv420p", options=options)


def test_stills_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    paths = write_stills(tmp_path, numbered(11))
    for n, path in enumerate(paths):
        path.rename(tmp_path / f"shot{n + 1}.jpg")
    footage = open_footage(tmp_path, fps=10)
    assert footage.names[:2] == ("shot1", "shot2")
    assert footage.names[-1] == "shot11"
    assert footage.times[-1] == pytest.approx(1.0)
    assert [number_of(frame) for frame in footage.frames(8)] == [8, 9, 10]


def test_a_clip_has_its_frames_wherever_one_begins(clip: Path) -> None:
    footage = open_footage(clip)
    assert len(footage) == 11
    for start in range(11):
        assert [number_of(f) for f in footage.frames(start, start + 2)] == list(range(11))[start : start + 2]


def test_times_of_a_variable_rate_are_kept(tmp_path: Path) -> None:
    times = [0.0, 0.04, 0.08, 0.2, 0.24, 0.31]
    path = write_clip(tmp_path / "a.mkv", numbered(6), times=times)
    assert open_footage(path).times == pytest.approx(times, abs=1e-3)
    assert open_footage(path, fps=50).times[-1] == pytest.approx(0.1)


BT709, BT601, BT2020 = (0.2126, 0.0722), (0.299, 0.114), (0.2627, 0.0593)


@pytest.mark.parametrize("pix_fmt", ["yuv444p", "yuv420p", "yuv420p10le", "yuv444p10le"])
@pytest.mark.parametrize(
    ("luma", "full", "tags"),
    [
        (BT709, False, {"colorspace": 1, "color_range": 1}),
        (BT709, True, {"colorspace": 1, "color_range": 2}),
        (BT601, False, {}),  # small and untagged
        (BT601, False, {"colorspace": 6, "color_range": 1}),
        (BT2020, False, {"colorspace": 9, "color_range": 1, "color_primaries": 9}),
        (BT2020, False, {"color_range": 1, "color_primaries": 9}),  # the matrix follows the primaries
    ],
)
def test_codes_are_those_that_were_coded(
    tmp_path: Path, pix_fmt: str, luma: tuple[float, float], full: bool, tags: dict[str, int]
) -> None:
    rgb = cv2.GaussianBlur(alternating([1.0], SMALL)[0] * 0.9 + 0.05, (0, 0), 2.5)
    path = write_clip(tmp_path / "a.mkv", [rgb, rgb], pix_fmt=pix_fmt, luma=luma, full=full, tags=tags)
    frame = open_footage(path).frame(1)
    codes = frame.codes[:]
    assert codes.dtype == (np.uint16 if "10" in pix_fmt else np.uint8)
    error = codes / np.iinfo(codes.dtype).max - rgb
    step = 1 / (1023 if "10" in pix_fmt else 255)
    assert abs(error.mean()) < 0.2 * step
    assert np.abs(error).max() < (3.0 * step if "444" in pix_fmt else 0.012)  # chroma between its samples
    assert frame.to_rec709[0, 1] == pytest.approx(-0.5876 if luma == BT2020 else 0.0, abs=1e-3)


def test_large_untagged_clips_are_bt709(tmp_path: Path) -> None:
    rgb = np.zeros((720, 16, 3), np.float32) + np.float32([0.8, 0.3, 0.2])
    path = write_clip(tmp_path / "a.mkv", [rgb, rgb], luma=BT709)
    assert np.abs(open_footage(path).frame(0).codes[:] / 255 - rgb).max() < 0.01


def test_blacks_below_black_are_full_range(tmp_path: Path) -> None:
    rgb = [bright * 0.5 for bright in alternating([0.02, 0.02], SMALL)]
    footage = open_footage(write_clip(tmp_path / "a.mkv", rgb, luma=BT601, full=True))
    assert np.abs(footage.frame(0).codes[:] / 255 - rgb[0]).max() < 0.012
    assert "full range" in footage.warnings[0]


def test_rgb_clips_are_taken_as_they_are(tmp_path: Path) -> None:
    import av

    codes = (np.linspace(0, 255, 48 * 64 * 3).reshape(48, 64, 3)).astype(np.uint8)
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "bgr0"
        for _ in range(2):
            frame = av.VideoFrame.from_ndarray(codes, format="rgb24").reformat(format="bgr0")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    frame = open_footage(tmp_path / "a.mkv").frame(1)
    assert np.array_equal(frame.codes[:], codes)
    assert frame.response.name == "sRGB"


@pytest.mark.parametrize(("rotation", "turns"), [(90, 1), (-90, 3), (180, 2)])
def test_clips_come_upright(tmp_path: Path, rotation: int, turns: int) -> None:
    rgb = alternating([1.0], SMALL)[0]
    options = {"qp": "0"}
    tags = {"colorspace": 1, "color_range": 1}
    write = {"codec": "libx264", "pix_fmt": "yuv444p", "options": options, "tags": tags}
    plain = open_footage(write_clip(tmp_path / "a.mp4", [rgb], **write)).frame(0)
    footage = open_footage(write_clip(tmp_path / "b.mp4", [rgb], rotation=rotation, **write))
    turned = footage.frame(0)
    assert (footage.height, footage.width) == turned.codes.shape[:2]
    assert np.array_equal(turned.codes[:], np.rot90(plain.codes[:], turns))


def test_windows_repeat_the_ends(clip: Path) -> None:
    footage = open_footage(clip)
    found = {number: [number_of(f) for f in frames] for number, frames in windows(footage, 2)}
    assert found[0] == [0, 0, 0, 1, 2]
    assert found[1] == [0, 0, 1, 2, 3]
    assert found[5] == [3, 4, 5, 6, 7]
    assert found[10] == [8, 9, 10, 10, 10]
    assert list(found) == list(range(11))


@pytest.mark.parametrize(("start", "stop"), [(0, 3), (1, 2), (4, 11), (9, 11), (10, 11), (11, 11)])
def test_windows_begin_anywhere(clip: Path, start: int, stop: int) -> None:
    footage = open_footage(clip)
    whole = {n: [number_of(f) for f in frames] for n, frames in windows(footage, 3)}
    part = {n: [number_of(f) for f in frames] for n, frames in windows(footage, 3, start, stop)}
    assert part == {n: whole[n] for n in range(start, stop)}


def test_windows_of_footage_shorter_than_they_are(tmp_path: Path) -> None:
    footage = open_footage(write_clip(tmp_path / "a.mkv", numbered(2)))
    assert [[number_of(f) for f in frames] for _, frames in windows(footage, 3)] == [
        [0, 0, 0, 0, 1, 1, 1],
        [0, 0, 0, 1, 1, 1, 1],
    ]


def test_memory_does_not_grow_with_the_clip(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        grey = np.full((240, 320, 3), 0.5, np.float32)
        path = write_clip(tmp_path / f"{count}.mkv", [grey] * count)
        tracemalloc.start()
        for _ in windows(open_footage(path), 2):
            pass
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert peak(60) < peak(12) + 100_000  # a frame is 230,000 bytes


def test_exposures_given_later_are_in_the_frames(clip: Path) -> None:
    footage = open_footage(clip)
    held = footage.exposed([0.5 if n % 2 else 1.0 for n in range(11)], "pixels")
    assert [frame.exposure for frame in held.frames(0, 3)] == [1.0, 0.5, 1.0]
    assert footage.frame(0).shot.exposure is None
    held = footage.exposed([1 / 60] * 11, "times")
    assert held.frame(3).shot.exposure_time == pytest.approx(1 / 60)


def test_brightness_is_that_of_the_frames(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mkv", numbered(4)[1:])
    levels = open_footage(path).levels()
    assert levels.shape == (3, 17)
    assert np.allclose(levels[:, 8], [8 / 255, 16 / 255, 24 / 255], atol=0.003)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such file"), (b"nothing", "no clip"), ("folder", "no photograph")],
)
def test_what_is_no_footage_is_told(tmp_path: Path, content: bytes | str | None, message: str) -> None:
    path = tmp_path / "x.mp4"
    if content == "folder":
        path.mkdir()
    elif content:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        open_footage(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_hdr_for_displays_is_no_footage(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mkv", numbered(2), tags={"color_trc": 16, "colorspace": 9})
    with pytest.raises(InputError, match="PQ or HLG"):
        open_footage(path)


def test_a_clip_that_ends_early_is_told(tmp_path: Path) -> None:
    """Whether its last frame is cut in two or between two, which the encoder decides."""
    rgb = alternating([1.0, 0.5] * 10)
    whole = write_clip(tmp_path / "w.mp4", rgb, codec="libx264", pix_fmt="yuv420p")
    data = whole.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) * 2 // 3])
    try:
        said = " ".join(open_footage(tmp_path / "cut.mp4").warnings)
    except InputError as error:
        said = str(error)
    assert "cut.mp4: ends early" in said


def test_stills_of_two_sizes_are_refused(tmp_path: Path) -> None:
    write_stills(tmp_path, [*numbered(2), np.zeros((48, 48, 3))])
    with pytest.raises(InputError, match=r"003\.jpg: 48 x 48 px"):
        open_footage(tmp_path)


def test_without_the_library_it_is_named(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match=r"hdrmerge\[video\]"):
        open_footage(clip)


def test_clips_know_their_signal(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mkv", numbered(2), pix_fmt="yuv420p10le", tags={"color_trc": 13})
    footage = open_footage(path)
    assert isinstance(footage, Clip)
    assert footage.signal.bits == 10
    assert footage.frame(0).response.name == "sRGB"
