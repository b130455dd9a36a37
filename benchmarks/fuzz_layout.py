"""What a good photograph is made of: where segments, chunks, directories and pixels lie; for `fuzz.py`."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

Range = tuple[int, int]

TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}


@dataclass(frozen=True)
class Entry:
    """A directory entry of TIFF or EXIF; all offsets are the file's."""

    tag: int
    at: int  # of its 12 bytes
    value_at: int
    size: int
    order: str  # struct's: < or >


@dataclass
class Layout:
    """What a good file is made of: ``parts`` are segments or chunks, ``pixels`` compressed or not."""

    kind: str  # jpeg, png, tiff, boxes
    parts: list[Range] = field(default_factory=list)
    pixels: list[Range] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)

    @classmethod
    def of(cls, data: bytes) -> Layout:
        if data[:2] == b"\xff\xd8":
            return cls._of_jpeg(data)
        if data[:4] == b"\x89PNG":
            return cls._of_png(data)
        if data[4:8] == b"ftyp":
            boxes = list(_boxes(data))
            return cls("boxes", boxes, [box for box in boxes if data[box[0] + 4 : box[0] + 8] == b"mdat"])
        entries = list(_entries(data, 0))
        values = {entry.tag: _integers(data, entry) for entry in entries}
        starts, sizes = (values.get(a) or values.get(b) or [] for a, b in ((324, 273), (325, 279)))
        pixels = [(start, start + size) for start, size in zip(starts, sizes, strict=False)]
        return cls("tiff", [], pixels, entries)

    @classmethod
    def _of_jpeg(cls, data: bytes) -> Layout:
        layout, at = cls("jpeg"), 2
        while data[at] == 0xFF:
            code, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
            if code == 0xD9:
                break
            layout.parts.append((at, at + 2 + length))
            if data[at + 4 : at + 10] == b"Exif\0\0":
                layout.entries = list(_entries(data, at + 10))
            at += 2 + length
            if code == 0xDA:
                start = at
                while not (data[at] == 0xFF and data[at + 1] not in (0, *range(0xD0, 0xD8))):
                    at += 1
                layout.pixels.append((start, at))
        return layout

    @classmethod
    def _of_png(cls, data: bytes) -> Layout:
        layout, at = cls("png"), 8
        while at < len(data):
            length = int.from_bytes(data[at : at + 4], "big")
            layout.parts.append((at, at + 12 + length))
            name = data[at + 4 : at + 8]
            if name == b"IDAT":
                layout.pixels.append((at + 8, at + 8 + length))
            if name == b"eXIf":
                layout.entries = list(_entries(data, at + 8))
            at += 12 + length
        return layout

    def header(self, data: bytes) -> Range:
        """Return the largest range without pixels."""
        edges = [0, *(edge for part in sorted(self.pixels) for edge in part), len(data)]
        return max(zip(edges[::2], edges[1::2], strict=True), key=lambda part: part[1] - part[0])

    def unchecked(self, data: bytes) -> list[Range]:
        """Return where another value means another picture, not a mistake: pixels and a JPEG's tables."""
        tables = (0xDB, 0xC4, 0xC0, 0xC1, 0xC2, 0xDA, 0xDD)  # DQT, DHT, SOF, SOS, DRI
        parts = [part for part in self.parts if self.kind == "jpeg" and data[part[0] + 1] in tables]
        joined: list[Range] = []
        for start, end in sorted([*self.pixels, *parts]):
            if joined and joined[-1][1] == start:
                start = joined.pop()[0]
            joined.append((start, end))
        return joined


def _boxes(data: bytes) -> Iterator[Range]:
    at = 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big") or len(data) - at
        yield at, at + size
        at += max(size, 8)


def _entries(data: bytes, base: int) -> Iterator[Entry]:
    """Walk the directories of a TIFF structure that begins at ``base``."""
    order = "<" if data[base : base + 2] == b"II" else ">"
    todo = [struct.unpack_from(order + "I", data, base + 4)[0]]
    while todo:
        at = base + todo.pop()
        for number in range(struct.unpack_from(order + "H", data, at)[0]):
            where = at + 2 + 12 * number
            tag, kind, count, value = struct.unpack_from(order + "HHII", data, where)
            size = TYPE_SIZES.get(kind, 1) * count
            entry = Entry(tag, where, where + 8 if size <= 4 else base + value, size, order)
            yield entry
            if tag in (34665, 330):
                todo.append(value)


def _integers(data: bytes, entry: Entry) -> list[int]:
    kind, count = struct.unpack_from(entry.order + "HI", data, entry.at + 2)
    letter = {1: "B", 3: "H", 4: "I"}.get(kind)
    if letter is None:
        return []
    return list(struct.unpack_from(f"{entry.order}{count}{letter}", data, entry.value_at))


def chunk(name: bytes, content: bytes) -> bytes:
    """Return a PNG chunk with the right checksum."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
