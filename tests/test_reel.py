"""A folder of frames: written one by one, resumed, refused, read back."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hdrmerge.bracket import RadianceMap, Shot
from hdrmerge.errors import InputError, OutputError
from hdrmerge.journal import Origin
from hdrmerge.reel import NAME, Reel, Script

COUNT = 5
SCRIPT = Script(
    Origin((("a.mp4", 100, 5),), {"network": "video"}),
    tuple(f"a_{n:05d}" for n in range(COUNT)),
    tuple(n / 25 for n in range(COUNT)),
    whites=(0.25, 0.25),
)


def radiance(number: int) -> RadianceMap:
    pixels = np.full((6, 8, 3), 0.5 + number, np.float32)
    shot = Shot(Path("a.mp4 frame 1"), exposure_time=1 / (60 + number), iso=200.0)
    return RadianceMap(pixels, np.ones((6, 8), np.bool_), shot, [shot], "network=video")


def record(folder: Path, numbers: range, script: Script = SCRIPT, force: bool = False) -> list[int]:
    """Add frames that are missing among some; return which were."""
    with Reel.recording(folder, script, force) as reel:
        added = [number for number in numbers if not reel.has(number)]
        for number in added:
            reel.add(number, radiance(number))
    return added


def test_frames_come_back_in_order_with_their_exposures(tmp_path: Path) -> None:
    record(tmp_path, range(COUNT))
    reel = Reel.finished(tmp_path)
    assert reel.script == SCRIPT
    frames = list(reel.frames())
    assert [float(frame.pixels[0, 0, 0]) for frame in frames] == [0.5, 1.5, 2.5, 3.5, 4.5]
    assert frames[3].reference.exposure_time == pytest.approx(1 / 63)
    assert frames[3].reference.iso == 200


def test_a_second_run_does_only_what_is_missing(tmp_path: Path) -> None:
    assert record(tmp_path, range(3)) == [0, 1, 2]
    before = (tmp_path / "a_00001.exr").stat().st_mtime_ns
    assert record(tmp_path, range(COUNT)) == [3, 4]
    assert record(tmp_path, range(COUNT)) == []
    assert (tmp_path / "a_00001.exr").stat().st_mtime_ns == before


def test_a_frame_that_is_not_whole_is_made_again(tmp_path: Path) -> None:
    record(tmp_path, range(COUNT))
    (tmp_path / "a_00002.exr").write_bytes(b"half of it")
    (tmp_path / "a_00004.exr").unlink()
    with pytest.raises(InputError, match=r"a_00002\.exr: is missing or not whole \(2 of 5"):
        Reel.finished(tmp_path)
    assert record(tmp_path, range(COUNT)) == [2, 4]
    assert len(list(Reel.finished(tmp_path).frames())) == COUNT


def test_other_settings_are_refused_unless_forced(tmp_path: Path) -> None:
    record(tmp_path, range(COUNT))
    origin = Origin(SCRIPT.origin.inputs, {"network": "none"})
    other = replace(SCRIPT, origin=origin, names=SCRIPT.names[:4], times=SCRIPT.times[:4])
    with pytest.raises(OutputError, match=r"made with network video; add --force"):
        record(tmp_path, range(4), other)
    assert len(Reel.finished(tmp_path)) == COUNT  # nothing happened
    assert record(tmp_path, range(4), other, force=True) == [0, 1, 2, 3]
    assert not (tmp_path / "a_00004.exr").exists()


@pytest.mark.parametrize("change", [{"whites": (0.25, 0.5)}, {"times": tuple(n / 24 for n in range(COUNT))}])
def test_another_script_of_the_same_origin_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    record(tmp_path, range(2))
    with pytest.raises(OutputError, match="made of other frames"):
        record(tmp_path, range(2), replace(SCRIPT, **change))


def test_a_clip_that_changed_is_another(tmp_path: Path) -> None:
    record(tmp_path, range(2))
    changed = replace(SCRIPT, origin=Origin((("a.mp4", 101, 6),), SCRIPT.origin.settings))
    with pytest.raises(OutputError, match=r"made before a\.mp4 changed"):
        record(tmp_path, range(2), changed)


def test_files_of_others_are_kept(tmp_path: Path) -> None:
    (tmp_path / "a_00003.exr").write_bytes(b"a render of somebody else")
    with pytest.raises(OutputError, match=r"a_00003\.exr: exists, and is of no reel"):
        record(tmp_path, range(COUNT))
    (tmp_path / "a_00003.exr").unlink()
    (tmp_path / NAME).write_text("notes\n")
    with pytest.raises(OutputError, match="is no journal of hdrmerge video"):
        record(tmp_path, range(COUNT))


def test_a_torn_line_costs_one_frame(tmp_path: Path) -> None:
    record(tmp_path, range(3))
    journal = tmp_path / NAME
    journal.write_bytes(journal.read_bytes()[:-8])
    assert record(tmp_path, range(COUNT)) == [2, 3, 4]
    assert record(tmp_path, range(COUNT)) == []


def test_a_run_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); import test_reel as t; from pathlib import Path\n"
        "with t.Reel.recording(Path(sys.argv[2]), t.SCRIPT) as reel:\n"
        "    reel.add(0, t.radiance(0)); reel.add(1, t.radiance(1))\n"
        "    (Path(sys.argv[2]) / f'.hdrmerge-{os.getpid()}-9.exr').write_bytes(b'half')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    here = str(Path(__file__).parent)
    ran = subprocess.run([sys.executable, "-c", code, here, str(tmp_path)], env=dict(os.environ), check=False)
    assert ran.returncode == -9
    assert record(tmp_path, range(COUNT)) == [2, 3, 4]
    assert sorted(path.name for path in tmp_path.iterdir()) == [*(f"{n}.exr" for n in SCRIPT.names), NAME]


def test_a_folder_without_frames_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no frames"):
        Reel.finished(tmp_path)
