"""The commands that train networks."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import Group
from .labelrun import LabelRun, subsets_of
from .options import Curve, Device, Force, Gap, PerSet, Quiet, Recursive
from .trainingrun import Run, SceneRun, config_of, give, network_in

if TYPE_CHECKING:
    from .training.lesson import Recipe

BRACKETS = 2000
HELD_OUT = 200  # brackets of the scenes set aside
RETAKEN = 400  # brackets photographed again


MULTIPLES = {"unet": 4, "resnet": 16, "grdn": 4}
"""Architecture -> what its width is a multiple of."""


class Learner(str, Enum):
    unet = "unet"
    resnet = "resnet"
    grdn = "grdn"
    trust = "trust"


app = typer.Typer(cls=Group, no_args_is_help=True, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.callback()
def main() -> None:
    """Train a network on scenes of your own.

    Example: hdrmerge train merge --scenes scenes/train -o mine.onnx
    """


# --- the options that all of them share -----------------------------------------------------------

Scenes = Annotated[
    Path,
    typer.Option(
        metavar="FOLDER", readable=False, show_default=False, help="HDR scenes to photograph: .exr, .hdr."
    ),
]
Output = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE.onnx",
        readable=False,
        show_default=False,
        help="The weights file to write.",
    ),
]
Budget = Annotated[str, typer.Option(metavar="TIME", help="How long to train: 90m, 2h, 45s, 1h30m.")]
Examples = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        readable=False,
        help="Where examples are, or are made.",
        show_default="examples beside the checkpoint",
    ),
]
Brackets = Annotated[int, typer.Option(min=1, metavar="N", help="Brackets to make examples of, 8 MB each.")]
HeldOut = Annotated[
    int, typer.Option(min=1, metavar="N", help="Brackets of the scenes set aside, 20 MB each.")
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Processes that make examples, 1.2 GB each.",
        show_default="all processors",
    ),
]
Init = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.onnx", readable=False, show_default=False, help="Weights to start a new run from."
    ),
]
Checkpoint = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        readable=False,
        help="Where the run goes on from after a kill.",
        show_default="the output's name with .safetensors",
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(
        min=0,
        metavar="N",
        help="Stop after so many steps in all; 0 writes what the checkpoint holds.",
        show_default=False,
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Of examples, first weights and batches.")]
Data = Annotated[
    str,
    typer.Option(
        metavar="TEXT", help="What the scenes are and their licence, for the card.", show_default=False
    ),
]
Plot = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.png",
        readable=False,
        help="A picture of curves and results, drawn anew with every score.",
        show_default="the checkpoint's name with .png",
    ),
]


@app.command(no_args_is_help=True)
def merge(
    scenes: Scenes,
    output: Output,
    budget: Budget = "90m",
    examples: Examples = None,
    brackets: Brackets = BRACKETS,
    held_out: HeldOut = HELD_OUT,
    workers: Workers = None,
    network: Annotated[str, typer.Option(metavar="NAME", help="The architecture to train.")] = "trust",
    config: Annotated[
        str | None,
        typer.Option(
            metavar="JSON",
            help="Its configuration, as a weights file's card has it.",
            show_default="that of the checkpoint, of --init, or its own",
        ),
    ] = None,
    init: Init = None,
    checkpoint: Checkpoint = None,
    device: Device = "auto",
    steps: Steps = None,
    seed: Seed = 0,
    data: Data = "",
    plot: Plot = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Train the network that judges motion in merges.

    Brackets are photographed from your scenes with objects that move, a
    camera that shakes, noise and response curves drawn at random; some
    scenes are set aside to take scores on. Examples are made once and
    trained on for the time given. After a kill the same command goes on
    from the last checkpoint, at most two minutes back; after the end it
    goes on if given a larger budget.

    The file it writes is what other commands take for --network.

    Example: hdrmerge train merge --scenes scenes/train -o mine.onnx --budget 2h
    """
    run = SceneRun.of(locals())
    stated = config_of(config)
    run.check()
    from .training import trust

    def prepare(common: dict[str, Any]) -> Recipe:
        found = run.design()
        if stated is not None:
            return trust.TrustRecipe(network, stated, **common)
        return trust.TrustRecipe(*(found or (network, {})), **common)

    run.carry_out(trust.TrustLesson, prepare)


