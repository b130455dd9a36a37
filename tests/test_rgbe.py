"""Shared-exponent pixels and their run lengths: worked bytes, precision, every width."""

from __future__ import annotations

import numpy as np
import pytest

from hdrmerge import rgbe


@pytest.mark.parametrize(
    ("pixel", "code"),
    [
        ((1.0, 0.5, 0.25), (128, 64, 32, 129)),
        ((0.0, 0.0, 0.0), (0, 0, 0, 0)),
        ((-1.0, 1.0, 0.0), (0, 128, 0, 129)),
        ((0.999, 0.0, 0.0), (128, 0, 0, 129)),  # 255.7 of 256 rounds up and takes the next exponent
        ((0.994, 0.0019, 0.0021), (254, 0, 1, 128)),  # 254.46, 0.49, 0.54 are rounded, not cut off
        ((1e-33, 0.0, 0.0), (0, 0, 0, 0)),
        ((rgbe.LARGEST, 0.0, 0.0), (255, 0, 0, 255)),
    ],
)
def test_worked_pixels(pixel: tuple[float, ...], code: tuple[int, ...]) -> None:
    assert tuple(rgbe.encode(np.array([[pixel]], dtype=np.float32))) == code


def test_worked_run_lengths() -> None:
    """Ten pixels: red changes once, green always, blue and exponent never."""
    row = np.ones((1, 10, 3), dtype=np.float32)
    row[0, :, 0] = [0.25] * 6 + [0.5] * 4
    row[0, :, 1] = np.arange(10) / 128
    expected = [2, 2, 0, 10]
    expected += [128 + 6, 32, 128 + 4, 64]
    expected += [10, *range(10)]
    expected += [128 + 10, 128]
    expected += [128 + 10, 129]
    assert list(rgbe.encode(row)) == expected


@pytest.mark.parametrize(
    "size", [(1, 1), (3, 7), (5, 8), (7, 5), (37, 53), (2, 127), (2, 129), (2, 1000), (1, 33000)]
)
@pytest.mark.parametrize("kind", ["flat", "noise", "steps"])
def test_decode_undoes_encode_within_half_a_step(size: tuple[int, int], kind: str) -> None:
    rng = np.random.default_rng(0)
    rows = np.full((*size, 3), 0.7, dtype=np.float32)
    if kind == "noise":
        rows = np.exp(rng.uniform(-12, 12, rows.shape)).astype(np.float32)
    elif kind == "steps":
        rows[:] = np.repeat(rng.uniform(0.1, 9, size[0] * size[1]), rng.integers(1, 9, size[0] * size[1]))[
            : size[0] * size[1]
        ].reshape(*size, 1)
    decoded = rgbe.decode(rgbe.encode(rows), *size)
    error = np.abs(decoded - rows).max(axis=2) / rows.max(axis=2)
    assert error.max() <= 0.5 / 127.5
    if kind == "noise" and rows.size > 5000:
        assert abs(np.mean((decoded - rows) / rows.max(axis=2, keepdims=True))) < 1e-4  # no bias


def test_run_lengths_save_space() -> None:
    assert len(rgbe.encode(np.ones((1, 1270, 3), dtype=np.float32))) == 4 + 4 * 10 * 2
    noise = np.random.default_rng(0).uniform(0.5, 0.9, (1, 1280, 3)).astype(np.float32)
    assert len(rgbe.encode(noise)) < 4 + 3 * (1280 + 20) + 25


@pytest.mark.parametrize("width", [5, 20, 300])
def test_a_code_that_ends_early_is_refused(width: int) -> None:
    code = rgbe.encode(np.random.default_rng(0).uniform(0, 9, (6, width, 3)).astype(np.float32))
    for length in (0, 3, len(code) // 2, len(code) - 1):
        with pytest.raises(ValueError, match="ends early"):
            rgbe.decode(code[:length], 6, width)


def test_a_damaged_code_is_refused() -> None:
    code = bytearray(rgbe.encode(np.ones((2, 20, 3), dtype=np.float32)))
    code[4] = 128 + 21  # a run beyond the scanline
    with pytest.raises(ValueError, match="damaged"):
        rgbe.decode(bytes(code), 2, 20)


def test_old_flat_files_are_read() -> None:
    flat = bytes((128, 64, 32, 129)) * 20
    assert rgbe.decode(flat, 2, 10)[1, 9].tolist() == [1.0, 0.5, 0.25]
