"""The commands for single photographs: expanded to HDR, and made into a virtual bracket."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import EXIT_FAILED, count, print_name, say, show_batch, show_progress
from .errors import HdrmergeError, InputError
from .options import (
    Arithmetic,
    Compression,
    Device,
    ExrCompression,
    Float32,
    Force,
    Format,
    Operator,
    Precision,
    Preview,
    Quiet,
    Recursive,
    ToneCurve,
    check_targets,
    device_of,
    network_of,
    numbers,
    response_of,
)

if TYPE_CHECKING:
    from .expand import ExpandOptions
    from .pipeline import Progress

MADE_HERE = "hdrmerge "  # begins the Software tag of our own pictures
MOST_EV = 30.0  # [stops] that are a number at all; what networks know is less


class Picture(str, Enum):
    jpg = "jpg"
    tif = "tif"


Photographs = Annotated[
    list[Path],
    typer.Argument(
        metavar="PHOTO...", help="Photographs, or folders of them.", readable=False, show_default=False
    ),
]
Curve = Annotated[
    str | None,
    typer.Option(
        "--response",
        metavar="NAME|FILE",
        help="Curve of developed files: srgb, gamma2.2, linear, camera; or a saved one.",
        show_default="the file's profile, or srgb",
    ),
]
Network = Annotated[
    str | None,
    typer.Option(
        "--network",
        metavar="NAME|FILE",
        help="The network that shows other exposures; a file; none only makes linear.",
        show_default="virtual-bracket",
    ),
]


def expand(
    photos: Photographs,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE|FOLDER",
            readable=False,
            help="A file (.exr, .hdr, .tif) for one photograph, or a folder.",
            show_default="NAME_hdr.exr beside each photograph",
        ),
    ] = None,
    recursive: Recursive = False,
    response: Curve = None,
    network: Network = None,
    synthesis_map: Annotated[
        bool,
        typer.Option("--synthesis-map", help="Write NAME_map.png, white where all three channels are made."),
    ] = False,
    form: Annotated[Format, typer.Option("--format", help="Of files in a folder.")] = Format.exr,
    compression: ExrCompression = Compression.zip,
    float32: Float32 = False,
    preview: Preview = True,
    operator: Operator = ToneCurve.durand2002,
    device: Device = "auto",
    precision: Arithmetic = Precision.auto,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Expand single photographs to linear HDR files.

    The result is linear Rec. 709, and 1.0 is the photograph's white. What the
    photograph recorded stays as it is; where a channel is clipped, a network
    says how bright it may have been. How much of the picture that is stands
    in the file, and --synthesis-map shows where.

    A photograph that cannot be expanded is reported, the others are done, and
    the exit code is 1.

    Example: hdrmerge expand IMG_0001.JPG -o sunset.exr --synthesis-map
    """
    from .expand import PARTS, expand_photo, open_expander
    from .pipeline import write_outputs
    from .write import PREVIEW_SUFFIXES, RADIANCE_SUFFIXES, check_target, write_preview

    options = _options(response, network, device, precision)
    found, bad = _photographs(photos, recursive)
    single = _single(output, RADIANCE_SUFFIXES)
    if single and (len(found) + len(bad) > 1 or photos[0].is_dir()):
        raise typer.BadParameter("one file for several photographs; name a folder", param_hint="-o")
    names = _names(found, photos, output)
    targets = [single] if single else [name.with_name(f"{name.name}_hdr.{form.value}") for name in names]
    open_expander(options)  # what cannot run is said before the work

    def outputs_of(target: Path) -> list[Path]:
        wanted = [target, *([target.with_suffix(".jpg")] if preview else [])]
        return wanted + ([target.with_name(f"{target.stem}_map.png")] if synthesis_map else [])

    def work(photo: Path, target: Path, progress: Progress) -> list[Path]:
        outputs = outputs_of(target)
        check_targets(outputs, found, force)
        for output in outputs[1:]:
            check_target(output, PREVIEW_SUFFIXES, force=force)
        radiance, expansion = expand_photo(photo, options, progress)
        progress("write", 0.0)
        losses = write_outputs(
            radiance,
            target,
            outputs[1] if preview else None,
            operator=operator.value,
            compression=compression.value,
            float32=float32,
            force=force,
        )
        if synthesis_map:
            write_preview(expansion.map(), outputs[-1], shot=radiance.reference, force=force)
        progress("write", 1.0)
        if not quiet:
            for doubt in [*expansion.warnings, *losses]:
                say(f"warning: {doubt}")
            say(f"{photo.name}: {expansion.sentence()}; network: {expansion.network}")
        return outputs

    _for_each(list(zip(found, targets, strict=True)), bad, work, PARTS, quiet)


