"""The lesson of virtual brackets: its losses, what is learned of each direction, and how it is judged."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra train")

from torch import Tensor  # noqa: E402

from hdrmerge.errors import NetworkError  # noqa: E402
from hdrmerge.networks.virtual_bracket import build, reexposed, well_exposed  # noqa: E402
from hdrmerge.scene import ramp_scene  # noqa: E402
from hdrmerge.training.exposures import Exposures, SceneExposures  # noqa: E402
from hdrmerge.training.perceptual import StandIn, edges  # noqa: E402
from hdrmerge.training.train import State, load_mean, train  # noqa: E402
from hdrmerge.training.virtual_bracket import (  # noqa: E402
    FEW,
    FLOOR,
    NARROW,
    Couples,
    VirtualBracketLesson,
    VirtualBracketRecipe,
    collate,
    dark,
    mean_in,
    representation,
    variation,
    white,
)

CONFIG: dict[str, Any] = {"width": 2, "deepest": 2, "residual": True, "activation": "relu"}
RECIPE = VirtualBracketRecipe(config=CONFIG, budget=1e6, batch=2, size=64, rate=0.02)
SCORED = ("ev-2", "ev-1", "ev+1", "ev+2")


@pytest.fixture(scope="module")
def source() -> SceneExposures:
    return SceneExposures([ramp_scene(128, 256, np.random.default_rng(0))])


def couples(count: int = 4, size: int = 64, seed: int = 0) -> Couples:
    """Return photographs of noise, which arithmetic makes of each other wherever they do not clip."""
    generator = torch.Generator().manual_seed(seed)
    short = 0.05 + 0.9 * torch.rand(count, 3, size, size, generator=generator)
    ev = torch.linspace(0.5, 2.5, count)
    long = reexposed(short, ev.reshape(-1, 1, 1, 1))
    return Couples(short, long, long, ev)


Painter = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class Made(torch.nn.Module):
    """A network that says what it is told to."""

    def __init__(self, painter: Painter) -> None:
        super().__init__()
        self.parts = painter
        self.weight = torch.nn.Parameter(torch.zeros(1))  # which says on which device it is

    def forward(self, photo: Tensor, ev: Tensor) -> Tensor:
        return self.parts(photo, ev)[1]


def judged(painter: Painter, **recipe: Any) -> VirtualBracketLesson:
    """Return a lesson of which the losses are those of a painter."""
    lesson = VirtualBracketLesson(replace(RECIPE, **recipe))
    lesson.network = Made(painter)
    return lesson


def knows(batch: Couples, wrong: Tensor | float = 0.0) -> Painter:
    """Return what says both photographs of a batch, the shorter one ``wrong`` by so much."""

    def parts(photo: Tensor, ev: Tensor) -> tuple[Tensor, Tensor]:
        return photo, torch.cat([batch.long, batch.short + wrong])

    return parts


# ------------------------------------------------------------------------------------- losses


def test_representations_are_proportional_to_the_exposure() -> None:
    long, ev = torch.rand(2, 3, 8, 8) + 0.1, torch.tensor([1.0, 3.0])
    short = long / 2 ** ev.reshape(2, 1, 1, 1)
    assert float(representation(short, long, ev)) == pytest.approx(0, abs=1e-6)
    # Both 0.5, one stop apart: up 2 * 0.5 is compared with 0.5, down 0.25 with 0.5.
    same = torch.full((1, 3, 4, 4), 0.5)
    up = math.log((1.0 + FLOOR) / (0.5 + FLOOR))
    down = math.log((0.5 + FLOOR) / (0.25 + FLOOR))
    assert float(representation(same, same, torch.tensor([1.0]))) == pytest.approx(up + down, rel=1e-5)


def test_the_total_variation_is_a_sum() -> None:
    photo = torch.zeros(2, 3, 5, 5)
    photo[0, 1, 2, 2] = 0.5
    photo[1, :, :, 3:] = 0.25
    assert float(variation(photo)) == pytest.approx(4 * 0.5 + 3 * 5 * 0.25)


def test_a_mean_over_what_is_lost() -> None:
    error = torch.zeros(1, 3, 20, 20)
    error[..., :10] = 0.3
    error[:, 0, :, 10:] = 0.9
    where = torch.zeros(1, 1, 20, 20)
    assert float(mean_in(error, where)) == 0
    where[..., 5:15] = 1
    assert float(mean_in(error, where)) == pytest.approx(0.3)
    where[..., 5:] = 0
    where[..., 0, 0] = 1
    assert float(mean_in(error, where)) == pytest.approx(0.3 / (FEW * 400))  # one pixel is little


def test_what_a_photograph_does_not_tell() -> None:
    codes = [(0, 0, 0), (0.02, 0.02, 0.02), (0.06, 0.06, 0.06), (0.2, 0.97, 0.2), (0.2, 0.2, 0.99), (1, 1, 1)]
    photo = torch.tensor(codes, dtype=torch.float32).T.reshape(1, 3, 1, 6)
    assert white(photo).flatten().tolist() == [0, 0, 0, 0, 1, 1]
    torch.testing.assert_close(dark(photo).flatten(), torch.tensor([1, 0.6, 0, 0, 0, 0]))


def test_a_network_that_knows_both_has_no_loss_but_variation() -> None:
    batch = couples()
    found = judged(knows(batch), longer=1.0).losses(batch)
    assert set(found) == {"representation", "reconstruction", "perceptual", "variation"}
    assert float(found["reconstruction"]) == 0
    assert float(found["perceptual"]) == pytest.approx(0, abs=1e-4)
    expected = (variation(batch.short) + variation(batch.long)) / 4
    assert float(found["variation"]) == pytest.approx(float(expected), rel=1e-5)
    clear = representation(batch.short, batch.long, batch.ev)
    assert float(found["representation"]) == pytest.approx(float(clear), rel=1e-5)


def test_both_directions_are_asked_for() -> None:
    """The longer one of some of the pairs only; 0 stops cost nothing."""
    batch, asked = couples(), []

    def painter(photo: Tensor, ev: Tensor) -> tuple[Tensor, Tensor]:
        asked.append(ev.tolist())
        assert torch.equal(photo, torch.cat([batch.short, batch.long]))
        return knows(batch)(photo, ev)

    own = batch.ev.tolist()
    shorter = [-ev for ev in own]
    for share, some in ((1.0, own), (0.75, [*own[:3], 0]), (0.0, [*own[:2], 0, 0])):
        judged(painter, longer=share).losses(batch)
        assert asked.pop() == pytest.approx([*some, *shorter])


def test_pairs_of_which_the_longer_one_is_not_asked_for_do_not_count() -> None:
    batch = couples()

    def painter(photo: Tensor, ev: Tensor) -> tuple[Tensor, Tensor]:
        encoded, frames = knows(batch)(photo, ev)
        return encoded, torch.cat([frames[:2], frames[2:4] + 0.5, frames[4:]])

    assert float(judged(painter, longer=0.5).losses(batch)["reconstruction"]) == 0
    assert float(judged(painter, longer=0.75).losses(batch)["reconstruction"]) > 0.1


@pytest.mark.parametrize(("lost", "times"), [(0.0, 0.0), (0.5, 0.5), (2.0, 2.0)])
def test_what_the_photograph_clips_counts_again(lost: float, times: float) -> None:
    """A quarter of each photograph is clipped, and the network wrong by 0.1 there, or elsewhere."""
    batch = couples()
    batch.long.clamp_(max=0.9)
    batch.long[..., 32:, 32:] = 1
    there = torch.zeros(4, 1, 64, 64)
    there[..., 32:, 32:] = 0.1
    for wrong, share, of_lost in ((there, 0.25, 1.0), (there.flip(-1), 0.25, 0.0), (there * 0 + 0.1, 1, 1.0)):
        found = judged(knows(batch, wrong), lost=lost).losses(batch)["reconstruction"]
        assert float(found) == pytest.approx(0.1 * share + times * 0.1 * of_lost, rel=1e-4)


def test_a_sun_must_not_be_grey_unless_masked() -> None:
    """Where the photograph that is wanted clips, too, the paper's mask lets anything go."""
    batch = couples()
    batch.short[..., :16, :16] = 1
    batch.long[..., :16, :16] = 1
    grey = torch.zeros(4, 1, 64, 64)
    grey[..., :16, :16] = -0.5
    losses = [judged(knows(batch, grey), masked=masked).losses(batch) for masked in (False, True)]
    assert float(losses[0]["reconstruction"]) > 0.5 / 16  # and what is lost again
    assert float(losses[1]["reconstruction"]) == 0
    assert float(losses[0]["perceptual"]) > 10 * float(losses[1]["perceptual"])
    elsewhere = judged(knows(batch, 0.1), masked=True, lost=0.0).losses(batch)["reconstruction"]
    assert float(elsewhere) == pytest.approx(0.1 * float(well_exposed(batch.short).mean()), rel=1e-4)


