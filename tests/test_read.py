"""Every format decodes to the same light, upright, in the same colours."""

from __future__ import annotations

import gc
import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, ImageCms

from hdrmerge import read
from hdrmerge.bracket import RadianceMap, Shot
from hdrmerge.colour import ADOBE_RGB_CHROMATICITIES, D50, D65, REC709_CHROMATICITIES, adaptation, rgb_to_xyz
from hdrmerge.errors import BracketError, InputError, OutputError
from hdrmerge.exposure import Response, srgb_decode
from hdrmerge.metadata import read_shot
from hdrmerge.read import SpooledCodes, read_frame
from hdrmerge.scene import ramp_scene
from hdrmerge.simulate import Camera
from hdrmerge.simulate_files import record_mosaic, write_dng
from hdrmerge.write import write

HEIGHT, WIDTH = 48, 64
Y, X = np.mgrid[0:HEIGHT, 0:WIDTH] / np.float32(WIDTH)
SMOOTH = np.stack([0.2 + 0.7 * X, 0.2 + 0.7 * Y, 0.6 - 0.4 * X], axis=-1)
"""A picture (H, W, 3) without symmetry, and smooth, so that lossy formats keep it within 2 %."""

CODES8 = np.rint(SMOOTH * 255).astype(np.uint8)
CODES16 = np.rint(SMOOTH * 65535).astype(np.uint16)
FLOATS = SMOOTH.astype(np.float32)
GREY8 = CODES8[..., 0]
P3_CHROMATICITIES = (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, 0.3127, 0.3290)


def frame_of(path: Path, **options: object) -> read.Frame:
    return read_frame(read_shot(path), **options)


# --- formats --------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "P"])
def test_eight_bits(tmp_path: Path, suffix: str, mode: str) -> None:
    if suffix == ".jpg" and mode not in ("RGB", "L"):
        pytest.skip("JPEG has neither alpha nor palettes")
    picture = {
        "RGB": Image.fromarray(CODES8),
        "L": Image.fromarray(GREY8),
        "RGBA": Image.fromarray(np.dstack([CODES8, GREY8])),
        "LA": Image.fromarray(np.dstack([GREY8, 255 - GREY8]), "LA"),
        "P": Image.fromarray(CODES8).quantize(256),
    }[mode]
    picture.save(tmp_path / f"a{suffix}", **({"quality": 98, "subsampling": 0} if suffix == ".jpg" else {}))
    frame = frame_of(tmp_path / f"a{suffix}")
    truth = np.repeat(GREY8[..., None], 3, axis=2) if mode in ("L", "LA") else CODES8
    assert frame.codes.dtype == np.uint8
    difference = np.abs(frame.codes[:].astype(int) - truth)
    assert difference.max() <= {"P": 24}.get(mode, 3 if suffix == ".jpg" else 0)
    assert frame.response.name == "srgb"
    assert frame.linear() == pytest.approx(srgb_decode(frame.codes[:] / 255), abs=1e-6)


TIFF_LAYOUTS = {
    "strips": {"rowsperstrip": 5},
    "tiles": {"tile": (16, 32)},
    "deflate": {"compression": "zlib"},
    "predictor": {"compression": "zlib", "predictor": True},
    "planes": {"planarconfig": "separate"},
    "big-endian": {"byteorder": ">"},
    "BigTIFF": {"bigtiff": True},
}


@pytest.mark.parametrize("layout", TIFF_LAYOUTS)
@pytest.mark.parametrize("dtype", ["u1", "u2", "f2", "f4", "f8"])
def test_tiffs_of_every_layout(tmp_path: Path, layout: str, dtype: str) -> None:
    if dtype[0] == "f" and layout == "predictor":
        pytest.skip("tifffile alone cannot write it")
    truth = {"u1": CODES8, "u2": CODES16}.get(dtype, FLOATS.astype(dtype))
    stored = truth.transpose(2, 0, 1) if layout == "planes" else truth
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", **TIFF_LAYOUTS[layout])
    frame = frame_of(tmp_path / "a.tif")
    assert frame.codes.dtype == ({"u1": np.uint8, "u2": np.uint16}.get(dtype, np.float32))
    assert np.array_equal(frame.codes[:], truth.astype(frame.codes.dtype))


