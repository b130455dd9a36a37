"""The commands for whole folders: what they hold, and all of it merged."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from traceback import format_exc
from typing import TYPE_CHECKING, Annotated

import typer

from .console import EXIT_FAILED, BatchTeller, count, parts_of, say, show_batch, show_progress
from .errors import BracketError, HdrmergeError, OutputError
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
    Format,
    Gap,
    Network,
    Operator,
    PerSet,
    Precision,
    Preview,
    Quiet,
    Recursive,
    ToneCurve,
    Trust,
    Trusted,
    Verbose,
    device_of,
    ev100_of,
    network_of,
    response_of,
)

if TYPE_CHECKING:
    from .batch import Batch
    from .exposure import Response
    from .folder import Plan
    from .shared import Curves


def inspect(
    paths: Annotated[
        list[Path],
        typer.Argument(help="Folders and photographs.", readable=False, show_default=False),
    ],
    recursive: Recursive = False,
    gap: Gap = None,
    per_set: PerSet = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON, for scripts.")] = False,
    quiet: Quiet = False,
) -> None:
    """Show the brackets that folders hold, and why other photographs are in none.

    Only metadata is read, and nothing is written. The exit code is 1 where
    not one photograph could be read.

    Example: hdrmerge inspect photos -r
    """
    from .folder import describe

    found = _plan(paths, recursive, gap, per_set, quiet)
    if as_json:
        print(json.dumps(found.to_json(), indent=2))
    elif found.grouping.sets or found.grouping.left_out or found.unreadable:
        print(*describe(found), sep="\n")
    if not found.grouping.sets and not found.grouping.left_out:
        say(_nothing(paths, found, recursive))
        raise typer.Exit(EXIT_FAILED)


def batch(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="FOLDER...", help="Folders, or photographs.", readable=False, show_default=False
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            readable=False,
            show_default=False,
            help="The folder to write to: OUT/sub/first-last.exr for a set in FOLDER/sub.",
        ),
    ],
    recursive: Recursive = False,
    gap: Gap = None,
    per_set: PerSet = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be done to each set; write nothing.")
    ] = False,
    anchor: Annotated[
        str,
        typer.Option(
            metavar="reference|shared|EV",
            help="Where radiance 1.0 lies: each reference frame, one EV100 for all, or this EV100.",
        ),
    ] = "reference",
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=1, metavar="N", help="Merge N sets at a time.")
    ] = 1,
    response: Curve = "auto",
    trust: Trust = Trusted.exif,
    align: Alignment = Align.homography,
    deghost: Deghosting = Deghost.auto,
    network: Network = None,
    device: Device = "auto",
    precision: Arithmetic = Precision.auto,
    everywhere: Everywhere = False,
    form: Annotated[Format, typer.Option("--format", help="Of the merged files.")] = Format.exr,
    compression: ExrCompression = Compression.zip,
    float32: Float32 = False,
    preview: Preview = True,
    operator: Operator = ToneCurve.durand2002,
    report_file: Annotated[
        Path | None,
        typer.Option(
            "--json",
            metavar="REPORT",
            readable=False,
            help="Write a line of JSON for each set as it ends; - for stdout, in place of the names.",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace output of other settings or photographs.")
    ] = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Merge every bracket in folders, and go on where an earlier run ended.

    A set that is done already, from the same photographs with the same
    settings, is skipped, so that the same command finishes a batch that was
    interrupted. A set that cannot be merged is reported, the others are
    merged, and the exit code is 1.

    Example: hdrmerge batch photos -o merged -r
    """
    to_stdout = report_file is not None and str(report_file) == "-"
    if dry_run and report_file and not to_stdout:
        raise typer.BadParameter("--dry-run writes nothing; give --json - for stdout", param_hint="--json")
    ev100, curve = ev100_of(anchor, "reference", "shared"), response_of(response)
    found = _plan(folders, recursive, gap, per_set, quiet)
    if not found.grouping.sets and not found.unreadable:
        raise BracketError(_nothing(folders, found, recursive))

    from .batch import Batch, Recipe, available_memory
    from .journal import NAME as JOURNAL
    from .journal import Journal, ReportFile
    from .pipeline import MergeOptions, open_network, paints
    from .shared import keep_anchor, known_curves, shared_anchor
    from .worklist import photographs_of, without_outputs, worklist

    journal = Journal(output)
    found = without_outputs(found, journal.outputs())
    tasks = worklist(found, folders, output, [f".{form.value}", *([".jpg"] if preview else [])])
    if anchor == "shared":
        ev100 = shared_anchor(tasks, journal)
        if not quiet:
            say(f"--anchor shared: 1.0 is white at EV {ev100:.2f}")
    options = MergeOptions(
        response=curve,
        trust=trust.value,
        anchor=ev100,
        align=align.value,
        deghost=deghost.value,
        network=network_of(network),
        device=device_of(device),
        precision=precision.value,
        everywhere=everywhere,
    )
    opened = None
    if not dry_run:
        opened, _ = open_network(options)  # what cannot run is said once, before the work
    judging, painting = opened is not None and opened.judge is not None, paints(opened)
    recipe = Recipe(options, compression.value, float32, operator.value)
    work = Batch(tasks, recipe, journal, photographs_of(found), force)
    if dry_run:
        if curve == "auto":
            work.recipe = replace(recipe, curves=known_curves(tasks, journal, recipe.curve_settings())[0])
        _show_plan(work, found, to_stdout)
        return
    folders_written = {path.parent for task in tasks for path in task.outputs}
    if report_file and not to_stdout:
        if report_file.name == JOURNAL or work.is_photograph(report_file):
            raise OutputError(f"{report_file}: the report would replace it; choose another name with --json")
        folders_written.add(report_file.parent)
    with ExitStack() as stack:
        stack.enter_context(journal.claimed(folders_written))
        if anchor == "shared" and ev100 is not None:
            keep_anchor(ev100, journal)
        teller = BatchTeller(to_stdout, verbose, quiet)
        work.recipe = replace(recipe, curves=_curves(work, teller))
        if report_file and not to_stdout:
            report = ReportFile(report_file, work.finished(), force)
            teller.report = stack.enter_context(closing(report))
        bar = stack.enter_context(show_batch(len(tasks), not quiet, parts_of(painting, everywhere)))
        running = work.run(jobs, available_memory(), bar.show, teller.waits, judging, painting)
        outcomes = stack.enter_context(closing(running))
        for outcome in outcomes:
            bar.end(outcome.task.name)
            teller.tell(outcome)
    in_sets = sum(len(task.beside) for task in tasks)
    teller.sum_up(len(found.grouping.left_out) - in_sets)
    if teller.failed:
        raise typer.Exit(EXIT_FAILED)