def test_likeness_is_that_of_both_directions() -> None:
    batch = couples()
    ramp = torch.linspace(0, 0.3, 64).expand(4, 3, 64, 64)
    found = judged(knows(batch, ramp)).losses(batch)["perceptual"]
    assert float(found) == pytest.approx(float(StandIn()(batch.short + ramp, batch.short)), rel=1e-3)
    assert float(edges(ramp)) > 0


def test_weights_are_the_recipes() -> None:
    batch, lesson = couples(), VirtualBracketLesson(RECIPE)
    terms = {name: float(value.detach()) for name, value in lesson.losses(batch).items()}
    for name, value in terms.items():
        only = dict.fromkeys(terms, 0.0) | {name: 2.0}
        alone = VirtualBracketLesson(replace(RECIPE, **only))
        assert alone.step(batch, 0.0) == pytest.approx(2 * value, rel=1e-4)


# ------------------------------------------------------------------------------------- to learn


def test_it_learns(source: SceneExposures) -> None:
    """From the same two pairs, in a few steps; every part of the network does."""
    rng = np.random.default_rng(0)
    batch = collate([source.draw(rng, 64) for _ in range(2)])
    lesson = VirtualBracketLesson(replace(RECIPE, longer=1.0))
    before = {name: values.detach().clone() for name, values in lesson.network.named_parameters()}
    losses = [lesson.step(batch, 0.0) for _ in range(12)]
    assert np.mean(losses[-2:]) < 0.8 * np.mean(losses[:2])
    same = [name for name, values in lesson.network.named_parameters() if torch.equal(values, before[name])]
    assert not same


