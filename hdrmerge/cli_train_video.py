"""The command that trains the networks of HDR video, a stage at a time.

options -> `VideoRun` -> clips -> lesson -> weights file, of joint two
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from .cli_train import Budget, Checkpoint, Data, Init, Output, Plot, Scenes, Seed, Steps
from .console import count, say
from .errors import InputError, NetworkError
from .options import Device, Force, Quiet, check_targets
from .trainingbar import show_making
from .trainingrun import Run, config_of, device_name, give, network_in, processors

if TYPE_CHECKING:
    from .training.clips import Filmed
    from .training.lesson import Recipe
    from .training.video import JointLesson, VideoLesson

CLIPS = 1500
HELD_OUT = 48  # clips of the scenes set aside, each exposure the reference's as often
JUDGED = 256  # [px] of the side of what is taken of each
MULTIPLE = 16  # [px] of the side of a patch: what the coarse network pools


class Stage(str, Enum):
    coarse = "coarse"
    refine = "refine"
    joint = "joint"


@dataclass(frozen=True)
class VideoRun(Run):
    """What is asked for of video."""

    stage: Stage
    scenes: Path
    exposures: int | None
    coarse: Path | None
    clips: Path | None
    number: int
    held_out: int
    workers: int | None
    rate: float | None
    batch: int | None
    size: int
    paper: bool
    config: str | None
    perceptual: float
    vgg: Path | None

    @property
    def architecture(self) -> str:
        return "coarse" if self.stage is Stage.coarse else "refine"

    @property
    def outputs(self) -> list[Path]:
        """What is written: the network, and of joint the coarse one it is used with."""
        beside = self.output.with_name(f"{self.output.stem}-coarse.onnx")
        return [self.output, beside] if self.stage is Stage.joint else [self.output]

    @property
    def folders(self) -> tuple[Path, Path]:
        """Where the clips to train on are, and those held out."""
        clips = self.clips or self.resumed.parent / "clips"
        return clips / "train", clips / "held_out"

    @property
    def start(self) -> Path | None:
        """What the run goes on from."""
        return self.resumed if self.resumed.exists() else self.init

    def check(self) -> None:
        self._check_options()
        super().check()
        inputs = [path for path in (self.init, self.coarse) if path]
        check_targets(self.outputs, inputs, self.force)
        if self.stage is not Stage.coarse and self.coarse is None:
            raise NetworkError(
                f"--stage {self.stage.value} needs a coarse network; name its file with --coarse "
                "(hdrmerge train video --stage coarse makes one)"
            )
        if self.stage is Stage.joint and self.start is None:
            raise NetworkError(
                "--stage joint goes on from a refining network; name its file with --init "
                "(hdrmerge train video --stage refine makes one)"
            )

    def _check_options(self) -> None:
        if self.stage is Stage.coarse:
            others = {"--coarse": self.coarse, "--perceptual": self.perceptual, "--vgg": self.vgg}
            if stated := [name for name, value in others.items() if value]:
                raise typer.BadParameter("is for --stage refine and joint", param_hint=stated[0])
        if self.vgg and not self.perceptual:
            raise typer.BadParameter("has no weight; state --perceptual", param_hint="--vgg")
        if self.size % MULTIPLE:
            raise typer.BadParameter(f"{self.size} is no multiple of {MULTIPLE}", param_hint="--size")
        stated_config = config_of(self.config) or {}
        if self.paper and self.config is not None:
            raise typer.BadParameter("states the configuration, as --config does", param_hint="--paper")
        if stated_config.get("exposures", 2) not in (2, 3):
            raise typer.BadParameter("exposures are 2 or 3", param_hint="--config")

    def configuration(self) -> dict[str, Any]:
        """Return that of the network: as stated, of the checkpoint, of ``--init``, or the narrow one."""
        from .training.video import NARROW

        found = self.design()
        if found and found[0] != self.architecture:
            raise NetworkError(
                f"{self.start}: holds a {found[0]!r}, and --stage {self.stage.value} trains a "
                f"{self.architecture!r}; name another {'--checkpoint' if self.resumed.exists() else '--init'}"
            )
        stated = {} if self.paper else config_of(self.config)
        exposures = {"exposures": self._exposures(found[1] if found else None, stated)}
        if stated is not None:
            return stated | exposures
        return (found[1] if found else dict(NARROW[self.architecture])) | exposures

    def _exposures(self, found: Mapping[str, Any] | None, stated: Mapping[str, Any] | None) -> int:
        """Return how many exposures there are, on which all that say so must agree; 2 if none does."""
        told: dict[str, int] = {}
        if self.exposures is not None:
            told["--exposures"] = self.exposures
        if stated and "exposures" in stated:
            told["--config"] = stated["exposures"]
        if found is not None:
            told[str(self.start)] = int(found.get("exposures", 2))
        if self.coarse is not None:
            from .weights import find, read_card

            told[str(self.coarse)] = int(read_card(find(str(self.coarse)))["config"].get("exposures", 2))
        if len(set(told.values())) > 1:
            says = ", ".join(f"{name} {number}" for name, number in told.items())
            raise NetworkError(f"numbers of exposures differ: {says}; name files and a number that agree")
        return next(iter(told.values()), 2)

    # --- the work ---------------------------------------------------------------------------------

    def carry_out(self) -> None:
        """Make the clips, give the lesson, and write what was learned."""
        from .training import clips, video

        if self.size > min(clips.SIZE):
            raise typer.BadParameter(f"clips are of {min(clips.SIZE)} px", param_hint="--size")
        config = self.configuration()
        lessons = {
            Stage.coarse: video.CoarseLesson,
            Stage.refine: video.RefineLesson,
            Stage.joint: video.JointLesson,
        }

        def prepare(common: dict[str, Any]) -> Recipe:
            stated = {"rate": self.rate, "batch": self.batch}
            common |= {name: value for name, value in stated.items() if value is not None}
            common |= {"config": config, "size": self.size}
            if self.coarse is None:
                return video.CoarseRecipe(**common)
            recipe = video.JointRecipe if self.stage is Stage.joint else video.RefineRecipe
            return recipe(
                coarse=network_in(self.coarse),
                source=self.coarse.name,
                perceptual=self.perceptual,
                vgg=self.vgg,
                **common,
            )

        lesson = cast("VideoLesson", self.begin(lessons[self.stage], prepare))
        source: Any = None
        if self.steps != 0:
            self._make()
            source = clips.Clips(self.folders[0], config["exposures"], scenes=self._scenes())
        elif self.stage is Stage.joint:
            from .training.train import resume

            resume(self.resumed, lesson)  # the coarse network as it became
        give(self, lesson, source, self._judged(lesson))
        if isinstance(lesson, video.JointLesson):
            self._write_coarse(lesson)

    def _make(self) -> None:
        """Make the clips that are missing: to train on, and held out."""
        from .training import clips
        from .training.scenes import VALIDATION, scene_files

        wanted = zip(self.folders, (self.number, self.held_out), ("training", "held-out"), strict=True)
        for aside, (folder, number, what) in enumerate(wanted):
            missing = len(list(folder.glob("*.npy"))) < number
            if missing and aside and not self.quiet:
                names = [path.stem for path in scene_files(self.scenes)[1]]
                if not set(names) & set(VALIDATION):
                    say(f"set aside to take scores on: {', '.join(names)}")
            with show_making(f"{what} clips", not self.quiet) as tell:
                clips.make_clips(
                    self.scenes,
                    folder,
                    number,
                    validation=bool(aside),
                    seed=self.seed,
                    workers=self.workers or processors(),
                    tell=tell,
                )
            if missing and not self.quiet:
                say(f"{folder}: {count(number, 'clip')}")

    def _scenes(self) -> str:
        """Return how many scenes clips are made of; nothing where they are gone, and needed no more."""
        from .training.scenes import scene_files

        try:
            return count(len(scene_files(self.scenes)[0]), "HDR scene")
        except InputError:
            return ""

    def _judged(self, lesson: VideoLesson) -> list[Filmed]:
        """Return the samples held out, none where there are no clips.

        In any order: scores are taken on every so many of them while training goes on, and neighbours in the
        list take turns in their exposures.
        """
        from .training.clips import Clips

        folder = self.folders[1]
        if not any(folder.glob("*.npy")):
            return []
        samples = Clips(folder, lesson.recipe.exposures).held_out(self.held_out, lesson.frames, JUDGED)
        random.Random(0).shuffle(samples)
        return samples

    def _write_coarse(self, lesson: JointLesson) -> None:
        """Write the coarse network that learned beside the refining one."""
        from .training.release import write_network
        from .training.train import load_mean

        coarse = lesson.coarse_lesson()
        state = load_mean(self.resumed, lesson.recipe)[1]
        scores = coarse.validate(coarse.mean, self._judged(coarse))
        device = device_name(str(lesson.device))
        write_network(self.outputs[1], coarse, coarse.mean, state, scores, self.data, device)
        if not self.quiet:
            print(self.outputs[1])


def video(
    stage: Annotated[Stage, typer.Option(help="Which networks are to learn.", show_default=False)],
    scenes: Scenes,
    output: Output,
    exposures: Annotated[
        int | None,
        typer.Option(
            min=2,
            max=3,
            help="How many exposures alternate in the video.",
            show_default="as the files named here have it, else 2",
        ),
    ] = None,
    coarse: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.onnx",
            readable=False,
            help="The coarse network, which refine leaves as it is and joint goes on from.",
            show_default=False,
        ),
    ] = None,
    init: Init = None,
    budget: Budget = "60m",
    clips: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            readable=False,
            help="Where clips are, or are made; stages may share them.",
            show_default="clips beside the checkpoint",
        ),
    ] = None,
    number: Annotated[int, typer.Option(min=1, metavar="N", help="Clips to train on, 3.5 MB each.")] = CLIPS,
    held_out: Annotated[
        int, typer.Option(min=1, metavar="N", help="Clips of the scenes set aside to take scores on.")
    ] = HELD_OUT,
    workers: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Threads that make clips.", show_default="all processors"),
    ] = None,
    paper: Annotated[
        bool,
        typer.Option("--paper", help="The network of the paper, at full width, for a GPU."),
    ] = False,
    config: Annotated[
        str | None,
        typer.Option(
            metavar="JSON",
            help="The network's configuration, as a weights file's card has it.",
            show_default="that of the checkpoint, of --init, or a narrow one",
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            min=0.0, metavar="X", help="The learning rate.", show_default="1e-4, the paper's; 2e-5 of joint"
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Patches a step.", show_default="16; 8 of refine and joint"),
    ] = None,
    size: Annotated[
        int, typer.Option(min=32, metavar="PX", help="Of the side of a patch, a multiple of 16.")
    ] = 128,
    perceptual: Annotated[
        float, typer.Option(min=0.0, metavar="X", help="Weight of the perceptual loss of refine and joint.")
    ] = 0.0,
    vgg: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            readable=False,
            help="Weights of VGG-19 (.safetensors, .onnx) for it.",
            show_default="edges and SSIM at four scales instead",
        ),
    ] = None,
    checkpoint: Checkpoint = None,
    device: Device = "auto",
    steps: Steps = None,
    seed: Seed = 0,
    data: Data = "",
    plot: Plot = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Train the networks that make HDR video of alternating exposures.

    In three stages, each a run of its own, with a checkpoint and an
    output of its own:
    coarse: where neighbours show the same, and how to blend them;
    refine: mends what --coarse makes, which stays as it is;
    joint: both go on, from --coarse and --init (a network of refine).
    The refining network goes to -o, the coarse one to NAME-coarse.onnx.

    Clips of 7 frames are made once, by a camera that turns in your scenes
    among objects that move; some scenes are set aside to take scores on.
    After a kill the same command goes on, at most two minutes back; after
    the end it goes on if given a larger budget, with --force.

    The default networks are narrow, for a CPU: the coarse one begins with
    what optical flow finds, and learns what is wrong with it. --paper
    finds everything itself, and needs a GPU.

    Example: hdrmerge train video --stage coarse --scenes scenes/train -o coarse2.onnx
    """
    run = VideoRun.of(locals())
    run.check()
    run.carry_out()