def _plan(
    paths: Sequence[Path], recursive: bool, gap: float | None, per_set: int | None, quiet: bool
) -> Plan:
    from .folder import plan

    with show_progress(not quiet, {"read": 1.0}) as progress:
        return plan(paths, recursive, gap, per_set, progress)


def _nothing(paths: Sequence[Path], found: Plan, recursive: bool) -> str:
    """Return the message for folders of which nothing can be merged."""
    where = str(paths[0]) if len(paths) == 1 else f"{paths[0]} (and {len(paths) - 1} more)"
    if found.grouping.left_out:
        alone = count(len(found.grouping.left_out), "photograph")
        return f"{where}: {alone}, no bracket; hdrmerge inspect tells why"
    if found.unreadable:
        return f"{where}: {count(len(found.unreadable), 'file')}, none can be read; name another folder"
    deeper = "" if recursive else ", or add -r for the folders within"
    return f"{where}: holds no photograph; name another folder{deeper}"


def _curves(work: Batch, teller: BatchTeller) -> Curves:
    """Return the response curves that sets of one camera share, found now unless they are known."""
    if work.recipe.options.response != "auto":
        return {}
    from .pipeline import shared_response
    from .shared import find_curves

    def find(brackets: Sequence[Sequence[Path]]) -> Response | None:
        try:
            return shared_response(brackets, work.recipe.options)
        except HdrmergeError:
            raise
        except Exception as error:  # the sets can be merged without, each with a curve of its own
            teller.fault(f"no shared response curve: {type(error).__name__}: {error}", format_exc())
            return None

    with show_progress(not teller.quiet, {"response": 1.0}) as progress:
        curves, written = find_curves(
            work.tasks,
            work.journal,
            work.recipe.curve_settings(),
            find,
            lambda share: progress("response", share),
        )
    teller.names(written)
    return curves


def _show_plan(work: Batch, found: Plan, as_json: bool) -> None:
    """Print what a batch would do with each set, and what is in none."""
    from .batch import line
    from .folder import Plan, describe, frame_lines, relative_ev
    from .group import Grouping
    from .roll import camera_name

    for number, task in enumerate(work.tasks, 1):
        try:
            status, error = "merge" if work.origin_of(task) else "skip", ""
        except HdrmergeError as reason:
            status, error = "fail", " ".join(str(reason).split())
        if as_json:
            said = {"ev": relative_ev(task.shots), "outputs": [str(path) for path in task.outputs]}
            print(json.dumps({**line(task, status), **said, "error": error}))
            continue
        camera = camera_name(task.shots[0]) if task.shots else ""
        doubt = "" if task.sure else " (not sure: look at them)"
        print(f"set {number}: {', '.join(part for part in (task.name, camera, task.why) if part)}{doubt}")
        for frame in frame_lines(task.shots):
            print(frame)
        for file in task.unreadable:
            print(f"  unreadable  {file.path}")
        if error:
            print(f"  would fail: {error}")
        for output in () if error else task.outputs:
            print(f"  {'finished' if status == 'skip' else 'to'}  {output}")
    if not as_json:
        rest = describe(Plan(Grouping((), found.grouping.left_out), found.unreadable))
        print(*rest, sep="\n", end="\n" if rest else "")