@pytest.mark.parametrize(
    "codes",
    [CODES16, FLOATS, CODES16[..., 1], np.dstack([CODES16, CODES16[..., 0]])],
    ids=["16", "f", "grey", "alpha"],
)
def test_lzw_tiffs_of_deep_pixels(tmp_path: Path, codes: np.ndarray) -> None:
    stored = codes if codes.ndim == 2 else codes[..., [2, 1, 0, 3][: codes.shape[2]]]
    cv2.imwrite(str(tmp_path / "a.tif"), stored, [cv2.IMWRITE_TIFF_COMPRESSION, 5])
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert tiff.pages[0].compression == tifffile.COMPRESSION.LZW
    truth = np.repeat(codes[..., None], 3, axis=2) if codes.ndim == 2 else codes[..., :3]
    assert np.array_equal(frame_of(tmp_path / "a.tif").codes[:], truth)


def test_lzw_and_jpeg_tiffs_of_eight_bits(tmp_path: Path) -> None:
    for compression, tolerance in (("tiff_lzw", 0), ("jpeg", 8)):
        Image.fromarray(CODES8).save(tmp_path / "a.tif", compression=compression)
        assert np.abs(frame_of(tmp_path / "a.tif").codes[:].astype(int) - CODES8).max() <= tolerance


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_tiffs(tmp_path: Path, dtype: type) -> None:
    grey = (CODES8 if dtype == np.uint8 else CODES16)[..., 0]
    for photometric, stored in (("minisblack", grey), ("miniswhite", np.iinfo(dtype).max - grey)):
        tifffile.imwrite(tmp_path / "a.tif", stored, photometric=photometric)
        assert np.array_equal(frame_of(tmp_path / "a.tif").codes[:], np.dstack([grey] * 3))


def test_tiffs_that_are_no_pictures(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, CODES16.astype(np.uint32), photometric="rgb")
    with pytest.raises(InputError, match="pixels of type uint32"):
        frame_of(path)
    tifffile.imwrite(path, CODES16[..., 0], photometric="cfa")
    with pytest.raises(InputError, match=r"rename it to \.dng"):
        frame_of(path)


@pytest.mark.parametrize("codes", [CODES16, CODES16[..., 0], np.dstack([CODES16, CODES16[..., 0]])])
def test_sixteen_bit_pngs(tmp_path: Path, codes: np.ndarray) -> None:
    stored = codes if codes.ndim == 2 else codes[..., [2, 1, 0, 3][: codes.shape[2]]]
    cv2.imwrite(str(tmp_path / "a.png"), stored)
    frame = frame_of(tmp_path / "a.png")
    truth = np.repeat(codes[..., None], 3, axis=2) if codes.ndim == 2 else codes[..., :3]
    assert np.array_equal(frame.codes[:], truth)
    assert frame.linear() == pytest.approx(srgb_decode(truth / 65535), abs=1e-6)


def test_merged_tiffs_read_back_linear_whatever_the_response(tmp_path: Path) -> None:
    radiance = RadianceMap(FLOATS * 4, FLOATS[..., 0] > 0, Shot(Path("a.jpg"), exposure_time=1.0))
    write(radiance, tmp_path / "a.tif")
    for response in (None, Response.named("srgb"), Response.named("gamma2.2")):
        frame = frame_of(tmp_path / "a.tif", response=response)
        assert np.array_equal(frame.linear(), radiance.pixels)
        assert np.array_equal(frame.to_rec709, np.eye(3))


