"""What kind of file a photograph is, and how it is opened."""

from __future__ import annotations

import logging
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal

from .errors import InputError

for name in ("tifffile", "PIL"):
    logging.getLogger(name).setLevel(logging.CRITICAL)  # what they find wrong is raised here

Kind = Literal["jpeg", "png", "tiff", "heic", "raw"]

RAW_SUFFIXES = frozenset(
    (
        ".3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .fff .gpr .iiq .k25 .kdc .mef .mos .mrw .nef .nrw .orf "
        ".pef .ptx .qtk .raf .raw .rw2 .rwl .sr2 .srf .srw .x3f"
    ).split()
)
_HEIF_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"))
TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def kind_of(path: Path) -> Kind:
    """Tell the format by the first bytes; the suffix only tells RAW from TIFF."""
    with opened(path) as file:
        head = file.read(16)
    if not head:
        raise InputError(f"{path}: the file is empty; copy it again from the card")
    suffix = path.suffix.lower()
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS:
        return "heic"
    if head.startswith(TIFF_MAGIC) and suffix not in RAW_SUFFIXES:
        return "tiff"
    if suffix in RAW_SUFFIXES:
        return "raw"
    raise InputError(
        f"{path}: not a photograph (it begins with {head[:8]!r}); give JPEG, PNG, TIFF, HEIC or RAW"
    )


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a photograph for reading; whatever the system has against it becomes an `InputError`."""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # opening a pipe would wait forever
            raise InputError(f"{path}: is a device or a pipe; copy what it holds to a file")
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: OSError) -> InputError:
    """Return the error to raise for a file that the system does not let us read."""
    if isinstance(error, FileNotFoundError):
        return InputError(f"{path}: no such file; check the name")
    if isinstance(error, IsADirectoryError):
        return InputError(f"{path}: is a folder; name the photographs in it")
    return InputError(f"{path}: cannot be read ({error.strerror or error}); check its permissions")


def damaged(path: Path, finding: object) -> InputError:
    """Return the error to raise for a photograph of which something is missing; one line, always."""
    return InputError(f"{path}: ends early or is damaged ({one_line(finding)}); copy it again from the card")


def one_line(finding: object) -> str:
    """Return somebody else's message, or the name of an exception without one."""
    return " ".join(str(finding).split()) or type(finding).__name__


@contextmanager
def open_pillow(path: Path, file: BinaryIO) -> Iterator[Any]:
    """Open a picture (`PIL.Image.Image`) and read its header; whatever ails it becomes an `InputError`."""
    from PIL import Image, UnidentifiedImageError

    Image.MAX_IMAGE_PIXELS = None  # panoramas are large; a header that lies is found out elsewhere
    file.seek(0)
    try:
        with Image.open(file) as picture:
            yield picture
    except UnidentifiedImageError:
        raise damaged(path, "its header makes no sense") from None
    except (OSError, ValueError, SyntaxError, EOFError, struct.error) as error:
        raise damaged(path, error) from None


def open_heic(path: Path, file: BinaryIO) -> Any:
    """Open a HEIC picture (`pillow_heif.HeifFile`): upright, 10 and 12 bits kept, decoded when asked."""
    try:
        import pillow_heif
    except ModuleNotFoundError:
        raise InputError(f"{path}: HEIC needs one package more: pip install 'hdrmerge[heic]'") from None
    file.seek(0)
    try:
        heif = pillow_heif.open_heif(file, convert_hdr_to_8bit=False)
        heif.info  # noqa: B018 - looks for the picture that the file says is its main one
    except IndexError:
        raise damaged(path, "no picture in it") from None
    except (OSError, ValueError, SyntaxError, EOFError, RuntimeError) as error:
        raise damaged(path, error) from None
    return heif
