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
    from .evaluate import Evaluation

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

    The reference alone, the plain merge and the classical merge are always
    judged, by PSNR and SSIM in linear light and after the mu-law, and by
    PU21. HDR-VDP-2 is not computed: PU21 stands in. A case that fails is
    left out, and the exit code is 1.

    Example: hdrmerge evaluate --dataset scenes/test --network trust --json figures.json
    """
    from .dataset import open_dataset
    from .evaluate import evaluate as judge
    from .pipeline import MergeOptions, open_network, paints

    to_stdout = report_file is not None and str(report_file) == "-"
    if report_file and not to_stdout:
        check_targets([report_file], [], force)
    if save and save.exists() and not (force or (save.is_dir() and not any(save.iterdir()))):
        raise OutputError(f"{save}: exists; name a new folder, or add --force to write into it")
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
    text = json.dumps(values, indent=1) + "\n"
    if to_stdout:
        sys.stdout.write(text)
    elif report_file:
        from .write import write_text

        write_text(text, report_file)
    if not found.cases:
        raise InputError(f"{dataset}: no case could be judged")
    if not (quiet or to_stdout):
        _print_table(found, values["environment"])
    if found.failures:
        say(f"{len(found.failures)} of {count(len(cases.names), 'case')} failed, left out of all rows")
        raise typer.Exit(EXIT_FAILED)


def _print_table(found: Evaluation, environment: dict[str, Any]) -> None:
    """Print PSNR-mu of each method on stdout, with its gain over the reference alone."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    def cell(value: float, gain: float) -> str:
        if math.isnan(value):
            return ""
        return f"{value:.2f}" if math.isnan(gain) or gain == 0 else f"{value:.2f} {gain:+.2f}"

    table = Table(box=None, header_style="bold")
    table.add_column("PSNR-mu, dB")
    for column in ("whole", "moving sets", "moving", "and clipped", "static", "static sets", "s/MP"):
        table.add_column(column, justify="right")
    rows = found.rows()
    for method, row in rows.items():
        psnr, gain = row["psnr_mu"], row["gain"]["psnr_mu"]
        of_regions = {region: cell(psnr[region], gain[region]) for region in psnr}
        of_sets = [cell(row[sets]["psnr_mu"], row[sets]["gain"]) for sets in ("moving_sets", "static_sets")]
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
    console = Console(width=None if sys.stdout.isatty() else WIDE, highlight=False)
    console.print(table)
    sets = next(iter(rows.values()))
    parts = [
        f"{count(sets['cases'], 'case')}, {sets['moving_sets']['cases']} with motion, "
        f"{sets['static_sets']['cases']} without",
        "gains over the reference alone",
    ]
    if environment["peak_memory_mb"]:
        parts.append(f"the process took {environment['peak_memory_mb']:.0f} MB at most")
    if environment["commit"]:
        parts.append(f"commit {environment['commit']}")
    console.print("; ".join(parts), soft_wrap=True)