def test_float_values_that_are_no_light(tmp_path: Path) -> None:
    values = FLOATS.copy()
    values[0, :3, 0] = np.inf, 1e30, -1e30
    values[10, 10:12, 1] = np.nan, -np.inf
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb")
    frame = frame_of(tmp_path / "a.tif")
    light = frame.linear()
    assert light[0, :3, 0].tolist() == [1.0, 65504.0, -1.0]
    for column in (10, 11):  # all channels come from one neighbour
        assert any(
            np.array_equal(light[10, column], FLOATS[y, x]) for y in (9, 10, 11) for x in (9, column, 12)
        )
    untouched = np.isfinite(values).all(axis=2) & (np.abs(values) < 2).all(axis=2)
    assert np.array_equal(light[untouched], FLOATS[untouched])
    assert [note.split(" ", 1)[0] for note in frame.notes] == ["2", "1"]
    assert "(NaN)" in frame.notes[0]
    assert "below zero" in frame.notes[1]
    tifffile.imwrite(tmp_path / "a.tif", FLOATS * 4 - 0.01, photometric="rgb")  # both are normal
    assert frame_of(tmp_path / "a.tif").notes == ()
    values[: HEIGHT // 2] = np.nan
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb")
    with pytest.raises(InputError, match=r"50% of its pixels are no numbers \(NaN\); export it again"):
        frame_of(tmp_path / "a.tif")


@pytest.mark.parametrize(("bits", "steps"), [(8, 255), (10, 1023)])
def test_heic(tmp_path: Path, bits: int, steps: int) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    codes = CODES8.copy() if bits == 8 else CODES16.copy()
    codes[:8, :8] = np.iinfo(codes.dtype).max
    mode = "RGB" if bits == 8 else "RGB;16"
    heif = pillow_heif.from_bytes(mode, (WIDTH, HEIGHT), codes.tobytes())
    heif.save(tmp_path / "a.heic", quality=-1, chroma=444)
    frame = frame_of(tmp_path / "a.heic")
    white = np.iinfo(codes.dtype).max
    assert frame.codes.dtype == codes.dtype
    assert np.abs(frame.codes[:] / white - codes / white).max() < 2.5 / steps
    assert frame.codes[:8, :8][2:6, 2:6].min() >= white - 65536 // steps
    assert frame.codes[:].max() == white


def test_raw_and_developed_files_do_not_mix(tmp_path: Path) -> None:
    shots = []
    for name in ("a.dng", "b.png"):
        write_turned(tmp_path / name, 1)
        shots.append(read_shot(tmp_path / name))
    for shot, reference in (shots, shots[::-1]):
        with pytest.raises(BracketError, match="do not mix; give frames of one kind"):
            read_frame(shot, reference=reference)


# --- damage that leaves header and end alone ------------------------------------------------------


def detailed(height: int = 256, width: int = 384) -> np.ndarray:
    return np.clip(ramp_scene(height, width, np.random.default_rng(0)) * 64, 0, 255).astype(np.uint8)


def outcome(path: Path, whole: np.ndarray) -> str:
    try:
        frame = frame_of(path)
    except InputError as error:
        return "refused" if "ends early or is damaged (" in str(error) else str(error)
    if frame.notes:
        return "noted"
    return "silent" if np.abs(frame.codes[:].astype(int) - whole).max() > 64 else "same"


@pytest.mark.parametrize("how", ["baseline", "progressive", "restarts", "tables"])
def test_damage_in_the_middle_of_a_jpeg_is_heard(tmp_path: Path, how: str) -> None:
    """Nothing but the decoder can tell; now and then damage makes another valid picture."""
    path = tmp_path / "a.jpg"
    options = {
        "baseline": {},
        "progressive": {"progressive": True},
        "restarts": {"restart_marker_rows": 2},
        "tables": {"icc_profile": table_profile(b"RGB ", np.eye(8, 3), GAMMA_22, b"scnr")},
    }[how]
    Image.fromarray(detailed()).save(path, quality=92, **options)
    data, whole = path.read_bytes(), frame_of(path).codes[:]
    assert outcome(path, whole) == "same"
    start, rng = data.index(b"\xff\xda"), np.random.default_rng(0)
    ends = []
    for at in rng.integers(start + 20, len(data) - 500, 30).tolist():
        path.write_bytes(data[:at] + bytes(300) + data[at + 300 :])
        ends.append(outcome(path, whole))
    assert ends.count("silent") <= 1, ends
    assert ends.count("refused") >= 5


def test_a_jpeg_that_fills_the_gap_before_its_end_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(detailed()).save(path)
    data = path.read_bytes()
    for filling, notes in ((bytes(40), 0), (b"\xff" * 40, 0), (b"maker's own data" * 3, 1)):
        path.write_bytes(data[:-2] + filling + data[-2:])
        assert len(frame_of(path).notes) == notes


def test_a_doubled_chunk_of_a_png_is_an_error(tmp_path: Path) -> None:
    """Every checksum of a chunk is right, that of the pixels is not."""
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), detailed().astype(np.uint16) * 257)
    data = path.read_bytes()
    starts = [at for at in range(8, len(data)) if data[at + 4 : at + 8] == b"IDAT"]
    assert len(starts) > 3
    for start, end in pairwise(starts):
        path.write_bytes(data[:end] + data[start:end] + data[end:])
        with pytest.raises(InputError, match="ends early or is damaged"):
            frame_of(path)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("predictor", [False, True])