def test_batches_are_pairs_of_the_source(source: SceneExposures) -> None:
    batches: Iterator[Couples] = VirtualBracketLesson(RECIPE).batches(source, np.random.default_rng(0))
    batch = next(batches)
    assert batch.short.shape == batch.long.shape == (2, 3, 64, 64)
    assert batch.ev.shape == (2,)
    assert batch.short.dtype == batch.ev.dtype == torch.float32
    assert ((batch.ev > 0) & (batch.ev <= 4)).all()
    assert (batch.long.mean((1, 2, 3)) > batch.short.mean((1, 2, 3))).all()
    batches.close()  # type: ignore[attr-defined]


def test_pairs_are_stacked_shorter_ones_first() -> None:
    codes = np.arange(2 * 4 * 4 * 3, dtype=np.float32).reshape(2, 4, 4, 3)
    batch = collate([Exposures(codes, (-2.5, 0.5)), Exposures(codes + 1, (0.0, 1.0))])
    assert batch.ev.tolist() == [3.0, 1.0]
    assert batch.short[0, :, 1, 2].tolist() == codes[0, 1, 2].tolist()
    assert batch.long[1, :, 1, 2].tolist() == (codes[1, 1, 2] + 1).tolist()


def test_a_run_goes_on_from_its_checkpoint(source: SceneExposures, tmp_path: Path) -> None:
    held_out, path = source.held_out(1, 64), tmp_path / "run.safetensors"
    seen: list[State] = []
    for steps in (2, 3):
        lesson = VirtualBracketLesson(RECIPE)
        train(lesson, source, held_out, path, steps, tell=lambda state, _: seen.append(state))
    mean, state = load_mean(path, RECIPE)
    assert state.step == 3
    assert state.data == source.describe()
    assert state.recipe == RECIPE.describe()
    assert set(state.history[-1]) == {"step", "elapsed", "whole", "clipped", *SCORED}
    kept = dict(lesson.mean.named_parameters())
    assert all(torch.equal(values, kept[name]) for name, values in mean.named_parameters())


