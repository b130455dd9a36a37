"""Primaries, profiles, camera matrices: against published numbers and against Little CMS."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from hdrmerge import colour
from hdrmerge.colour import ADOBE_RGB, SRGB, camera_to_rec709, primaries_to_rec709, read_profile
from hdrmerge.exposure import srgb_decode

P3 = (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, 0.3127, 0.3290)
PROPHOTO = (0.734699, 0.265301, 0.159597, 0.840403, 0.036598, 0.000105, 0.345704, 0.358540)
SRGB_PARAMETERS = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)

# The 26 points of the tiny sRGB profile ("c2") that web services embed.
C2 = """0000 00cb 01c9 0363 0592 086b 0bf6 103f 1551 1b34 21f1 2990 3218 3b92 4605 5177 5ded 6b70 7a05 89b1
        9a7c ac69 bf7d d3c3 e930 ffff"""


def s15(*values: float) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(v * 65536) for v in values))


def curv(*values: int) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(f">I{len(values)}H", len(values), *values)


def para(kind: int, *parameters: float) -> bytes:
    return b"para\0\0\0\0" + struct.pack(">HH", kind, 0) + s15(*parameters)


def mluc(name: str) -> bytes:
    data = name.encode("utf-16-be")
    return b"mluc\0\0\0\0" + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(data), 28) + data


def profile(
    tags: dict[bytes, bytes], space: bytes = b"RGB ", connection: bytes = b"XYZ ", version: int = 4
) -> bytes:
    """Build an ICC profile of the given tags; independent of the builder under test."""
    header = bytearray(128)
    header[8], header[12:16], header[16:20], header[20:24] = version, b"mntr", space, connection
    header[36:40], header[68:80] = b"acsp", s15(*colour.D50)
    directory, data = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        directory += struct.pack(">4sII", name, 132 + 12 * len(tags) + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    header[:4] = struct.pack(">I", 128 + len(directory) + len(data))
    return bytes(header) + directory + data


def rgb_profile(chromaticities: tuple[float, ...], curve: bytes, name: str = "made") -> bytes:
    white = colour.white_xyz(*chromaticities[6:])
    columns = colour.adaptation(white, colour.D50) @ colour.rgb_to_xyz(chromaticities)
    tags = {b"desc": mluc(name), b"cprt": mluc("free"), b"wtpt": b"XYZ \0\0\0\0" + s15(*colour.D50)}
    for c, letter in enumerate("rgb"):
        tags[f"{letter}XYZ".encode()] = b"XYZ \0\0\0\0" + s15(*columns[:, c])
        tags[f"{letter}TRC".encode()] = curve
    return profile(tags)


def little_cms(icc: bytes, codes: np.ndarray) -> np.ndarray:
    """Return sRGB codes (n, 3) that Little CMS makes of 8-bit ``codes`` in the profile's space."""
    transform = ImageCms.buildTransform(
        ImageCms.ImageCmsProfile(io.BytesIO(icc)), ImageCms.createProfile("sRGB"), "RGB", "RGB"
    )
    return np.asarray(ImageCms.applyTransform(Image.fromarray(codes[None]), transform))[0]


def test_rec709_matrix_has_the_published_numbers() -> None:
    published = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    assert np.abs(colour.XYZ_FROM_REC709 - published).max() < 6e-5


def test_bradford_has_the_published_numbers() -> None:
    published = [
        [1.0479298, 0.0229468, -0.0501922],
        [0.0296278, 0.9904345, -0.0170738],
        [-0.0092430, 0.0150552, 0.7518743],
    ]
    assert np.abs(colour.D50_FROM_D65 - published).max() < 3e-4  # their whites have a digit more
    assert np.abs(colour.D65_FROM_D50 @ colour.D50 - colour.D65).max() < 1e-12


@pytest.mark.parametrize(
    ("chromaticities", "published"),
    [
        (P3, [[1.2249, -0.2247, 0.0], [-0.0420, 1.0419, 0.0], [-0.0197, -0.0786, 1.0979]]),
        (PROPHOTO, [[2.0343, -0.7275, -0.3067], [-0.2288, 1.2317, -0.0029], [-0.0086, -0.1533, 1.1619]]),
    ],
)
def test_primaries_have_the_published_matrices(
    chromaticities: tuple[float, ...], published: list[list[float]]
) -> None:
    matrix = primaries_to_rec709(chromaticities)
    assert matrix == pytest.approx(np.array(published), abs=6e-4)
    assert matrix.sum(axis=1) == pytest.approx(np.ones(3), abs=1e-6)


def test_rec709_primaries_are_the_identity() -> None:
    assert primaries_to_rec709(colour.REC709_CHROMATICITIES) == pytest.approx(np.eye(3), abs=1e-7)


