"""The command line: parse, call the pipeline, print. No arithmetic; heavy imports inside commands."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import (
    __version__,
    cli_evaluate,
    cli_expand,
    cli_folder,
    cli_networks,
    cli_train,
    cli_train_video,
    cli_video,
)
from .console import Group, claim_streams, parts_of, print_verdicts, say, show_progress
from .options import (
    Align,
    Alignment,
    Arithmetic,
    Compression,
    Curve,
    Deghost,
    Deghosting,
    Device,
    Everywhere,
    ExrCompression,
    Float32,
    Force,
    Network,
    Operator,
    Precision,
    Preview,
    Quiet,
    Reference,
    ToneCurve,
    Trust,
    Trusted,
    Verbose,
    check_targets,
    device_of,
    ev100_of,
    network_of,
    numbers,
    response_of,
    target_of,
)

if TYPE_CHECKING:
    from .pipeline import Report

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"hdrmerge {__version__}, the Python package")
        print("(not jcelaya/hdrmerge, which Debian calls hdrmerge, and not wjakob/hdrmerge)")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option("--version", "-V", callback=_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Turn exposure brackets into linear HDR images.

    A merge works in this order:

      1. read the metadata and check that the files are one bracket
      2. decode the pixels and make them linear
      3. align all frames to the reference
      4. find the response curve, check the exposures
      5. find what moved
      6. merge, weighted by the noise of each frame
      7. write the HDR file
      8. tone map and write the preview

    Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.

    Example: hdrmerge merge IMG_0001.JPG IMG_0002.JPG IMG_0003.JPG
    """
    claim_streams()