def test_the_checksum_of_a_deflated_tiff_counts(tmp_path: Path, dtype: type, predictor: bool) -> None:
    if dtype == np.float32 and predictor:
        pytest.skip("tifffile alone cannot write it")
    path = tmp_path / "a.tif"
    options = {"compression": "zlib", "predictor": predictor, "rowsperstrip": 32}
    tifffile.imwrite(path, detailed().astype(dtype), photometric="rgb", **options)
    data, rng = path.read_bytes(), np.random.default_rng(0)
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        strips = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    for _ in range(20):
        offset, count = strips[int(rng.integers(len(strips)))]
        at = int(rng.integers(offset + 2, offset + count))
        path.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        with pytest.raises(InputError, match="ends early or is damaged"):
            frame_of(path)


# --- orientation ----------------------------------------------------------------------------------


def stored(upright: np.ndarray, orientation: int) -> np.ndarray:
    """Return the picture as a camera stores it that was held so (Exif 2.32, 4.6.4.A)."""
    if orientation in (5, 6, 7, 8):
        upright = upright.swapaxes(0, 1)
    rows, columns = {
        1: (1, 1),
        2: (1, -1),
        3: (-1, -1),
        4: (-1, 1),
        5: (1, 1),
        6: (-1, 1),
        7: (-1, -1),
        8: (1, -1),
    }[orientation]
    return np.ascontiguousarray(upright[::rows, ::columns])


def write_turned(path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    tag = [(274, "H", 1, orientation, True)]
    picture = Image.fromarray(stored(CODES8, orientation))
    if path.suffix == ".jpg":
        picture.save(path, exif=exif, quality=98, subsampling=0)
    elif path.suffix == ".png":
        picture.save(path, exif=exif)
    elif path.suffix == ".heic":
        heif = pytest.importorskip("pillow_heif").from_pillow(picture)
        heif.save(path, exif=exif.tobytes(), quality=-1, chroma=444)
    elif path.suffix == ".dng":
        camera = Camera(bits=14)
        linear = srgb_decode(stored(CODES8, orientation) / 255).astype(np.float32)
        shot = Shot(path, exposure_time=1 / 60, iso=100.0, f_number=8.0, orientation=orientation)
        write_dng(path, record_mosaic(linear, camera, 100.0, None), shot, camera)
    elif path.stem == "lzw16":
        codes = stored(CODES16, orientation)
        cv2.imwrite(str(path), codes[..., ::-1], [cv2.IMWRITE_TIFF_COMPRESSION, 5])
        data = bytearray(path.read_bytes())
        with tifffile.TiffFile(path) as tiff:  # OpenCV writes no orientation: replace a tag of no meaning
            page = tiff.pages[0]
            assert "SampleFormat" in page.tags
            offset = page.tags["SampleFormat"].offset
        data[offset : offset + 12] = struct.pack("<HHII", 274, 3, 1, orientation)
        path.write_bytes(data)
    else:
        codes = {"u8": CODES8, "u16": CODES16, "f32": FLOATS}[path.stem]
        tifffile.imwrite(path, stored(codes, orientation), photometric="rgb", extratags=tag)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    "name", ["a.jpg", "a.png", "u8.tif", "u16.tif", "f32.tif", "lzw16.tif", "a.heic", "a.dng"]
)
def test_one_picture_in_eight_orientations(tmp_path: Path, name: str, orientation: int) -> None:
    path = tmp_path / name
    write_turned(path, orientation)
    shot = read_shot(path)
    frame = read_frame(shot)
    assert frame.codes.shape == (HEIGHT, WIDTH, 3)
    turned = shot.orientation >= 5
    assert (shot.width, shot.height) == ((HEIGHT, WIDTH) if turned else (WIDTH, HEIGHT))
    if path.suffix in (".heic", ".dng"):
        assert shot.orientation == 1
    light = frame.linear() @ frame.to_rec709.T
    truth = FLOATS if name == "f32.tif" else srgb_decode(SMOOTH)
    inner = np.s_[4:-4, 4:-4]  # demosaicing knows less at the edges
    assert np.abs(light - truth)[inner].max() < 0.02


# --- colour ---------------------------------------------------------------------------------------

PATCH = np.array([200, 120, 60])
"""A warm colour inside all the gamuts below."""


def patch(codes: np.ndarray = PATCH) -> Image.Image:
    return Image.fromarray(np.tile(codes.astype(np.uint8), (32, 32, 1)))


