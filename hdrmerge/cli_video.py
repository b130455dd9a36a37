"""The command for footage of alternating exposures: HDR video."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import print_name, say, show_progress
from .errors import InputError, OutputError
from .options import (
    Arithmetic,
    Compression,
    Device,
    ExrCompression,
    Float32,
    Force,
    Precision,
    Quiet,
    check_targets,
    device_of,
    ev100_of,
    response_of,
)

if TYPE_CHECKING:
    from .exposure import Response
    from .grade import Display


class Way(str, Enum):
    network = "network"
    coarse = "coarse"
    flow = "flow"
    merge = "merge"
    reference = "reference"


class Encoding(str, Enum):
    hdr10 = "hdr10"
    hlg = "hlg"
    none = "none"


class Codec(str, Enum):
    hevc = "hevc"
    av1 = "av1"


class Curve(str, Enum):
    reinhard2002 = "reinhard2002"
    drago2003 = "drago2003"
    narkowicz2015 = "narkowicz2015"
    mulaw = "mulaw"


FRAMES = "_frames"  # ends the name of the folder beside a clip
OTHER_FILES = {".avi", ".webm", ".m4v", ".gif", ".exr", ".hdr", ".tif", ".tiff", ".jpg", ".jpeg", ".png"}


def video(
    footage: Annotated[
        Path,
        typer.Argument(
            metavar="CLIP|FOLDER",
            help="A clip, or a folder of numbered stills.",
            readable=False,
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER|FILE",
            readable=False,
            show_default=False,
            help="A folder for EXR frames, or a clip: .mp4, .mov, .mkv.",
        ),
    ],
    exposures: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|T,T,...",
            help="A list, `file seconds` a line, or a pattern that repeats: 1/500,1/60.",
            show_default="EXIF, or told by the pixels",
        ),
    ] = None,
    response: Annotated[
        str,
        typer.Option(
            metavar="NAME|FILE",
            help="Curve of the camera: auto finds it; srgb, gamma2.2, linear, camera; or a saved one.",
        ),
    ] = "auto",
    method: Annotated[
        Way | None,
        typer.Option(
            help="How neighbours are merged; below.",
            show_default="network where there is one and exposures are at most 4 EV apart, else flow",
        ),
    ] = None,
    coarse: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE", help="The first of the two networks.", show_default="the released one"
        ),
    ] = None,
    refine: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE", help="The second of the two networks.", show_default="the released one"
        ),
    ] = None,
    anchor: Annotated[
        str,
        typer.Option(
            metavar="EV|longest", help="The exposure at ISO 100 whose white becomes 1.0, for one scale."
        ),
    ] = "longest",
    encoding: Annotated[
        Encoding | None,
        typer.Option(
            "--encode", help="The clip for HDR displays.", show_default="hdr10 for a file, none for a folder"
        ),
    ] = None,
    codec: Annotated[Codec, typer.Option(help="Of that clip.")] = Codec.hevc,
    quality: Annotated[
        int, typer.Option(min=0, max=51, help="Of clips, the encoder's CRF: smaller is better.")
    ] = 18,
    white_nits: Annotated[
        float, typer.Option(help="Where the middle exposure's white is shown, in nits.")
    ] = 203.0,
    peak_nits: Annotated[
        float,
        typer.Option(help="The brightest that the display shows, in nits; lights are rolled off to it."),
    ] = 1000.0,
    preview: Annotated[
        bool, typer.Option("--preview/--no-preview", help="A tone-mapped clip for other displays.")
    ] = True,
    operator: Annotated[Curve, typer.Option(help="Tone mapping of that clip.")] = Curve.reinhard2002,
    fps: Annotated[
        float | None,
        typer.Option(min=0.01, max=1000, help="Frames a second.", show_default="the clip's, 25 for stills"),
    ] = None,
    device: Device = "auto",
    precision: Arithmetic = Precision.auto,
    compression: ExrCompression = Compression.zip,
    float32: Float32 = False,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Make HDR video of footage whose exposures alternate from frame to frame.

    Every frame becomes an HDR frame, linear Rec. 709, with 1.0 where the
    longest exposure clips. They are written as EXR files, to the folder or to
    CLIP_frames beside the clip, where they stay; clips are encoded from them.
    The same command goes on where a run was interrupted.

    Methods: network is the coarse-to-fine pair for two or three exposures 2 to
    3 EV apart, coarse the first of the pair; flow follows what moves and
    believes what agrees; merge undoes the camera's motion only; reference is
    each frame alone.

    Example: hdrmerge video clip.mov -o clip_hdr.mp4 --exposures 1/500,1/60
    """
    if method in (Way.flow, Way.merge, Way.reference) and (coarse or refine):
        raise typer.BadParameter(f"{method.value} runs no network", param_hint="--coarse, --refine")
    ev100 = ev100_of(anchor, "longest")
    target, folder, form = _places(footage, output, encoding)

    from .alternation import read_stated
    from .video import VideoOptions, parts_of, reconstruct, write_clips

    display = _display(form, white_nits, peak_nits)
    shown = _preview_of(footage, target, folder) if preview else None
    if target or shown:
        shown = _checked(footage, target, shown, folder, force)
    options = VideoOptions(
        exposures=read_stated(exposures) if exposures is not None else None,
        response=_curve(response),
        method=method.value if method else None,
        coarse=_network(coarse, "--coarse"),
        refine=_network(refine, "--refine"),
        anchor=ev100,
        fps=fps,
        device=device_of(device),
        precision=precision.value,
        compression=compression.value,
        float32=float32,
    )
    parts = parts_of(options, shown is not None, target is not None)
    with show_progress(not quiet, parts) as progress:
        reel, report = reconstruct(footage, folder, options, progress, force)
        if target or shown:
            measured = write_clips(
                reel,
                shown,
                target,
                display,
                operator=operator.value,
                codec=codec.value,
                quality=quality,
                force=True,  # looked at above
                progress=progress,
            )
    if quiet:
        return
    for doubt in report.warnings:
        say(f"warning: {doubt}")
    say(f"{footage.name}: {report.sentence()}")
    if target and form is Encoding.hdr10:
        say(f"{target.name}: MaxCLL {measured.max_cll:.0f} nits, MaxFALL {measured.max_fall:.0f} nits")
    for path in (folder, target, shown):
        if path:
            print_name(str(path))