@app.command(no_args_is_help=True)
def merge(
    frames: Annotated[
        list[Path],
        typer.Argument(
            help="The photographs of one bracket, in any order.", readable=False, show_default=False
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE|FOLDER",
            readable=False,
            help="A file (.exr, .hdr, .tif) or a folder.",
            show_default="first-last.exr beside the first frame",
        ),
    ] = None,
    reference: Reference = None,
    times: Annotated[
        str | None,
        typer.Option(metavar="T,T,...", help="Exposure times in seconds, one a frame: 1/500,1/60,1/8."),
    ] = None,
    ev: Annotated[
        str | None,
        typer.Option(
            metavar="EV,EV,...", help="Exposures in stops, one a frame, larger is brighter: -2,0,2."
        ),
    ] = None,
    ev_step: Annotated[
        str | None,
        typer.Option(metavar="EV", help="Stops from each frame to the next, files from dark to bright."),
    ] = None,
    response: Curve = "auto",
    save_response: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            readable=False,
            help="Keep the curve that was used, for other brackets.",
            show_default=False,
        ),
    ] = None,
    trust: Trust = Trusted.exif,
    anchor: Annotated[
        str,
        typer.Option(
            metavar="EV|reference", help="The exposure at ISO 100 whose white becomes 1.0, for one scale."
        ),
    ] = "reference",
    align: Alignment = Align.homography,
    deghost: Deghosting = Deghost.auto,
    network: Network = None,
    device: Device = "auto",
    precision: Arithmetic = Precision.auto,
    everywhere: Everywhere = False,
    compression: ExrCompression = Compression.zip,
    float32: Float32 = False,
    preview: Preview = True,
    operator: Operator = ToneCurve.durand2002,
    ghost_map: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            readable=False,
            help="A picture of where frames were distrusted: white is the reference alone.",
            show_default=False,
        ),
    ] = None,
    report_file: Annotated[
        Path | None,
        typer.Option(
            "--json",
            metavar="REPORT",
            readable=False,
            help="Write what happened; - for stdout, in place of the names.",
        ),
    ] = None,
    force: Force = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Merge the photographs of one exposure bracket into a linear HDR file.

    The result is linear Rec. 709 with 1.0 where the reference frame clips, and carries the
    reference's metadata. The names of the files written are printed.

    The network trust judges all frames. hdrgan sees three: the reference, the
    next shorter and the next longer exposure. Where these disagree it paints;
    elsewhere, and beyond white of the shortest of the three, all frames are
    merged as far as each can be trusted.

    Example: hdrmerge merge IMG_0001.JPG IMG_0002.JPG IMG_0003.JPG -o sunset.exr
    """
    if sum(option is not None for option in (times, ev, ev_step)) > 1:
        raise typer.BadParameter("--times, --ev and --ev-step say the same thing; give one of them")
    seconds, stops = numbers(times, "--times", 1e-9, 1e6), numbers(ev, "--ev", -30, 30)
    step = numbers(ev_step, "--ev-step", -15, 15)
    if len(step) > 1:
        raise typer.BadParameter("one number, the same step between all frames", param_hint="--ev-step")
    ev100 = ev100_of(anchor, "reference")

    from .form import StatedExposures
    from .pipeline import MergeOptions, merge_bracket, open_network, paints, write_outputs
    from .response import save
    from .write import PREVIEW_SUFFIXES, RADIANCE_SUFFIXES, check_target

    name = f"{frames[0].stem}-{frames[-1].stem}.exr"
    target = target_of(output, frames[0].parent / name, RADIANCE_SUFFIXES)
    picture = target.with_suffix(".jpg")
    outputs = [target, picture] if preview else [target]
    outputs += [ghost_map] if ghost_map else []
    to_stdout = report_file is not None and str(report_file) == "-"
    kept = [save_response] if save_response else []
    kept += [report_file] if report_file and not to_stdout else []
    check_targets([*outputs, *kept], frames, force)
    if ghost_map:
        check_target(ghost_map, PREVIEW_SUFFIXES, force=force)
    options = MergeOptions(
        reference=reference,
        exposures=StatedExposures(seconds, stops, step[0] if step else None),
        response=response_of(response),
        trust=trust.value,
        anchor=ev100,
        align=align.value,
        deghost=deghost.value,
        network=network_of(network),
        device=device_of(device),
        precision=precision.value,
        everywhere=everywhere,
    )
    opened, _ = open_network(options)  # what cannot run is said before the work
    with show_progress(not quiet, parts_of(paints(opened), everywhere)) as progress:
        radiance, report = merge_bracket(frames, options, progress)
        progress("write", 0.0)
        losses = write_outputs(
            radiance,
            target,
            picture if preview else None,
            ghost_map=ghost_map,
            operator=operator.value,
            compression=compression.value,
            float32=float32,
            force=force,
        )
        if save_response:
            save(report.curve, save_response, radiance.reference.camera_model)
        progress("write", 1.0)
    doubts = [*report.warnings, *losses]
    if report_file:
        _write_json(None if to_stdout else report_file, report, outputs, doubts)
    if quiet:
        return
    for doubt in doubts:
        say(f"warning: {doubt}")
    if verbose:
        print_verdicts(report)
    if not to_stdout:
        print(*outputs, sep="\n")


@app.command(no_args_is_help=True)
def preview(
    radiance_files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILES...",
            help="Merged files: .exr, .hdr or float .tif.",
            readable=False,
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE|FOLDER",
            readable=False,
            help="A .jpg or .png file, or a folder.",
            show_default="a JPEG beside each file",
        ),
    ] = None,
    operator: Annotated[ToneCurve, typer.Option(help="By author and year.")] = ToneCurve.durand2002,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Render merged files as display pictures again, with another operator if wanted.

    Example: hdrmerge preview sunset.exr -o sunset.png --operator reinhard2002
    """
    from .load import load
    from .tonemap import tonemap
    from .write import PREVIEW_SUFFIXES, write_preview

    targets = [target_of(output, source.with_suffix(".jpg"), PREVIEW_SUFFIXES) for source in radiance_files]
    check_targets(targets, radiance_files, force)
    for source, target in zip(radiance_files, targets, strict=True):
        radiance = load(source)
        picture = tonemap(radiance.pixels, operator.value, ev100=radiance.reference.ev100)
        write_preview(picture, target, shot=radiance.reference, force=force)
        if not quiet:
            print(target)


def _write_json(path: Path | None, report: Report, outputs: list[Path], doubts: list[str]) -> None:
    """Write the report, on stdout without a path."""
    values = {**report.to_json(), "outputs": [str(output) for output in outputs], "warnings": doubts}
    text = json.dumps(values, indent=2) + "\n"
    if path is None:
        sys.stdout.write(text)
        return
    from .write import write_text

    write_text(text, path)


app.command(no_args_is_help=True)(cli_folder.inspect)
app.command(no_args_is_help=True)(cli_folder.batch)
app.command(no_args_is_help=True)(cli_expand.expand)
app.command(no_args_is_help=True)(cli_expand.bracket)
app.command(no_args_is_help=True)(cli_video.video)
app.command()(cli_networks.networks)
app.command(no_args_is_help=True)(cli_evaluate.evaluate)
cli_train.app.command(no_args_is_help=True)(cli_train_video.video)
app.add_typer(cli_train.app, name="train")