@pytest.mark.parametrize(
    "icc",
    [
        colour.srgb_profile(),
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        rgb_profile(colour.REC709_CHROMATICITIES, para(3, *SRGB_PARAMETERS)),
        rgb_profile(colour.REC709_CHROMATICITIES, curv(*(int(v, 16) for v in C2.split()))),
        rgb_profile(
            colour.REC709_CHROMATICITIES,
            curv(*np.rint(srgb_decode(np.linspace(0, 1, 1024)) * 65535).astype(int).tolist()),
        ),
    ],
    ids=["own", "little cms", "parametric", "c2", "1024 points"],
)
def test_srgb_profiles_are_exactly_srgb(icc: bytes) -> None:
    found = read_profile(icc)
    assert found is not None
    assert found.response is SRGB.response
    assert found.to_rec709 is SRGB.to_rec709


def test_a_pure_gamma_is_not_taken_for_srgb() -> None:
    found = read_profile(rgb_profile(colour.REC709_CHROMATICITIES, curv(round(2.2 * 256))))
    assert found is not None
    assert found.to_rec709 is SRGB.to_rec709
    middle = found.response.table[len(found.response.table) // 2, 0]
    assert middle == pytest.approx(0.5 ** (563 / 256), abs=1e-6)


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        (curv(), lambda x: x),
        (curv(round(1.8 * 256)), lambda x: x ** (461 / 256)),
        (curv(0, 16384, 65535), lambda x: np.interp(x, [0, 0.5, 1], [0, 16384 / 65535, 1])),
        (para(0, 1.8), lambda x: x**1.8),
        (para(1, 2.0, 1.25, -0.25), lambda x: np.where(x >= 0.2, (1.25 * x - 0.25) ** 2, 0.0)),
        (para(2, 2.0, 1.0, -0.2, 0.1), lambda x: np.where(x >= 0.2, (x - 0.2) ** 2, 0.0) + 0.1),
        (para(3, 1.8, 1.0, 0.0, 1 / 16, 1 / 32), lambda x: np.where(x >= 1 / 32, x**1.8, x / 16)),
        (
            para(4, 2.0, 0.9, 0.0, 0.5, 0.1, 0.19, 0.02),
            lambda x: np.where(x >= 0.1, (0.9 * x) ** 2 + 0.19, x / 2 + 0.02),
        ),
    ],
    ids=["identity", "gamma", "table", "para 0", "para 1", "para 2", "para 3", "para 4"],
)
def test_all_curve_types_are_evaluated(curve: bytes, expected: object) -> None:
    found = read_profile(rgb_profile(P3, curve))
    assert found is not None
    code = np.linspace(0.0, 1.0, len(found.response.table))
    assert found.response.table[:, 1] == pytest.approx(np.clip(expected(code), 0, 1), abs=5e-5)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("chromaticities", "curve"),
    [
        (P3, para(3, *SRGB_PARAMETERS)),
        (colour.ADOBE_RGB_CHROMATICITIES, curv(563)),
        (PROPHOTO, para(3, 1.8, 1.0, 0.0, 1 / 16, 1 / 32)),
        (P3, para(4, 2.2, 0.95, 0.05, 0.3, 0.1, 0.0, 0.0)),
    ],
    ids=["Display P3", "Adobe RGB", "ProPhoto", "para 4"],
)
def test_profiles_mean_what_little_cms_makes_of_them(chromaticities: tuple[float, ...], curve: bytes) -> None:
    """Colours that sRGB can hold agree within the last 8-bit step of two roundings."""
    icc = rgb_profile(chromaticities, curve)
    found = read_profile(icc)
    assert found is not None
    codes = np.random.default_rng(1).integers(100, 180, (500, 3)).astype(np.uint8)
    linear = found.response.decode(codes[None])[0] @ found.to_rec709.T
    inside = ((linear > 0.0) & (linear < 1.0)).all(axis=1)
    assert inside.sum() > 100
    ours = SRGB.response.encode(linear[inside]) * 255
    assert np.abs(ours - little_cms(icc, codes)[inside]).max() < 1.5


def test_adobe_rgb_equals_its_profile() -> None:
    found = read_profile(rgb_profile(colour.ADOBE_RGB_CHROMATICITIES, curv(563), name="Ädobe"))
    assert found is not None
    assert found.name == "Ädobe"
    assert found.to_rec709 == pytest.approx(ADOBE_RGB.to_rec709, abs=2e-4)
    assert found.response.table == pytest.approx(ADOBE_RGB.response.table, abs=1e-6)
    assert ADOBE_RGB.to_rec709 == pytest.approx(
        np.array([[1.39836, -0.39836, 0], [0, 1, 0], [0, -0.04293, 1.04293]]), abs=2e-5
    )


