"""Ways to spoil a photograph's bytes, for `fuzz.py`: what cards, cables, programs and bad luck do.

A mutation takes the bytes, what is known of their layout and a random generator, and returns other
bytes and the ranges of the old ones that it touched; None where it does not apply to the format.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import numpy as np
from fuzz_layout import Entry, Layout, Range

Spoilt = tuple[bytes, list[Range]]
Mutation = Callable[[bytes, "Layout", np.random.Generator], "Spoilt | None"]

EXPOSURE_TAGS = {33434: "time", 33437: "f-number", 34855: "ISO", 274: "orientation", 36867: "taken"}


# --- pieces of files ------------------------------------------------------------------------------


def _healed(data: bytearray, layout: Layout, where: int) -> None:
    """Set the checksum of the PNG chunk around ``where`` right again."""
    for start, end in layout.parts:
        if layout.kind == "png" and start <= where < end:
            data[end - 4 : end] = struct.pack(">I", zlib.crc32(data[start + 4 : end - 4]))


def _spliced(data: bytes, start: int, end: int, new: bytes) -> bytes:
    return data[:start] + new + data[end:]


def _stretch(data: bytes, rng: np.random.Generator, longest: int = 2048) -> Range:
    length = int(2 ** rng.uniform(0, np.log2(longest)))
    start = int(rng.integers(max(len(data) - length, 1)))
    return start, min(start + length, len(data))


# --- anywhere -------------------------------------------------------------------------------------


def _flipped(data: bytes, start: int, end: int, rng: np.random.Generator, count: int) -> Spoilt:
    changed, ranges = bytearray(data), []
    for at in rng.integers(start, end, count).tolist():
        changed[at] ^= 1 << int(rng.integers(8))
        ranges.append((at, at + 1))
    return bytes(changed), ranges


def bit(data: bytes, layout: Layout, rng: np.random.Generator) -> Spoilt:
    return _flipped(data, 0, len(data), rng, 1)


def bits(data: bytes, layout: Layout, rng: np.random.Generator) -> Spoilt:
    return _flipped(data, 0, len(data), rng, int(rng.integers(2, 33)))


def bits_of_header(data: bytes, layout: Layout, rng: np.random.Generator) -> Spoilt:
    return _flipped(data, *layout.header(data), rng, int(rng.integers(1, 4)))


def byte_of_header(data: bytes, layout: Layout, rng: np.random.Generator) -> Spoilt:
    """A byte of the header becomes an extreme one."""
    at = int(rng.integers(*layout.header(data)))
    return _spliced(data, at, at + 1, bytes([int(rng.choice([0, 1, 127, 128, 255]))])), [(at, at + 1)]


def zeros(data: bytes, layout: Layout, rng: np.random.Generator) -> Spoilt:
    start, end = _stretch(data, rng, 8192)
    return _spliced(data, start, end, bytes(end - start)), [(start, end)]


def ones(data: bytes, layout: Layout, rng: np.random.Generator) -> Spoilt:
    """What erased flash memory reads."""
    start, end = _stretch(data, rng, 8192)
    return _spliced(data, start, end, b"\xff" * (end - start)), [(start, end)]


def noise(data: bytes, layout: Layout, rng: np.random.Generator) -> Spoilt:
    start, end = _stretch(data, rng)
    return _spliced(data, start, end, rng.bytes(end - start)), [(start, end)]


def swapped_sectors(data: bytes, layout: Layout, rng: np.random.Generator) -> Spoilt:
    """Two sectors of 512 bytes change places."""
    a, b = sorted(rng.integers(0, max(len(data) // 512, 1), 2).tolist())
    first, second = data[a * 512 : a * 512 + 512], data[b * 512 : b * 512 + 512]
    changed = bytearray(data)
    changed[a * 512 : a * 512 + len(first)] = second[: len(first)].ljust(len(first), b"\0")
    changed[b * 512 : b * 512 + len(second)] = first[: len(second)]
    return bytes(changed), [(a * 512, a * 512 + 512), (b * 512, b * 512 + 512)]


def truncated(data: bytes, layout: Layout, rng: np.random.Generator) -> Spoilt:
    end = int(rng.integers(len(data)))
    return data[:end], [(end, len(data))]


def truncated_at_the_end(data: bytes, layout: Layout, rng: np.random.Generator) -> Spoilt:
    end = len(data) - int(rng.integers(1, 65))
    return data[:end], [(end, len(data))]


def removed(data: bytes, layout: Layout, rng: np.random.Generator) -> Spoilt:
    start, end = _stretch(data, rng)
    return _spliced(data, start, end, b""), [(start, end)]


def inserted(data: bytes, layout: Layout, rng: np.random.Generator) -> Spoilt:
    at = int(rng.integers(len(data)))
    return _spliced(data, at, at, rng.bytes(int(rng.integers(1, 600)))), [(at, at)]


def doubled(data: bytes, layout: Layout, rng: np.random.Generator) -> Spoilt:
    start, end = _stretch(data, rng)
    return _spliced(data, end, end, data[start:end]), [(end, end)]


def garbage_behind(data: bytes, layout: Layout, rng: np.random.Generator) -> Spoilt:
    return data + rng.bytes(int(rng.integers(1, 5000))), []


def followed_by_itself(data: bytes, layout: Layout, rng: np.random.Generator) -> Spoilt:
    return data + data, []


def head_of_one_tail_of_another(data: bytes, layout: Layout, rng: np.random.Generator) -> Spoilt:
    """Two copies joined at the wrong place, as after a bad recovery."""
    end, start = rng.integers(len(data), size=2).tolist()
    return data[:end] + data[start:], [(end, end), (start, start)]


# --- segments and chunks --------------------------------------------------------------------------


def _part(layout: Layout, rng: np.random.Generator) -> Range | None:
    return layout.parts[int(rng.integers(len(layout.parts)))] if layout.parts else None


def part_removed(data: bytes, layout: Layout, rng: np.random.Generator) -> Spoilt | None:
    part = _part(layout, rng)
    return part and (_spliced(data, *part, b""), [part])


def part_doubled(data: bytes, layout: Layout, rng: np.random.Generator) -> Spoilt | None:
    part = _part(layout, rng)
    return part and (_spliced(data, part[1], part[1], data[slice(*part)]), [part])


def parts_swapped(data: bytes, layout: Layout, rng: np.random.Generator) -> Spoilt | None:
    if len(layout.parts) < 2:
        return None
    picked = sorted(rng.choice(len(layout.parts), 2, replace=False).tolist())
    (a, b), (c, d) = (layout.parts[i] for i in picked)
    return data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:], [(a, b), (c, d)]


def part_size_wrong(data: bytes, layout: Layout, rng: np.random.Generator) -> Spoilt | None:
    part = _part(layout, rng)
    if part is None:
        return None
    at, width = (part[0] + 2, 2) if layout.kind == "jpeg" else (part[0], 4)
    size = int(rng.choice([0, 1, 2, 3, 7, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1]))
    return _spliced(data, at, at + width, (size % 256**width).to_bytes(width, "big")), [(at, at + width)]


def part_garbled(data: bytes, layout: Layout, rng: np.random.Generator) -> Spoilt | None:
    """Bytes inside a segment or chunk change, its checksum is right: a program's mistake."""
    part = _part(layout, rng)
    if part is None or part[1] - part[0] < 13:
        return None
    changed = bytearray(data)
    at = int(rng.integers(part[0] + 8 if layout.kind == "png" else part[0] + 4, part[1] - 4))
    changed[at] = int(rng.choice([0, 1, 127, 128, 255, changed[at] ^ 1, changed[at] ^ 16]))
    _healed(changed, layout, at)
    return bytes(changed), [(at, at + 1)]


