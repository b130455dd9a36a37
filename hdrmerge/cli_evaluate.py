"""The command that measures: methods over a dataset, one table."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import EXIT_FAILED, count, say, show_progress
from .errors import InputError, OutputError
from .options import Arithmetic, Device, Force, Precision, Quiet, check_targets, device_of

if TYPE_CHECKING:
    from rich.table import Table

    from .evaluate import Evaluation
    from .evaluate_video import Given, VideoEvaluation

WIDE = 120  # columns of the table where stdout is no terminal


def evaluate(
    dataset: Annotated[
        Path,
        typer.Option(metavar="FOLDER", readable=False, show_default=False, help="The folder of a dataset."),
    ],
    network: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|FILE",
            help="A network to judge beside the classical merge; may be repeated.",
            show_default=False,
        ),
    ] = None,
    coarse: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE", help="A network of HDR video, the first of two.", show_default="released"
        ),
    ] = None,
    refine: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="The second of them.", show_default="released"),
    ] = None,
    number: Annotated[
        int | None,
        typer.Option(
            "--count",
            min=1,
            metavar="N",
            help="Judge the first N cases.",
            show_default="all sets, 40 simulated brackets",
        ),
    ] = None,
    frames: Annotated[
        int | None,
        typer.Option(min=2, metavar="N", help="Of these only the brackets of N frames.", show_default="all"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of simulated brackets.")] = 0,
    fit_scale: Annotated[
        bool, typer.Option("--fit-scale", help="Bring each truth to the scale of its frames first.")
    ] = False,
    device: Device = "auto",
    precision: Arithmetic = Precision.auto,
    everywhere: Annotated[
        bool,
        typer.Option(
            "--everywhere", help="Judge networks that paint also when they paint the whole picture."
        ),
    ] = False,
    save: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            readable=False,
            show_default=False,
            help="Write the truth and all results side by side, and a crop at 100 % where the last is worst.",
        ),
    ] = None,
    report_file: Annotated[
        Path | None,
        typer.Option(
            "--json",
            metavar="REPORT",
            readable=False,
            help="Write all figures, of each case too; - for stdout, in place of the table.",
        ),
    ] = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Measure quality and cost of merges on brackets whose truth is known.

    The dataset is one of these folders:

      HDR scenes (.exr, .hdr), of which brackets are simulated
      sets of Kalantari 2017: three .tif, exposure.txt, HDRImg.hdr
      sets of photographs with truth.exr, .hdr or .tif, 1.0 where the middle
      exposure clips, and if need be moving.png (white), exposures.txt
      (seconds) or ev.txt (stops)
      HDR video as DeepHDRVideo has it: Exposures.txt, img_hdr_list.txt or
      img_list.txt, .tif and .hdr in each scene's folder

    The reference alone, the plain merge and the classical merge are always
    judged, by PSNR and SSIM in linear light and after the mu-law, and by
    PU21; of video the reference, the merge in line and the one by optical
    flow. HDR-VDP-2 is not computed: PU21 stands in. A case that fails is
    left out, and the exit code is 1.

    Example: hdrmerge evaluate --dataset scenes/test --network trust --json figures.json
    """
    from .dataset import open_dataset
    from .evaluate import evaluate as judge
    from .pipeline import MergeOptions, open_network, paints
    from .sequences import scenes_in

    video = bool(scenes_in(dataset))
    only: dict[str, Any] = {"--coarse": coarse, "--refine": refine}
    if video:
        only = {"--network": network, "--frames": frames, "--everywhere": everywhere, "--save": save}
    if stated := [name for name, value in only.items() if value]:
        raise typer.BadParameter(f"is for {'brackets' if video else 'HDR video'}", param_hint=stated[0])
    to_stdout = report_file is not None and str(report_file) == "-"
    if report_file and not to_stdout:
        check_targets([report_file], [], force)
    if save and save.exists() and not (force or (save.is_dir() and not any(save.iterdir()))):
        raise OutputError(f"{save}: exists; name a new folder, or add --force to write into it")
    if video:
        _evaluate_video(
            dataset, {"coarse": coarse, "refine": refine}, number, device_of(device), precision.value,
            fit_scale, report_file, quiet,
        )  # fmt: skip
        return
    networks = [name for name in network or [] if name != "none"]
    choices = [
        MergeOptions(network=name, device=device_of(device), precision=precision.value) for name in networks
    ]
    opened = [open_network(choice)[0] for choice in choices]  # before the work begins
    if everywhere and not any(map(paints, opened)):
        raise typer.BadParameter("no network that paints is named with --network", param_hint="--everywhere")
    cases = open_dataset(dataset, number, seed, frames)
    with show_progress(not quiet, {"evaluate": 1.0}) as progress:
        found = judge(
            cases,
            networks,
            device=device_of(device),
            precision=precision.value,
            fit_scale=fit_scale,
            everywhere=everywhere,
            save=save,
            progress=lambda share: progress("evaluate", share),
            failed=lambda name, error: say(f"{name} failed: {' '.join(str(error).split())}"),
        )
    values = found.to_json()
    _write_report(values, report_file)
    if not found.cases:
        raise InputError(f"{dataset}: no case could be judged")
    if not (quiet or to_stdout):
        _print_table(found, values["environment"])
    if found.failures:
        say(f"{len(found.failures)} of {count(len(cases.names), 'case')} failed, left out of all rows")
        raise typer.Exit(EXIT_FAILED)