def test_another_architecture_is_refused() -> None:
    with pytest.raises(NetworkError, match="is learned in another way"):
        VirtualBracketLesson(replace(RECIPE, architecture="unet", config={"width": 8}))


def test_the_recipe_says_what_was_done() -> None:
    said = RECIPE.describe()
    for part in ("AdamW, rate 0.02", "2 pairs of 64 px", "100 L1", "edges and SSIM", "25%", "1e-05"):
        assert part in said
    other = replace(RECIPE, masked=True, lost=0.0, vgg=Path("folder/vgg19.onnx")).describe()
    assert "VGG-19 (vgg19.onnx)" in other
    assert "folder" not in other
    assert "100 L1, where the target tells something + 0.1" in other
    assert VirtualBracketRecipe().rate == 1e-4


def test_the_narrow_network_is_small_enough_to_be_released() -> None:
    with torch.device("meta"):
        made = build(dict(NARROW))
    assert VirtualBracketRecipe().config == NARROW
    assert sum(values.numel() for values in made.parameters()) * 2 < 6e6


# ------------------------------------------------------------------------------------- to be judged


def held(wrong: dict[float, float], lost: slice = slice(0)) -> Exposures:
    """Return photographs by arithmetic, ``wrong`` at some stops, of which the middle one has clipped rows."""
    generator = np.random.default_rng(0)
    photo = generator.uniform(0.1, 0.4, (64, 64, 3)).astype(np.float32)
    stops = (-2.0, -1.0, 0.0, 1.0, 2.0)
    codes = np.stack([photo * np.float32(2 ** (ev / 2.2)) + np.float32(wrong.get(ev, 0)) for ev in stops])
    codes[2:, lost] = 1
    return Exposures(codes, stops)


def test_scores_are_psnr_by_stops() -> None:
    """Of arithmetic, which is what an untrained network in the residual form says, too."""
    lesson = VirtualBracketLesson(RECIPE)
    samples = [held({-2.0: 0.1, -1.0: 0.01, 1.0: 0.1, 2.0: 0.01}), held({-2.0: 0.01, 1.0: 0.1, 2.0: 0.01})]
    scores = lesson.validate(lesson.mean, samples)
    assert list(scores) == ["arithmetic", "network"]
    for row in scores.values():
        assert tuple(row) == lesson.regions == ("whole", "clipped", *SCORED)
        found = [row[region] for region in SCORED]
        assert found[0] == pytest.approx(30, abs=0.01)  # the mean of 20 and 40
        assert found[2:] == pytest.approx([20, 40], abs=0.01)
        assert row["whole"] == pytest.approx(np.mean(found), abs=1e-3)
        assert math.isnan(row["clipped"])


def test_what_is_clipped_is_judged_at_shorter_exposures() -> None:
    lesson = VirtualBracketLesson(RECIPE)
    sample = held({}, slice(0, 16))
    truth = sample.codes[:2, :16]
    square = np.concatenate([np.square(truth[k] - 2.0 ** (ev / 2.2)) for k, ev in enumerate((-2.0, -1.0))])
    row = lesson.validate(lesson.mean, [sample])["arithmetic"]
    assert row["clipped"] == pytest.approx(-10 * np.log10(square.mean()), abs=1e-3)
    assert row["clipped"] < row["ev-2"] - 5


def test_the_network_that_is_asked_is_the_one_that_is_scored() -> None:
    lesson, sample = VirtualBracketLesson(RECIPE), held({}, slice(0, 16))

    def painter(photo: Tensor, ev: Tensor) -> tuple[Tensor, Tensor]:
        return photo, torch.from_numpy(sample.codes[[0, 1, 3, 4]]).movedim(-1, 1) + 0.01

    scores = lesson.validate(Made(painter), [sample])
    assert scores["network"] == pytest.approx(dict.fromkeys(lesson.regions, 40.0), abs=0.01)
    assert scores["arithmetic"]["clipped"] < 25