def size_of_picture(data: bytes, layout: Layout, rng: np.random.Generator) -> Spoilt | None:
    """The header announces another width or height."""
    size = int(rng.choice([0, 1, 191, 193, 289, 30_000, 65_535, 2**31 - 1, 2**32 - 1]))
    changed = bytearray(data)
    if layout.kind == "jpeg":
        start = next(a for a, _ in layout.parts if data[a + 1] in (0xC0, 0xC1, 0xC2))
        at = start + 5 + 2 * int(rng.integers(2))
        changed[at : at + 2] = (size % 65536).to_bytes(2, "big")
        return bytes(changed), [(at, at + 2)]
    if layout.kind == "png":
        at = 16 + 4 * int(rng.integers(2))
        changed[at : at + 4] = size.to_bytes(4, "big")
        _healed(changed, layout, at)
        return bytes(changed), [(at, at + 4)]
    entries = [entry for entry in layout.entries if entry.tag in (256, 257)]
    if not entries:
        return None
    entry = entries[int(rng.integers(len(entries)))]
    struct.pack_into(entry.order + "HII", changed, entry.at + 2, 4, 1, size)
    return bytes(changed), [(entry.at, entry.at + 12)]


# --- directories of TIFF and EXIF -----------------------------------------------------------------


def _entry_changed(data: bytes, layout: Layout, entry: Entry, kind: int, count: int, value: bytes) -> Spoilt:
    changed = bytearray(data)
    struct.pack_into(entry.order + "HI", changed, entry.at + 2, kind, count)
    where = entry.at + 8 if len(value) <= 4 else entry.value_at
    changed[where : where + len(value)] = value
    _healed(changed, layout, entry.at)
    return bytes(changed), [(entry.at, entry.at + 12), (where, where + len(value))]