def test_grey_profiles_have_a_curve_and_no_matrix() -> None:
    found = read_profile(profile({b"desc": mluc("Dot gain"), b"kTRC": curv(450)}, space=b"GRAY"))
    assert found is not None
    assert found.to_rec709 is SRGB.to_rec709
    assert found.response.table[2048] == pytest.approx(np.full(3, 0.5 ** (450 / 256)), abs=1e-6)


@pytest.mark.parametrize(
    "icc",
    [
        profile({b"A2B0": b"mft2"}, space=b"CMYK", connection=b"Lab "),
        profile({b"A2B0": b"mAB "}, connection=b"Lab "),
        ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes(),
    ],
    ids=["CMYK", "RGB tables", "Lab"],
)
def test_profiles_of_other_kinds_are_left_to_the_caller(icc: bytes) -> None:
    assert read_profile(icc) is None


def test_a_table_takes_precedence_over_the_matrix() -> None:
    icc = rgb_profile(P3, curv(563))
    assert read_profile(icc) is not None
    assert read_profile(icc.replace(b"cprt", b"A2B0")) is None


GOOD = rgb_profile(P3, curv(0, 100, 65535))


@pytest.mark.parametrize(
    "icc",
    [
        b"",
        b"not a profile" * 20,
        GOOD[:200],
        GOOD[:-8],
        GOOD.replace(b"gXYZ", b"xxxx"),
        GOOD.replace(b"curv", b"vruc"),
        GOOD.replace(curv(0, 100, 65535), curv(0, 100, 65535).replace(b"\0\0\0\3", b"\0\0\7\3")),
        rgb_profile(P3, para(7, 1.0)),
        rgb_profile(P3, para(4, 1.0)),
        GOOD[:132] + b"\xff" * (len(GOOD) - 132),
    ],
)
def test_damaged_profiles_are_refused(icc: bytes) -> None:
    with pytest.raises(ValueError, match="ICC profile"):
        read_profile(icc)


def test_own_srgb_profile_changes_no_code_in_little_cms() -> None:
    codes = np.random.default_rng(0).integers(0, 256, (2000, 3)).astype(np.uint8)
    converted = little_cms(colour.srgb_profile(), codes)
    assert np.abs(converted.astype(int) - codes).max() <= 1
    assert len(colour.srgb_profile()) < 1000


def test_own_linear_profile_is_linear_in_little_cms() -> None:
    codes = np.random.default_rng(0).integers(20, 256, (2000, 3)).astype(np.uint8)
    converted = little_cms(colour.linear_profile(), codes)
    assert np.abs(converted - SRGB.response.encode(codes.astype(np.float32) / 255) * 255).max() < 1.1
    found = read_profile(colour.linear_profile())
    assert found is not None
    assert found.name == "Linear Rec. 709"
    assert found.response.is_linear
    assert found.to_rec709 is SRGB.to_rec709


# XYZ (D65) to camera RGB of the Nikon D1 as dcraw lists it, times 10000.
NIKON_D1 = np.array([[7702, -2245, -975], [-9114, 17242, 1875], [-2679, 3055, 8521]]) / 10000


def test_camera_matrix_worked_number() -> None:
    """A camera that mixes Rec. 709 by known shares, each channel of another sensitivity, is undone."""
    shares = np.array([[0.8, 0.2, 0.0], [0.1, 0.8, 0.1], [0.0, 0.3, 0.7]])  # determinant 0.41
    sensitivity = np.diag([2.0, 3.0, 0.5])
    matrix = camera_to_rec709(sensitivity @ shares @ colour.REC709_FROM_XYZ, np.ones(3))
    assert matrix[0] == pytest.approx(np.array([0.53, -0.14, 0.02]) / 0.41, abs=1e-6)
    assert matrix @ shares == pytest.approx(np.eye(3), abs=1e-6)


def test_camera_neutral_stays_neutral_and_saturation_stays_at_one() -> None:
    balance = np.array([4.2, 2.0, 3.0])
    matrix = camera_to_rec709(NIKON_D1, balance)
    neutral = 0.3 / balance  # what the sensor records of a grey card
    assert matrix @ neutral == pytest.approx(np.full(3, 0.15), abs=1e-6)  # green, gain 1, decides
    assert matrix @ np.ones(3) == pytest.approx(
        camera_to_rec709(NIKON_D1, np.ones(3)) @ (balance / 2.0), abs=1e-5
    )


@pytest.mark.parametrize("matrix", [np.zeros((3, 3)), np.ones((3, 3))])
def test_a_camera_without_a_matrix_gets_its_white_balance_alone(matrix: np.ndarray) -> None:
    assert camera_to_rec709(matrix, np.array([2.0, 1.0, 1.5])).tolist() == np.diag([2.0, 1.0, 1.5]).tolist()