def bracket(
    photos: Photographs,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="FOLDER", readable=False, show_default=False, help="To write to."
        ),
    ],
    ev: Annotated[
        str, typer.Option(metavar="EV,EV,...", help="Exposures in stops, larger is brighter.")
    ] = "-2,-1,0,1,2",
    recursive: Recursive = False,
    response: Curve = None,
    network: Network = None,
    form: Annotated[
        Picture, typer.Option("--format", help="jpg, or tif with 16 bits a channel.")
    ] = Picture.jpg,
    device: Device = "auto",
    precision: Arithmetic = Precision.auto,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Make a virtual exposure bracket of single photographs.

    Each exposure is a file NAME_ev-2.jpg, with the metadata of the photograph
    and the exposure time that it would have taken, so that hdrmerge merge and
    other programs can use them. A shorter one shows what a network makes of
    clipped highlights, a longer one what it makes of shadows; EV 0 is the
    photograph. Networks know 4 EV either way, and are good for 2.

    Example: hdrmerge bracket IMG_0001.JPG --ev -2,0,2 -o virtual
    """
    from .expand import PARTS, open_expander
    from .virtual import limited_evs, virtual_bracket, write_frame

    options = _options(response, network, device, precision)
    asked = numbers(ev, "--ev", -MOST_EV, MOST_EV)
    evs, doubts = limited_evs(asked)
    found, bad = _photographs(photos, recursive)
    names = _names(found, photos, output)
    open_expander(options)
    if not quiet:
        for doubt in doubts:
            say(f"warning: {doubt}")

    def work(photo: Path, name: Path, progress: Progress) -> list[Path]:
        outputs = [name.with_name(f"{name.name}_ev{stops:+g}.{form.value}") for stops in evs]
        check_targets(outputs, found, force)
        frames, warnings = virtual_bracket(photo, evs, options, progress)
        for number, (frame, target) in enumerate(zip(frames, outputs, strict=True)):
            progress("write", number / len(frames))
            write_frame(frame, target, force=force)
        progress("write", 1.0)
        if not quiet:
            for doubt in warnings:
                if doubt not in doubts:
                    say(f"warning: {doubt}")
        return outputs

    _for_each(list(zip(found, names, strict=True)), bad, work, PARTS, quiet)


def _options(response: str | None, network: str | None, device: str, precision: Precision) -> ExpandOptions:
    from .expand import ExpandOptions

    if response == "auto":
        raise typer.BadParameter("one photograph does not tell its curve; name it", param_hint="--response")
    return ExpandOptions(
        response=None if response is None else response_of(response),
        network=network_of(network),
        device=device_of(device),
        precision=precision.value,
    )


def _photographs(paths: Sequence[Path], recursive: bool) -> tuple[list[Path], list[tuple[Path, str]]]:
    """Return the photographs that paths stand for, and what cannot be used, with the reason.

    Pictures that this program made are passed over in folders; named, they are taken.
    """
    from .folder import photographs, read_shots

    named = {os.path.realpath(path) for path in paths}
    files, refused = photographs(paths, recursive)
    in_folders = [path for path in files if os.path.realpath(path) not in named]
    shots, unread = read_shots(in_folders)
    ours = {shot.path for shot in shots if shot.software.startswith(MADE_HERE)}
    bad = [*refused, *unread]
    unusable = {one.path for one in bad}
    found = [path for path in files if path not in ours and path not in unusable]
    if not found and not bad:
        deeper = "" if recursive else ", or add -r for the folders within"
        raise InputError(f"{paths[0]}: holds no photograph; name another folder{deeper}")
    return found, [(one.path, one.reason) for one in bad]


def _single(output: Path | None, suffixes: Sequence[str]) -> Path | None:
    """Return the file that ``-o`` names, None for a folder."""
    from .fileformat import RAW_SUFFIXES
    from .write import PREVIEW_SUFFIXES

    if output is None or output.is_dir():
        return None
    suffix = output.suffix.lower()
    if suffix in (*PREVIEW_SUFFIXES, *RAW_SUFFIXES):
        raise typer.BadParameter(f"{output}: this command writes {', '.join(suffixes)}", param_hint="-o")
    return output if suffix in suffixes else None


def _names(found: Sequence[Path], given: Sequence[Path], output: Path | None) -> list[Path]:
    """Return where the outputs of each photograph lie, without suffix: as in the folder it was found in.

    Beside it where there is no ``output``. Of two files of one name each keeps its suffix in it.
    """
    folders = [path for path in given if path.is_dir()]
    names = []
    for path in found:
        top = next((folder for folder in folders if path.is_relative_to(folder)), path.parent)
        place = path.parent if output is None else output / path.parent.relative_to(top)
        names.append(place / path.stem)
    often = Counter(names)
    return [
        name if often[name] == 1 else name.with_name(path.name.replace(".", "_"))
        for name, path in zip(names, found, strict=True)
    ]


def _for_each(
    jobs: Sequence[tuple[Path, Path]],
    bad: Sequence[tuple[Path, str]],
    work: Callable[[Path, Path, Progress], list[Path]],
    parts: dict[str, float],
    quiet: bool,
) -> None:
    """Work on each photograph and print the names of what was written, whatever befalls one of them.

    The error of a single one is the command's own.
    """
    if len(jobs) == 1 and not bad:
        with show_progress(not quiet, parts) as progress:
            outputs = work(*jobs[0], progress)
        if not quiet:
            print(*outputs, sep="\n")
        return
    for path, reason in bad:
        say(f"{path} failed: {reason}")
    failed = len(bad)
    with show_batch(len(jobs), not quiet, parts) as bar:
        for photo, target in jobs:
            try:
                outputs = work(photo, target, partial(bar.show, photo.name))
            except (HdrmergeError, MemoryError) as error:
                failed += 1
                reason = " ".join(str(error).split()) or "not enough memory for a picture of this size"
                say(f"{photo} failed: {reason.removeprefix(f'{photo}: ')}")
            else:
                for output in () if quiet else outputs:
                    print_name(str(output))
            bar.end(photo.name)
    if failed or not quiet:
        done = len(jobs) - failed + len(bad)
        say(f"{count(done, 'photograph')} done" + (f", {failed} failed" if failed else ""))
    if failed:
        raise typer.Exit(EXIT_FAILED)