def profile_of(space: bytes, tags: dict[bytes, bytes], kind: bytes = b"mntr") -> bytes:
    """Assemble an ICC profile, version 2 (ICC.1:2001-04)."""
    description = b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(78)
    tags = {b"desc": description, b"wtpt": xyz_tag(D65), b"cprt": b"text" + bytes(4) + b"none\0", **tags}
    directory, data = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        directory += struct.pack(">4sII", name, start + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    header = struct.pack(">I4sI4s4s4s", start + len(data), b"", 0x02400000, kind, space, b"XYZ ")
    header += struct.pack(">6H4s28s3i", 2024, 1, 1, 0, 0, 0, b"acsp", b"", *(round(v * 65536) for v in D50))
    return header + bytes(128 - len(header)) + directory + data


def xyz_tag(xyz: np.ndarray | tuple[float, ...]) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(float(v) * 65536) for v in xyz))


def curve_tag(curve: np.ndarray) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">I", len(curve)) + np.rint(curve * 65535).astype(">u2").tobytes()


SRGB_CURVE = srgb_decode(np.linspace(0, 1, 1024))
GAMMA_22 = np.linspace(0, 1, 1024) ** (563 / 256)


def matrix_profile(chromaticities: tuple[float, ...], curve: np.ndarray) -> bytes:
    colorants = adaptation(D65, D50) @ rgb_to_xyz(chromaticities)
    tags = {name: xyz_tag(colorants[:, i]) for i, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))}
    return profile_of(b"RGB ", tags | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve_tag(curve)))


def table_profile(space: bytes, corners: np.ndarray, curve: np.ndarray, kind: bytes) -> bytes:
    """A profile of tables ('mft2'): XYZ at the corners of the cube of inks or lights, last varies fastest."""
    inputs = len(corners).bit_length() - 1
    table = b"mft2" + bytes(4) + bytes([inputs, 3, 2, 0])
    table += struct.pack(">9i", *(np.eye(3).ravel() * 65536).astype(int))
    table += struct.pack(">HH", len(curve), 2) + np.rint(curve * 65535).astype(">u2").tobytes() * inputs
    table += np.rint(corners * 32768).astype(">u2").tobytes() + struct.pack(">2H", 0, 65535) * 3
    return profile_of(space, {b"A2B0": table}, kind)


ADOBE_TO_REC709 = np.array([[1.3984, -0.3984, 0.0], [0.0, 1.0, 0.0], [0.0, -0.0429, 1.0429]])
P3_TO_REC709 = np.array([[1.2249, -0.2249, 0.0], [-0.0420, 1.0420, 0.0], [-0.0196, -0.0786, 1.0983]])
"""Published matrices of linear light (Lindbloom; Apple and W3C, "Display P3")."""


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", "16.tif", ".heic"])
@pytest.mark.parametrize(
    ("icc", "matrix", "curve"),
    [
        (matrix_profile(ADOBE_RGB_CHROMATICITIES, GAMMA_22), ADOBE_TO_REC709, lambda c: c ** (563 / 256)),
        (matrix_profile(P3_CHROMATICITIES, SRGB_CURVE), P3_TO_REC709, srgb_decode),
        (ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), np.eye(3), srgb_decode),
        (matrix_profile(REC709_CHROMATICITIES, np.linspace(0, 1, 2)), np.eye(3), lambda c: c),
        (b"no profile at all" * 20, np.eye(3), srgb_decode),
    ],
    ids=["Adobe RGB", "Display P3", "sRGB", "linear", "damaged"],
)
def test_profiles_are_converted(
    tmp_path: Path, suffix: str, icc: bytes, matrix: np.ndarray, curve: object
) -> None:
    path = tmp_path / f"a{suffix}"
    if suffix == ".heic":
        heif = pytest.importorskip("pillow_heif").from_pillow(patch())
        heif.save(path, quality=-1, chroma=444, icc_profile=icc)
    elif suffix == "16.tif":
        tifffile.imwrite(path, np.asarray(patch()).astype(np.uint16) * 257, photometric="rgb", iccprofile=icc)
    else:
        patch().save(
            path, icc_profile=icc, **({"quality": 100, "subsampling": 0} if suffix == ".jpg" else {})
        )
    frame = frame_of(path)
    light = np.median((frame.linear() @ frame.to_rec709.T).reshape(-1, 3), axis=0)
    stored_code = np.median(frame.codes[:].reshape(-1, 3), axis=0) / np.iinfo(frame.codes.dtype).max
    assert stored_code == pytest.approx(PATCH / 255, abs=1.5 / 255)
    assert light == pytest.approx(matrix @ curve(stored_code), rel=0.01, abs=0.001)