def _write_report(values: dict[str, Any], report_file: Path | None) -> None:
    text = json.dumps(values, indent=1) + "\n"
    if report_file is None:
        return
    if str(report_file) == "-":
        sys.stdout.write(text)
        return
    from .write import write_text

    write_text(text, report_file)


# --- video ----------------------------------------------------------------------------------------


def _evaluate_video(
    dataset: Path,
    given: Given,
    number: int | None,
    device: str,
    precision: str,
    fit_scale: bool,
    report_file: Path | None,
    quiet: bool,
) -> None:
    from .evaluate_video import evaluate_video
    from .weights import find

    for choice in filter(None, given.values()):
        find(choice)  # before the work begins
    with show_progress(not quiet, {"evaluate": 1.0}) as progress:
        found = evaluate_video(
            dataset,
            given,
            count=number,
            device=device,
            precision=precision,
            fit_scale=fit_scale,
            progress=lambda share: progress("evaluate", share),
            failed=lambda name, error: say(f"{name} failed: {' '.join(str(error).split())}"),
        )
    values = found.to_json()
    _write_report(values, report_file)
    if not found.frames:
        raise InputError(f"{dataset}: no frame could be judged")
    if not (quiet or str(report_file) == "-"):
        _print_video_table(found, values["environment"])
    if found.failures:
        say(f"{count(len(found.failures), 'scene')} failed, left out of all rows")
        raise typer.Exit(EXIT_FAILED)


def _print_video_table(found: VideoEvaluation, environment: dict[str, Any]) -> None:
    """Print PSNR-mu by exposure on stdout, with the gain over the reference alone, and SSIM and PU21."""
    from .evaluate_video import EXPOSURES

    rows = found.rows()
    shown = [name for name in EXPOSURES if any(frame.exposure == name for frame in found.frames)]
    table = _table("PSNR-mu, dB", *shown, "all", "SSIM-mu", "PU21", "s/MP")
    for method, row in rows.items():
        table.add_row(
            method,
            *(_cell(row["psnr_mu"][name], row["gain"]["psnr_mu"][name]) for name in (*shown, "all")),
            f"{row['ssim_mu']['all']:.4f}",
            f"{row['pu21']['all']:.2f}",
            f"{row['seconds_per_megapixel']:.2f}",
        )
    scenes = len({frame.scene for frame in found.frames})
    _print(table, f"{count(len(found.frames), 'frame')} of {count(scenes, 'scene')}", environment)


# --- tables ---------------------------------------------------------------------------------------


def _cell(value: float, gain: float) -> str:
    if math.isnan(value):
        return ""
    return f"{value:.2f}" if math.isnan(gain) or gain == 0 else f"{value:.2f} {gain:+.2f}"


def _table(*columns: str) -> Table:
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    table.add_column(columns[0])
    for column in columns[1:]:
        table.add_column(column, justify="right")
    return table


def _print(table: Table, judged: str, environment: dict[str, Any]) -> None:
    """Print a table, what was judged, and what the figures depend on."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else WIDE, highlight=False)
    console.print(table)
    parts = [judged, "gains over the reference alone"]
    if environment["peak_memory_mb"]:
        parts.append(f"the process took {environment['peak_memory_mb']:.0f} MB at most")
    if environment["commit"]:
        parts.append(f"commit {environment['commit']}")
    console.print("; ".join(parts), soft_wrap=True)


# --- brackets -------------------------------------------------------------------------------------


def _print_table(found: Evaluation, environment: dict[str, Any]) -> None:
    """Print PSNR-mu of each method on stdout, with its gain over the reference alone."""
    from rich.markup import escape

    table = _table(
        "PSNR-mu, dB", "whole", "moving sets", "moving", "and clipped", "static", "static sets", "s/MP"
    )
    rows = found.rows()
    for method, row in rows.items():
        psnr, gain = row["psnr_mu"], row["gain"]["psnr_mu"]
        of_regions = {region: _cell(psnr[region], gain[region]) for region in psnr}
        of_sets = [_cell(row[sets]["psnr_mu"], row[sets]["gain"]) for sets in ("moving_sets", "static_sets")]
        seconds = row["seconds_per_megapixel"]
        table.add_row(
            escape(method),
            of_regions["whole"],
            of_sets[0],
            of_regions["moving"],
            of_regions["moving_saturated"],
            of_regions["static"],
            of_sets[1],
            "" if math.isnan(seconds) else f"{seconds:.2f}",
        )
    sets = next(iter(rows.values()))
    motion = f"{sets['moving_sets']['cases']} with motion, {sets['static_sets']['cases']} without"
    _print(table, f"{count(sets['cases'], 'case')}, {motion}", environment)
