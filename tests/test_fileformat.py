"""Kinds of files told apart, and what cannot be opened."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from hdrmerge.errors import InputError
from hdrmerge.fileformat import kind_of
from hdrmerge.metadata import read_shot
from hdrmerge.read import read_frame


@pytest.mark.parametrize(
    ("name", "head", "kind"),
    [
        ("a.jpg", b"\xff\xd8\xff\xe0", "jpeg"),
        ("a.nef", b"\xff\xd8\xff\xe0", "jpeg"),  # some programs write JPEG under the old name
        ("a.png", b"\x89PNG\r\n\x1a\n", "png"),
        ("a.tif", b"II*\0", "tiff"),
        ("a.jpg", b"MM\0*", "tiff"),
        ("A.DNG", b"II*\0", "raw"),
        ("a.cr3", b"\0\0\0\x18ftypcrx ", "raw"),
        ("a.HEIC", b"\0\0\0\x18ftypheic", "heic"),
        ("a.heif", b"\0\0\0\x18ftypmif1", "heic"),
    ],
)
def test_the_kind_is_told_by_the_first_bytes(tmp_path: Path, name: str, head: bytes, kind: str) -> None:
    (tmp_path / name).write_bytes(head + bytes(20))
    assert kind_of(tmp_path / name) == kind


@pytest.mark.parametrize(
    ("name", "content", "finding"),
    [
        ("empty.jpg", b"", "the file is empty"),
        ("text.jpg", b"Dear diary, today we went", "not a photograph (it begins with b'Dear dia')"),
        ("film.mp4", b"\0\0\0\x18ftypisom", "not a photograph"),
        ("a.exr", b"v/1\1", "not a photograph"),
    ],
)
def test_what_is_no_photograph_is_refused(tmp_path: Path, name: str, content: bytes, finding: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_shot(path)
    assert f"{path}: {finding}" in str(caught.value)


def test_what_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    below_a_file = tmp_path / "file" / "a.jpg"
    below_a_file.parent.write_bytes(b"x")
    for path, finding in (
        (tmp_path / "missing.jpg", "no such file; check the name"),
        (tmp_path, "is a folder; name the photographs in it"),
        (below_a_file, "cannot be read (Not a directory)"),
    ):
        with pytest.raises(InputError) as caught:
            read_shot(path)
        assert f"{path}: {finding}" in str(caught.value)


def test_an_unreadable_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "a.jpg").write_bytes(b"x")
    monkeypatch.setattr(Path, "open", refused)  # the tests may run as root, who may read everything
    with pytest.raises(InputError, match=r"cannot be read \(Permission denied\); check its permissions"):
        read_shot(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    "name", ["a b.jpg", "[1].jpg", "Ünïcödé.jpg", "🌅.jpg", "-x.jpg", "new\nline.jpg", "a.JPEG"]
)
def test_names_may_hold_anything(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 6)).save(Path(name), "JPEG")
    assert read_frame(read_shot(name)).codes.shape == (6, 8, 3)