def test_the_response_by_hand_replaces_the_curve_and_keeps_the_primaries(tmp_path: Path) -> None:
    patch().save(tmp_path / "a.png", icc_profile=matrix_profile(P3_CHROMATICITIES, SRGB_CURVE))
    frame = frame_of(tmp_path / "a.png", response=Response.named("linear"))
    assert frame.linear()[0, 0] == pytest.approx(PATCH / 255)
    assert frame.to_rec709 == pytest.approx(P3_TO_REC709, abs=0.002)


def test_grey_profiles(tmp_path: Path) -> None:
    icc = profile_of(b"GRAY", {b"kTRC": curve_tag(np.linspace(0, 1, 1024) ** 1.8)})
    Image.fromarray(np.full((32, 32), 128, np.uint8)).save(tmp_path / "a.jpg", icc_profile=icc)
    frame = frame_of(tmp_path / "a.jpg")
    light = (frame.linear() @ frame.to_rec709.T)[8, 8]
    assert light == pytest.approx([(128 / 255) ** 1.8] * 3, rel=0.01)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_profiles_of_tables(tmp_path: Path, suffix: str) -> None:
    """A table that says what Adobe RGB's matrix says gives the same colour through littlecms."""
    cube = np.stack(np.meshgrid([0, 1], [0, 1], [0, 1], indexing="ij"), axis=-1).reshape(-1, 3)
    corners = cube @ (adaptation(D65, D50) @ rgb_to_xyz(ADOBE_RGB_CHROMATICITIES)).T
    icc = table_profile(b"RGB ", corners, GAMMA_22, b"scnr")
    options = {"quality": 100, "subsampling": 0} if suffix == ".jpg" else {}
    patch().save(tmp_path / f"a{suffix}", icc_profile=icc, **options)
    light = frame_of(tmp_path / f"a{suffix}").linear()[8, 8]
    # Half a code of 8 bits is 0.002 in the dark.
    assert light == pytest.approx(ADOBE_TO_REC709 @ (PATCH / 255) ** (563 / 256), rel=0.01, abs=0.002)


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk(tmp_path: Path, suffix: str) -> None:
    """Ideal inks: cyan takes away red, and so on, in linear light."""
    cube = np.stack(np.meshgrid(*[[0, 1]] * 4, indexing="ij"), axis=-1).reshape(-1, 4)
    lights = (1 - cube[:, :3]) * (1 - cube[:, 3:])
    corners = lights @ (adaptation(D65, D50) @ rgb_to_xyz(REC709_CHROMATICITIES)).T
    icc = table_profile(b"CMYK", corners, np.linspace(0, 1, 2), b"prtr")
    inks = np.zeros((32, 32, 4), np.uint8)
    inks[..., 0] = 102  # 40 % cyan
    options = {"quality": 100} if suffix == ".jpg" else {}
    Image.fromarray(inks, "CMYK").save(tmp_path / f"a{suffix}", icc_profile=icc, **options)
    assert frame_of(tmp_path / f"a{suffix}").linear()[8, 8] == pytest.approx([0.6, 1.0, 1.0], abs=0.012)
    Image.fromarray(inks, "CMYK").save(tmp_path / f"b{suffix}", **options)
    plain = frame_of(tmp_path / f"b{suffix}").codes[:][8, 8]
    assert plain == pytest.approx([153, 255, 255], abs=2)


def test_adobe_rgb_by_name_alone(tmp_path: Path) -> None:
    """DCF cameras write no profile, but the interoperability index R03."""
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ColorSpace] = 0xFFFF
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.IFD.Interop] = {1: "R03"}
    patch().save(tmp_path / "a.jpg", exif=exif, quality=100, subsampling=0)
    frame = frame_of(tmp_path / "a.jpg")
    light = (frame.linear() @ frame.to_rec709.T)[8, 8]
    assert light == pytest.approx(ADOBE_TO_REC709 @ (frame.codes[:][8, 8] / 255) ** (563 / 256), rel=0.01)
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.IFD.Interop] = {1: "R98"}
    patch().save(tmp_path / "b.jpg", exif=exif, quality=100, subsampling=0)
    assert np.array_equal(frame_of(tmp_path / "b.jpg").to_rec709, np.eye(3))