def test_pictures_show_two_stops_either_way() -> None:
    lesson, sample = VirtualBracketLesson(RECIPE), held({-2.0: 0.05})
    columns = lesson.pictures(lesson.mean, sample)
    assert tuple(columns) == lesson.shown
    assert {tuple(codes.shape) for codes in columns.values()} == {(1, 3, 64, 64)}
    for name, number in (("photo", 2), ("truth -2", 0), ("truth +2", 4)):
        assert torch.equal(columns[name][0].movedim(0, -1), torch.from_numpy(sample.codes[number]))
    torch.testing.assert_close(columns["network +2"], columns["arithmetic +2"])
    torch.testing.assert_close(columns["arithmetic -2"] + 0.05, columns["truth -2"])


# ------------------------------------------------------------------------------------- to be written


def test_the_file_holds_what_was_learned(tmp_path: Path, source: SceneExposures) -> None:
    """With its scores and a picture of the run; another engine says the same of other sizes."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from hdrmerge.infer import open_engine
    from hdrmerge.training.plot import draw
    from hdrmerge.training.release import write_network

    lesson, held_out = VirtualBracketLesson(RECIPE), source.held_out(1, 64)
    with torch.no_grad():
        lesson.mean.shorter.last.bias.fill_(-0.1)
    scores = lesson.validate(lesson.mean, held_out)
    state = State(3, 10.0, [{"step": 3, "elapsed": 10.0, **scores["network"]}], [[10.0, 1.0, 1e-3]])
    draw(tmp_path / "run.png", lesson, lesson.mean, state, scores, held_out)
    assert (tmp_path / "run.png").stat().st_size > 10_000
    card = write_network(tmp_path / "made.onnx", lesson, lesson.mean, state, scores, "ramps")
    assert (card["inputs"], card["outputs"]) == (["photo", "ev"], ["frames"])
    assert (card["halo"], card["multiple"]) == (lesson.mean.halo, 64)
    assert card["bytes_per_pixel"] == lesson.bytes_per_pixel
    assert card["metrics"]["over_arithmetic_ev-2"] == pytest.approx(
        scores["network"]["ev-2"] - scores["arithmetic"]["ev-2"], abs=1e-3
    )
    photo, ev = torch.rand(1, 3, 64, 128), torch.tensor([-1.0, 2.0, -3.0]).reshape(3, 1, 1, 1)
    engine = open_engine(tmp_path / "made.onnx", device="cpu", engine="onnxruntime", threads=1)
    frames = engine.run({"photo": photo.numpy(), "ev": ev.numpy()})["frames"]
    with torch.no_grad():
        np.testing.assert_allclose(frames, lesson.mean(photo, ev).numpy(), rtol=0, atol=1e-3)


def test_wider_networks_take_more_memory() -> None:
    wide, narrow = (VirtualBracketLesson(replace(RECIPE, config=CONFIG | {"width": w})) for w in (4, 2))
    assert wide.bytes_per_pixel > narrow.bytes_per_pixel > 100


def test_statistics_stay_toward_the_end() -> None:
    """And the mean network, which is judged, normalises by the same."""
    lesson = VirtualBracketLesson(replace(RECIPE, settled=0.5))
    layers = [module for module in lesson.network.modules() if isinstance(module, torch.nn.BatchNorm2d)]

    def statistics() -> list[Tensor]:
        return [layer.running_mean.clone() for layer in layers if layer.running_mean is not None]

    begun = statistics()
    for progress in (0.0, 0.4):
        lesson.step(couples(), progress)
        lesson.follow(0.5)
    moved = statistics()
    assert any(not torch.equal(a, b) for a, b in zip(begun, moved, strict=True))
    for progress in (0.5, 0.9):
        lesson.step(couples(seed=2), progress)
        lesson.follow(0.5)
    kept = [module for module in lesson.mean.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for own, mean, last in zip(layers, kept, moved, strict=True):
        assert own.running_mean is not None
        torch.testing.assert_close(own.running_mean, mean.running_mean)
        assert not torch.equal(own.running_mean, last)  # that of the mean network, which lags behind
    before = statistics()
    lesson.step(couples(seed=3), 1.0)
    for a, b in zip(before, statistics(), strict=True):
        torch.testing.assert_close(a, b)