def exposure_absurd(data: bytes, layout: Layout, rng: np.random.Generator) -> Spoilt | None:
    """A time of 0, x/0, negative, beyond all bounds, not a number; f-numbers and ISO alike."""
    entries = [entry for entry in layout.entries if entry.tag in EXPOSURE_TAGS]
    if not entries:
        return None
    entry = entries[int(rng.integers(len(entries)))]
    order = entry.order
    if entry.size <= 4:
        values = [0, 65535, 1, 7, int(rng.integers(65536))]
        return _entry_changed(
            data, layout, entry, 3, 1, struct.pack(order + "HH", int(rng.choice(values)), 0)
        )
    if entry.tag == 36867:
        texts = [b"0000:00:00 00:00:00\0", b"9999:99:99 99:99:99\0", b"\xff" * 20, b"    :  :     :  :  \0"]
        return _entry_changed(data, layout, entry, 2, 20, texts[int(rng.integers(4))])
    most = 2**32 - 1
    pairs = [(0, 1), (1, 0), (0, 0), (most, 1), (1, most), (most, most), (most, 0), (30_000, 1), (1, 7)]
    forms = [(5, struct.pack(order + "II", *pairs[int(rng.integers(len(pairs)))]))]
    forms += [(10, struct.pack(order + "ii", -1, 60)), (10, struct.pack(order + "ii", 1, -(2**31)))]
    forms += [(12, struct.pack(order + "d", v)) for v in (float("nan"), float("inf"), -1.0, 1e30, 1e-30)]
    forms += [(2, b"1/60\0\0\0\0"), (7, rng.bytes(8))]
    kind, value = forms[0 if rng.random() < 0.5 else int(rng.integers(len(forms)))]
    return _entry_changed(data, layout, entry, kind, 8 if kind in (2, 7) else 1, value)


def entry_garbled(data: bytes, layout: Layout, rng: np.random.Generator) -> Spoilt | None:
    """Tag, type, count or offset of an entry becomes 0, huge or random."""
    if not layout.entries:
        return None
    entry = layout.entries[int(rng.integers(len(layout.entries)))]
    changed = bytearray(data)
    offset, letter = [(0, "H"), (2, "H"), (4, "I"), (8, "I")][int(rng.integers(4))]
    most = 256 ** struct.calcsize(letter) - 1
    value = [0, 1, 2, most, most // 2, len(data) % (most + 1), int(rng.integers(most))][int(rng.integers(7))]
    struct.pack_into(entry.order + letter, changed, entry.at + offset, value)
    _healed(changed, layout, entry.at)
    return bytes(changed), [(entry.at, entry.at + 12)]


MUTATIONS: dict[str, Mutation] = {
    function.__name__.replace("_", " "): function
    for function in (
        bit,
        bits,
        bits_of_header,
        byte_of_header,
        zeros,
        ones,
        noise,
        swapped_sectors,
        truncated,
        truncated_at_the_end,
        removed,
        inserted,
        doubled,
        garbage_behind,
        followed_by_itself,
        head_of_one_tail_of_another,
        part_removed,
        part_doubled,
        parts_swapped,
        part_size_wrong,
        part_garbled,
        size_of_picture,
        exposure_absurd,
        entry_garbled,
    )
}