def heic_with_nclx(path: Path, primaries: int, transfer: int) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.from_pillow(patch()).save(path, quality=-1, chroma=444)
    data = bytearray(path.read_bytes())
    at = data.index(b"nclx") + 4
    data[at : at + 4] = struct.pack(">HH", primaries, transfer)
    path.write_bytes(data)


def test_heic_says_its_colours_in_numbers(tmp_path: Path) -> None:
    heic_with_nclx(tmp_path / "p3.heic", 12, 13)  # ITU-T H.273: SMPTE EG 432-1, sRGB
    assert frame_of(tmp_path / "p3.heic").to_rec709 == pytest.approx(P3_TO_REC709, abs=0.002)
    for transfer in (16, 18):
        heic_with_nclx(tmp_path / "hdr.heic", 9, transfer)
        with pytest.raises(InputError, match="PQ or HLG"):
            frame_of(tmp_path / "hdr.heic")


# --- noise, hot pixels, memory --------------------------------------------------------------------


def test_noise_grows_with_iso_and_coarser_codes(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    patch().save(path)
    shot = read_shot(path)
    noise = {iso: read_frame(replace(shot, iso=iso)).noise for iso in (100.0, 1600.0)}
    assert noise[1600.0].photon > 5 * noise[100.0].photon
    cv2.imwrite(str(path), np.asarray(patch()).astype(np.uint16) * 257)
    assert read_frame(read_shot(path)).noise.read < 0.9 * noise[100.0].read


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("row", [0, 7, 63, 64, 65, 127, 139])
def test_hot_pixels_of_long_exposures(tmp_path: Path, dtype: type, row: int) -> None:
    scale = 257 if dtype == np.uint16 else 1
    codes = np.full((140, 40, 3), 20 * scale, dtype)
    codes[row, 10] = (20 * scale, 220 * scale, 20 * scale)  # one hot green photosite
    codes[row // 2 : row // 2 + 2, 30] = 230 * scale  # a star, sharper than it can be
    cv2.imwrite(str(tmp_path / "a.png"), codes[..., ::-1])
    shot = read_shot(tmp_path / "a.png")
    cleaned = codes.copy()
    cleaned[row, 10] = 20 * scale
    assert np.array_equal(read_frame(replace(shot, exposure_time=2.0)).codes[:], cleaned)
    assert np.array_equal(read_frame(replace(shot, exposure_time=1 / 60)).codes[:], codes)


@pytest.mark.parametrize("codes", [CODES8, CODES16, FLOATS])
def test_spooled_codes_are_the_same(codes: np.ndarray) -> None:
    spooled = SpooledCodes(codes)
    assert (spooled.shape, spooled.dtype) == (codes.shape, codes.dtype)
    for rows in (slice(None), slice(0, 1), slice(7, 31), slice(40, 999), slice(30, 30), slice(-5, None)):
        assert np.array_equal(spooled[rows], codes[rows])


def test_a_spooled_frame_is_the_same_and_closes_its_file(tmp_path: Path) -> None:
    patch().save(tmp_path / "a.png")
    shot = read_shot(tmp_path / "a.png")
    frame = read_frame(shot, spool_beyond=0)
    assert isinstance(frame.codes, SpooledCodes)
    assert np.array_equal(frame.linear(3, 9), read_frame(shot).linear(3, 9))
    file = frame.codes._file
    del frame
    gc.collect()
    assert file.closed


def test_no_room_for_spooled_codes_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.BytesIO):
        def write(self, _: object) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(read.tempfile, "TemporaryFile", Full)
    with pytest.raises(OutputError, match=r"No space left on device.*TMPDIR"):
        SpooledCodes(CODES8)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".heic"])
def test_bytes_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    """Not by every library anew: from a slow card or a network that is what takes the time."""

    @contextmanager
    def opened_and_removed(path: Path) -> Iterator[BinaryIO]:
        with path.open("rb") as file:
            path.unlink()
            yield file

    path = tmp_path / f"a{suffix}"
    write_turned(path if suffix != ".tif" else tmp_path / "u16.tif", 6)
    shot = read_shot(path if suffix != ".tif" else tmp_path / "u16.tif")
    monkeypatch.setattr(read, "opened", opened_and_removed)
    assert read_frame(shot).codes.shape == (HEIGHT, WIDTH, 3)
    assert not shot.path.exists()