@app.command(no_args_is_help=True)
def hdrgan(
    scenes: Scenes,
    output: Output,
    budget: Budget = "90m",
    examples: Examples = None,
    brackets: Brackets = BRACKETS,
    held_out: HeldOut = HELD_OUT,
    workers: Workers = None,
    width: Annotated[
        int | None,
        typer.Option(
            min=2,
            metavar="N",
            help="Channels at full resolution, twice and four times that below it.",
            show_default="that of the checkpoint, of --init, or 32",
        ),
    ] = None,
    residual: Annotated[
        bool | None,
        typer.Option(
            "--residual/--paper",
            help="Mend the classical merge, or say everything as the paper's network does.",
            show_default="that of the checkpoint, of --init, or --residual",
        ),
    ] = None,
    rate: Annotated[float, typer.Option(min=0.0, metavar="X", help="The highest learning rate.")] = 3e-4,
    batch: Annotated[int, typer.Option(min=1, metavar="N", help="Patches of 128 px a step.")] = 4,
    adversarial: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            metavar="SHARE",
            help="The share of the budget, at its end, in which a discriminator takes part.",
        ),
    ] = 0.0,
    gan_weight: Annotated[
        float, typer.Option(min=0.0, metavar="X", help="Of what the discriminator says; 1 is the paper's.")
    ] = 1.0,
    spectral: Annotated[
        bool, typer.Option("--spectral", help="Normalise weights by their largest singular values.")
    ] = False,
    mend: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.onnx",
            readable=False,
            show_default=False,
            help="A network of train merge, to mend what it makes of every other batch.",
        ),
    ] = None,
    init: Init = None,
    checkpoint: Checkpoint = None,
    device: Device = "auto",
    steps: Steps = None,
    seed: Seed = 0,
    data: Data = "",
    plot: Plot = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Train the network that makes HDR of three exposures (HDR-GAN).

    Examples are those of `hdrmerge train merge`, made once, and may be
    shared by --examples. Of each, the reference and its nearest shorter
    and longer neighbours are shown. The network learns to be near to the
    truth; with --adversarial also, towards the end, to be taken for it
    by a second network. --spectral, --adversarial and --gan-weight are
    to be repeated when a run goes on.

    Full width is for a GPU, as are larger batches and a run of days; on
    a CPU choose --width 16. Rates much above the default let the network
    die (its last features are 0 everywhere and stay so).

    Example: hdrmerge train hdrgan --scenes scenes/train -o mine.onnx --width 16
    """
    run = SceneRun.of(locals())
    run.check()
    from .training.hdrgan import HdrGanLesson, HdrGanRecipe

    def prepare(common: dict[str, Any]) -> Recipe:
        architecture, config = run.design() or ("hdrgan", {"width": 32, "residual": True})
        stated = {"width": width, "residual": residual}
        config |= {name: value for name, value in stated.items() if value is not None}
        return HdrGanRecipe(
            architecture,
            config,
            rate=rate,
            batch=batch,
            adversarial=adversarial,
            gan_weight=gan_weight,
            spectral=spectral,
            judge=None if mend is None else network_in(mend),
            **common,
        )

    run.carry_out(HdrGanLesson, prepare)


@app.command(no_args_is_help=True)
def self_supervised(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATHS...",
            help="Folders and photographs that hold brackets.",
            readable=False,
            show_default=False,
        ),
    ],
    output: Output,
    network: Annotated[Learner, typer.Option(help="The architecture to train.")] = Learner.unet,
    budget: Budget = "60m",
    init: Init = None,
    width: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Channels at full resolution; not of trust.",
            show_default="that of the checkpoint, of --init, or 64, the paper's",
        ),
    ] = None,
    residual: Annotated[
        bool | None,
        typer.Option(
            "--residual/--paper",
            help="Add to the reference, or say everything as the paper's networks do; not of trust.",
            show_default="that of the checkpoint, of --init, or --residual",
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            readable=False,
            help="Where pseudo-labels and their picture sheets are, or are made.",
            show_default="labels beside the checkpoint",
        ),
    ] = None,
    subsets: Annotated[
        str | None,
        typer.Option(
            metavar="ED,EDM,MD,MDM",
            help="What to learn from; not of trust.",
            show_default="ED,MD; all with --as-captured",
        ),
    ] = None,
    as_captured: Annotated[
        bool, typer.Option("--as-captured", help="Do not align frames first; as in the paper.")
    ] = False,
    quantile: Annotated[
        float,
        typer.Option(
            min=0.5,
            max=1.0,
            metavar="SHARE",
            help="Of a patch in which motion must agree for it to be static; less forgives noise.",
        ),
    ] = 1.0,
    agreement: Annotated[
        float,
        typer.Option(metavar="DB", help="PSNR between a fused label and the reference, at least."),
    ] = 45.0,
    recursive: Recursive = False,
    gap: Gap = None,
    per_set: PerSet = None,
    response: Curve = "auto",
    rate: Annotated[
        float | None,
        typer.Option(
            min=0.0, metavar="X", help="The learning rate.", show_default="1e-4, the paper's; 3e-4 of trust"
        ),
    ] = None,
    batch: Annotated[int, typer.Option(min=2, metavar="N", help="Patches of 128 px a step.")] = 16,
    brackets: Annotated[
        int, typer.Option(min=1, metavar="N", help="Brackets to photograph again, for trust.")
    ] = RETAKEN,
    workers: Workers = None,
    checkpoint: Checkpoint = None,
    device: Device = "auto",
    steps: Steps = None,
    seed: Seed = 0,
    data: Data = "",
    plot: Plot = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Train a network on your own brackets, without a truth.

    What the three frames of a bracket show is known where nothing moves,
    by fusing them, and where the reference is well exposed, by itself.
    From such patches four kinds of lessons are drawn: as captured (MD),
    with light added (ED), with motion added besides (MDM, EDM), which
    is for networks that see frames as captured.
    Brackets of which nothing can be learned are named with the reason;
    one in eight is set aside to take scores on.

    unet, resnet and grdn paint where three frames disagree. trust, the
    network that merges use by default, goes on from what it is, on new
    photographs of what your brackets show: half of them by your camera,
    half by others, so that it forgets nothing.

    Labels are made once; after a kill the same command goes on. At full
    width a GPU is needed; on a CPU choose --width 16 and --rate 1e-3.

    Example: hdrmerge train self-supervised photos -o mine.onnx --width 16
    """
    run = LabelRun.of(locals())
    chosen = subsets_of(subsets, as_captured)
    check_width(network.value, width)
    run.check()
    if network is Learner.trust:
        run.judge()
    else:
        run.paint(network.value, width, residual, chosen)