def _places(footage: Path, output: Path, encoding: Encoding | None) -> tuple[Path | None, Path, Encoding]:
    """Return the HDR clip, if any, the folder of the frames, and how the clip is encoded."""
    from .encode import SUFFIXES
    from .fileformat import RAW_SUFFIXES

    suffix = output.suffix.lower()
    if not output.is_dir() and suffix in SUFFIXES:
        form = encoding or Encoding.hdr10
        if form is Encoding.none:
            raise typer.BadParameter(
                "a clip needs hdr10 or hlg; or name a folder with -o", param_hint="--encode"
            )
        return output, output.with_name(f"{output.stem}{FRAMES}"), form
    if not output.is_dir() and suffix in OTHER_FILES | RAW_SUFFIXES:
        raise typer.BadParameter(
            f"{output}: this command writes a folder or {', '.join(SUFFIXES)}", param_hint="-o"
        )
    if output.is_dir() and footage.is_dir() and output.samefile(footage):
        raise OutputError(f"{output}: the stills lie here; choose another folder with -o")
    form = encoding or Encoding.none
    name = f"{_name(footage)}_{form.value}.mp4"
    return output / name if form is not Encoding.none else None, output, form


def _name(footage: Path) -> str:
    """Return the name that clips made of footage have in a folder."""
    path = footage.resolve()
    return path.name if path.is_dir() else path.stem


def _preview_of(footage: Path, target: Path | None, folder: Path) -> Path:
    """Return where the clip for other displays lies: beside the HDR clip, or in the folder."""
    if target and target.parent != folder:
        return target.with_name(f"{target.stem}_preview.mp4")
    return folder / f"{_name(footage)}_preview.mp4"


def _checked(
    footage: Path, target: Path | None, shown: Path | None, folder: Path, force: bool
) -> Path | None:
    """Refuse clips that cannot be written, before the work begins; return the preview, if it can be.

    The preview of a run that was killed before it wrote the last clip may be replaced.
    """
    from .decode import video_library
    from .reel import NAME

    last, earlier = (target, shown) if target else (shown, None)
    check_targets([path for path in (last,) if path], [footage], force)
    if earlier:
        check_targets([earlier], [footage], force or (folder / NAME).exists())
    try:
        video_library(footage)
    except InputError:
        if target:
            raise
        say("warning: no preview; it needs one package more: pip install 'hdrmerge[video]'")
        return None
    return shown


def _display(form: Encoding, white: float, peak: float) -> Display:
    from .grade import Display

    return Display(white, peak, "hlg" if form is Encoding.hlg else "pq")


def _curve(choice: str) -> str | Response | None:
    return None if choice == "auto" else response_of(choice)


def _network(choice: str | None, option: str) -> str | None:
    """Return what an option means: a name, or a file, which is looked at before the work begins."""
    from .networks import NETWORKS
    from .weights import check

    if choice is None or choice in NETWORKS:
        return choice
    if not (Path(choice).suffix or Path(choice).exists()):
        names = ", ".join(name for name, row in NETWORKS.items() if row.task == "video")
        raise typer.BadParameter(f"{choice!r} is neither one of {names} nor a file", param_hint=option)
    check(Path(choice))
    return choice
