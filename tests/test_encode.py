"""Video files: decoded again, they say what was written, and show it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_grade import grey, reel_of

from hdrmerge import encode
from hdrmerge.broadcast import hlg_decode, hlg_display_light, pq_decode, rgb_from_ycc, to_rec2020
from hdrmerge.encode import encode_hdr, encode_preview, planes
from hdrmerge.errors import HdrmergeError, InputError, OutputError
from hdrmerge.footage import open_footage
from hdrmerge.grade import Display, measure
from hdrmerge.reel import Reel
from hdrmerge.tonemap import tonemap

av = pytest.importorskip("av")

FRAMES, HEIGHT, WIDTH, WHITE = 8, 48, 64, 0.25


def picture(number: int) -> np.ndarray:
    """Return patches of 16 x 16 pixels from 0.4 to 3000 nits, coloured below; each frame is brighter."""
    level = np.repeat(np.geomspace(0.4, 3000 / 1.35, 4), 16)[None, :, None] * np.ones((HEIGHT, 1, 3))
    level[HEIGHT // 2 + 8 :] *= [1.0, 0.6, 0.3]
    return (level * (1 + 0.05 * number) / 203 * WHITE).astype(np.float32)


@pytest.fixture
def reel(tmp_path: Path) -> Reel:
    return reel_of(tmp_path / "reel", [picture(n) for n in range(FRAMES)], WHITE)


def read(path: Path) -> tuple[Any, list[np.ndarray], list[float], dict[str, bytes]]:
    """Return the codec context's tags, Y'CbCr planes, times and side data of a file."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        found, times, side = [], [], {}
        for frame in container.decode(stream):
            side |= {data.type.name: bytes(data) for data in frame.side_data}
            times.append(float(frame.pts * frame.time_base))
            kind = np.dtype("<u2" if "10" in frame.format.name else np.uint8)
            found.append(
                [
                    np.frombuffer(p, kind).reshape(-1, p.line_size // kind.itemsize)[: p.height, : p.width]
                    for p in frame.planes
                ]
            )
        tags = {
            "name": context.name, "format": context.pix_fmt, "primaries": int(context.color_primaries),
            "transfer": int(context.color_trc), "matrix": int(context.colorspace),
            "range": int(context.color_range), "tag": context.codec_tag,
        }  # fmt: skip
        return tags, found, times, side


def centres(flat: list[np.ndarray], bits: int, matrix: int) -> np.ndarray:
    """Return R'G'B' (3, 4, 3) at the middle of the patches."""
    rows, columns = [8, 24, 40], [8, 24, 40, 56]
    halved = np.ix_([row // 2 for row in rows], [column // 2 for column in columns])
    ycc = np.stack([flat[0][np.ix_(rows, columns)], *(plane[halved] for plane in flat[1:])])
    affine = rgb_from_ycc(matrix, bits, False, 1.0)
    return np.moveaxis(np.tensordot(affine[:, :3], ycc, 1) + affine[:, 3][:, None, None], 0, 2)


@pytest.mark.parametrize("codec", ["hevc", "av1"])
def test_hdr10_says_and_shows_what_was_written(tmp_path: Path, reel: Reel, codec: Any) -> None:
    display = Display()
    measured = measure(reel, display)
    encode_hdr(reel, tmp_path / "a.mp4", measured, display, codec=codec, quality=1)
    tags, found, times, side = read(tmp_path / "a.mp4")
    assert tags["format"] == "yuv420p10le"
    assert (tags["primaries"], tags["transfer"], tags["matrix"], tags["range"]) == (9, 16, 9, 1)
    assert tags["tag"] == {"hevc": "hvc1", "av1": "av01"}[codec]
    assert times == pytest.approx([n / 24 for n in range(FRAMES)], abs=1e-4)

    cll, fall = np.frombuffer(side["CONTENT_LIGHT_LEVEL"], np.uint32)[:2]
    assert (cll, fall) == (np.ceil(measured.max_cll), np.ceil(measured.max_fall))
    mastering = np.frombuffer(side["MASTERING_DISPLAY_METADATA"], np.int32)[:20].reshape(10, 2)
    values = mastering[:, 0] / mastering[:, 1]
    assert values[:8] == pytest.approx([0.680, 0.320, 0.265, 0.690, 0.150, 0.060, 0.3127, 0.3290], abs=1e-4)
    assert values[8:] == pytest.approx([0.0001, 1000.0], abs=1e-3)

    for number in (0, FRAMES - 1):
        nits = pq_decode(centres(found[number], 10, 9))
        light = picture(number)[np.ix_([8, 24, 40], [8, 24, 40, 56])] @ to_rec2020().T / WHITE * 203
        kept = light.max(axis=2) < 400  # the roll-off begins above
        step = nits[kept] * 0.03 + 0.02  # two steps of ten bits are 2 %; the encoder adds its own
        assert (np.abs(nits[kept] - light[kept]) < step).all()
        assert nits.max() < 1000 * 1.03
    assert pq_decode(centres(found[-1], 10, 9)).max() == pytest.approx(1000, rel=0.03)


def test_hlg_says_and_shows_what_was_written(tmp_path: Path, reel: Reel) -> None:
    display = Display(transfer="hlg")
    encode_hdr(reel, tmp_path / "a.mp4", measure(reel, display), display, quality=1)
    tags, found, _, side = read(tmp_path / "a.mp4")
    assert (tags["primaries"], tags["transfer"], tags["matrix"]) == (9, 18, 9)
    assert "CONTENT_LIGHT_LEVEL" not in side
    nits = hlg_display_light(hlg_decode(centres(found[0], 10, 9)))
    light = picture(0)[np.ix_([8, 24, 40], [8, 24, 40, 56])] @ to_rec2020().T / WHITE * 203
    kept = (light.max(axis=2) < 400) & (light.min(axis=2) > 3)
    assert nits[kept] == pytest.approx(light[kept], rel=0.05)


def test_variable_times_are_kept(tmp_path: Path) -> None:
    reel = reel_of(tmp_path / "reel", [picture(n) for n in range(4)])
    times = (0.0, 0.04, 0.1, 0.3)
    reel.script = replace(reel.script, times=times)
    encode_hdr(reel, tmp_path / "a.mp4", measure(reel))
    assert read(tmp_path / "a.mp4")[2] == pytest.approx(times, abs=1e-4)


def test_the_preview_is_one_curve_for_all_frames(tmp_path: Path, reel: Reel) -> None:
    """Where the scene is the same it looks the same, however bright the rest of the frame is."""
    frames = [np.full((48, 64, 3), 0.1, np.float32) for _ in range(6)]
    for n in (1, 3, 5):
        frames[n][:, 32:] = 40.0
    flicker = reel_of(tmp_path / "flicker", frames)
    encode_preview(flicker, tmp_path / "b.mp4", measure(flicker), quality=1)
    tags, found, _, _ = read(tmp_path / "b.mp4")
    assert tags["format"] == "yuv420p"
    assert (tags["primaries"], tags["transfer"], tags["matrix"], tags["range"]) == (1, 1, 1, 1)
    luma = [float(flat[0][:, :24].mean()) for flat in found]
    assert np.ptp(luma) < 1.0
    alone = [int(tonemap(frame, "reinhard2002")[8, 8, 0]) for frame in frames]
    assert np.ptp(alone) > 20  # what it is held against

    encode_preview(reel, tmp_path / "c.mp4", measure(reel))
    shown = [float(frame.codes[:].mean()) for frame in open_footage(tmp_path / "c.mp4").frames()]
    assert np.diff(shown).min() > 0  # each frame is a little brighter


def test_odd_sizes_lose_a_line() -> None:
    flat = planes(np.full((47, 63, 3), 0.5, np.float32), 9, 10)
    assert [p.shape for p in flat] == [(46, 62), (23, 31), (23, 31)]
    assert (flat[0] == 502).all()


def test_targets_are_kept_and_whole(tmp_path: Path, reel: Reel, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = measure(reel)
    (tmp_path / "a.mp4").write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists"):
        encode_hdr(reel, tmp_path / "a.mp4", measured)
    with pytest.raises(OutputError, match="names no format"):
        encode_preview(reel, tmp_path / "a.avi", measured)
    with pytest.raises(HdrmergeError, match="must not flicker"):
        encode_preview(reel, tmp_path / "b.mp4", measured, operator="durand2002")

    def broken(*_: object) -> None:
        raise InputError("frame 3: damaged")

    monkeypatch.setattr(encode, "planes", broken)
    with pytest.raises(InputError):
        encode_hdr(reel, tmp_path / "a.mp4", measured, force=True)
    assert (tmp_path / "a.mp4").read_bytes() == b"mine"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_scheduling_of_the_thread_is_left_as_it_was(tmp_path: Path, reel: Reel) -> None:
    import os

    if not hasattr(os, "sched_getscheduler"):
        pytest.skip("Linux only")
    before = os.sched_getscheduler(0)
    encode_hdr(reel, tmp_path / "a.mp4", measure(reel), codec="av1")
    assert os.sched_getscheduler(0) == before


@pytest.mark.parametrize("frames", [1, 2, 3, 7, 8, 9])
def test_a_clip_of_few_frames_is_written(tmp_path: Path, frames: int) -> None:
    reel = reel_of(tmp_path / "reel", [np.tile(grey(0.25), (64, 64, 1))] * frames)
    encode_hdr(reel, tmp_path / "a.mp4", measure(reel))
    assert len(read(tmp_path / "a.mp4")[1]) == frames


def test_grey_stays_grey(tmp_path: Path) -> None:
    reel = reel_of(tmp_path / "reel", [np.tile(grey(0.25), (64, 64, 1))] * 2)
    encode_hdr(reel, tmp_path / "a.mp4", measure(reel), quality=1)
    _, found, _, _ = read(tmp_path / "a.mp4")
    assert np.abs(found[0][1].astype(int) - 512).max() <= 1
    assert np.abs(found[0][0].astype(int) - 573).max() <= 1  # 203 nits, BT.2408