@app.command(no_args_is_help=True)
def expand(
    scenes: Scenes,
    output: Output,
    budget: Budget = "60m",
    width: Annotated[
        int | None,
        typer.Option(
            min=2,
            metavar="N",
            help="Channels of the first network at full resolution; 16 in the paper.",
            show_default="that of the checkpoint, of --init, or 8",
        ),
    ] = None,
    deepest: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Times as many at the lowest resolution; 16 in the paper.",
            show_default="that of the checkpoint, of --init, or 4",
        ),
    ] = None,
    residual: Annotated[
        bool | None,
        typer.Option(
            "--residual/--paper",
            help="Add to what arithmetic makes of the photograph, or paint all of it as in the paper.",
            show_default="that of the checkpoint, of --init, or --residual",
        ),
    ] = None,
    rate: Annotated[float, typer.Option(min=0.0, metavar="X", help="The highest learning rate.")] = 1e-4,
    batch: Annotated[int, typer.Option(min=2, metavar="N", help="Pairs of photographs a step.")] = 16,
    size: Annotated[int, typer.Option(min=128, metavar="PX", help="Of the side of a patch.")] = 128,
    masked: Annotated[
        bool, typer.Option("--masked", help="Leave out what the wanted photograph clips; as the authors do.")
    ] = False,
    longer: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            metavar="SHARE",
            help="Of pairs whose longer photograph is painted, too; 1 in the paper.",
        ),
    ] = 0.25,
    settled: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            metavar="SHARE",
            help="Of the budget, then batches are normalised as photographs are; 0 where --init has learned.",
        ),
    ] = 0.75,
    vgg: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            readable=False,
            help="Weights of VGG-19 (.safetensors, .onnx) for the perceptual loss.",
            show_default="edges and SSIM at four scales instead",
        ),
    ] = None,
    held_out: Annotated[
        int, typer.Option(min=1, metavar="N", help="Views of the scenes set aside to take scores on.")
    ] = 40,
    init: Init = None,
    checkpoint: Checkpoint = None,
    device: Device = "auto",
    steps: Steps = None,
    seed: Seed = 0,
    data: Data = "",
    plot: Plot = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Train the network that shows one photograph at other exposures.

    Pairs of photographs of one view are taken of your scenes at random
    exposures, by cameras with curves and noise of their own. From each
    the network learns to make the other; hdrmerge expand merges what it
    makes. At the paper's width (--width 16 --deepest 16 --paper, 124 MB)
    a GPU is needed.

    Example: hdrmerge train expand --scenes scenes/train -o mine.onnx --rate 1e-3
    """
    run = Run.of(locals())
    run.check()
    from .training.exposures import SceneExposures
    from .training.virtual_bracket import NARROW, VirtualBracketLesson, VirtualBracketRecipe

    def prepare(common: dict[str, Any]) -> Recipe:
        architecture, config = run.design() or ("virtual_bracket", dict(NARROW))
        stated = {"width": width, "deepest": deepest, "residual": residual}
        config |= {name: value for name, value in stated.items() if value is not None}
        common |= {"rate": rate, "batch": batch, "size": size, "masked": masked, "vgg": vgg}
        common |= {"longer": longer, "settled": settled}
        return VirtualBracketRecipe(architecture, config, **common)

    lesson = run.begin(VirtualBracketLesson, prepare)
    aside = SceneExposures.read(scenes, validation=True).held_out(held_out, 256)
    give(run, lesson, SceneExposures.read(scenes), aside)


def check_width(architecture: str, width: int | None) -> None:
    """Refuse a width that an architecture cannot have."""
    if width is None:
        return
    least = MULTIPLES.get(architecture)
    if least is None:
        raise typer.BadParameter(f"{architecture} has no width", param_hint="--width")
    if width < least or width % least:
        raise typer.BadParameter(
            f"{width} is no multiple of {least}, as {architecture} needs", param_hint="--width"
        )
