"""The options that commands share: their values, their help, and how their text is read."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .errors import OutputError

if TYPE_CHECKING:
    from .exposure import Response


class Align(str, Enum):
    none = "none"
    translation = "translation"
    similarity = "similarity"
    homography = "homography"


class Deghost(str, Enum):
    none = "none"
    auto = "auto"


class Precision(str, Enum):
    auto = "auto"
    fp32 = "fp32"
    fp16 = "fp16"
    bf16 = "bf16"


class Trusted(str, Enum):
    exif = "exif"
    pixels = "pixels"


class Compression(str, Enum):
    zip = "zip"
    piz = "piz"
    dwaa = "dwaa"
    none = "none"


class ToneCurve(str, Enum):
    durand2002 = "durand2002"
    reinhard2002 = "reinhard2002"
    drago2003 = "drago2003"
    mantiuk2006 = "mantiuk2006"
    narkowicz2015 = "narkowicz2015"
    mulaw = "mulaw"


class Format(str, Enum):
    exr = "exr"
    hdr = "hdr"
    tif = "tif"


Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Also print the verdict on every frame.")]
Force = Annotated[bool, typer.Option("--force", help="Replace existing output.")]
Reference = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|INDEX",
        help="The frame whose moment and geometry the result keeps; an index counts from 0 as given.",
        show_default="middle exposure",
    ),
]
Curve = Annotated[
    str,
    typer.Option(
        "--response",
        metavar="NAME|FILE",
        help="Curve of developed files: auto finds it; srgb, gamma2.2, linear, camera; or a saved one.",
    ),
]
Trust = Annotated[
    Trusted, typer.Option("--trust", help="Whose exposure counts where metadata and pixels disagree.")
]
Alignment = Annotated[Align, typer.Option("--align", help="The most general motion to undo.")]
Deghosting = Annotated[
    Deghost, typer.Option("--deghost", help="auto: what moves appears once, as in the reference.")
]
Network = Annotated[
    str | None,
    typer.Option(
        "--network",
        metavar="NAME|FILE",
        help="trust judges frames, hdrgan paints (merge --help: how), trust+hdrgan both; a file; none.",
        show_default="trust, or none without an engine",
    ),
]
Everywhere = Annotated[
    bool,
    typer.Option("--everywhere", help="Let a network that paints, such as hdrgan, paint the whole picture."),
]
Device = Annotated[str, typer.Option("--device", metavar="auto|cpu|cuda[:N]", help="Where networks run.")]
Arithmetic = Annotated[
    Precision, typer.Option("--precision", help="Of networks; auto: fp32 on the CPU, fp16 on CUDA.")
]
ExrCompression = Annotated[
    Compression, typer.Option("--compression", help="Of EXR; a TIFF knows zip and none.")
]
Float32 = Annotated[bool, typer.Option("--float", help="32 instead of 16 bits a value in EXR.")]
Preview = Annotated[
    bool, typer.Option("--preview/--no-preview", help="A tone-mapped JPEG beside the result.")
]
Operator = Annotated[ToneCurve, typer.Option("--operator", help="Tone mapping of the preview.")]

Recursive = Annotated[bool, typer.Option("--recursive", "-r", help="Also look into the folders within.")]
Gap = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        help="The longest pause between two frames of one set.",
        show_default="2, and 5 where tags confirm the set",
    ),
]
PerSet = Annotated[
    int | None,
    typer.Option(metavar="N", help="Take every N photographs of a camera as one set, in their order."),
]


def numbers(text: str | None, option: str, low: float, high: float) -> tuple[float, ...]:
    """Parse ``1/500,1/60,0.125`` or ``-2,0,2``: fractions and decimals from ``low`` to ``high``."""
    values = []
    for part in text.split(",") if text is not None else []:
        numerator, slash, denominator = part.strip().partition("/")
        try:
            value = float(numerator) / float(denominator) if slash else float(numerator)
        except (ValueError, ZeroDivisionError):
            raise typer.BadParameter(f"{part.strip()!r} is no number", param_hint=option) from None
        if not low <= value <= high:
            raise typer.BadParameter(f"{part.strip()} is not between {low:g} and {high:g}", param_hint=option)
        values.append(value)
    return tuple(values)


def ev100_of(anchor: str, *words: str) -> float | None:
    """Return the EV100 that ``--anchor`` states, None for one of the ``words`` that it may be instead."""
    if anchor in words:
        return None
    stated = numbers(anchor, "--anchor", -30, 30)
    if len(stated) != 1:
        raise typer.BadParameter(f"one number, or {' or '.join(words)}", param_hint="--anchor")
    return stated[0]


def response_of(choice: str) -> str | Response:
    """Return what ``--response`` means: auto, the name of a curve, or the curve in a file."""
    from .response import NAMED, load, typical

    if choice in ("auto", *NAMED):
        return typical() if choice == "camera" else choice
    if not Path(choice).suffix and not Path(choice).exists():
        names = ", ".join(("auto", *NAMED))
        raise typer.BadParameter(f"{choice!r} is neither one of {names} nor a file", param_hint="--response")
    return load(Path(choice))


def network_of(choice: str | None) -> str | None:
    """Return what ``--network`` means: a name, "none", a file; None where it was not given.

    A file is looked at now, before the work begins.
    """
    from .networks import NETWORKS
    from .weights import check

    names = ("none", *NETWORKS)
    if choice is None or choice == "none":
        return choice
    for part in [choice] if Path(choice).exists() else choice.split("+"):
        if part in NETWORKS:
            continue
        if not part or not (Path(part).suffix or Path(part).exists()):
            raise typer.BadParameter(
                f"{part!r} is neither one of {', '.join(names)} nor a file", param_hint="--network"
            )
        check(Path(part))
    return choice


def device_of(choice: str) -> str:
    """Return what ``--device`` means, if it means anything."""
    kind, colon, index = choice.partition(":")
    if kind == "cuda" and (index.isdecimal() or not colon):
        return choice
    if choice not in ("auto", "cpu"):
        raise typer.BadParameter(f"{choice!r} is none of auto, cpu, cuda, cuda:N", param_hint="--device")
    return choice


def target_of(output: Path | None, default: Path, suffixes: Sequence[str]) -> Path:
    """Return the file that ``-o`` means: itself by its suffix, else one named as ``default`` in it."""
    from .fileformat import RAW_SUFFIXES
    from .write import PREVIEW_SUFFIXES, RADIANCE_SUFFIXES

    if output is None:
        return default
    suffix = output.suffix.lower()
    if output.is_dir():
        return output / default.name
    if suffix not in suffixes and suffix in {*PREVIEW_SUFFIXES, *RADIANCE_SUFFIXES, *RAW_SUFFIXES}:
        raise typer.BadParameter(f"{output}: this command writes {', '.join(suffixes)}", param_hint="-o")
    return output if suffix in suffixes else output / default.name


def check_targets(targets: Sequence[Path], inputs: Sequence[Path], force: bool) -> None:
    """Refuse, before the work begins, targets that are inputs, that exist, or that are one file."""
    from .write import check_target

    for target in targets:
        if target.exists() and any(path.exists() and target.samefile(path) for path in inputs):
            raise OutputError(f"{target}: the output would replace an input; choose another name with -o")
        if targets.count(target) > 1:
            raise OutputError(f"{target}: several outputs of this name; give -o a folder, or run them singly")
        check_target(target, (target.suffix.lower(),), force=force)
