"""The self-supervised lesson: what the network is shown, what counts as wrong, and that it learns."""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra train")

from hdrmerge.exposure import mu_law  # noqa: E402
from hdrmerge.networks import build  # noqa: E402
from hdrmerge.painter import PLANES, Seen  # noqa: E402
from hdrmerge.training.lesson import fill  # noqa: E402
from hdrmerge.training.pairs import SUBSETS, Pair, Subset  # noqa: E402
from hdrmerge.training.reexposure import decode, encode  # noqa: E402
from hdrmerge.training.self_supervised import (  # noqa: E402
    BYTES_PER_PIXEL,
    SelfSupervisedLesson,
    SelfSupervisedRecipe,
    Triplets,
    collate,
    planes_of,
    turned,
)
from hdrmerge.training.train import train  # noqa: E402

EXPOSURES = (0.25, 1.0, 4.0)
RECIPE = SelfSupervisedRecipe(config={"width": 4}, budget=40.0, batch=4, size=32, rate=2e-3)


def pair(seed: int = 0, subset: Subset = "MD", size: int = 32) -> Pair:
    """A patch whose frames differ by exposure only, and its label, of which the short one loses a corner."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0.02, 1.6, (4, 4, 3)).astype(np.float32)
    label = np.kron(coarse, np.ones((size // 4, size // 4, 1), np.float32))
    label[:4, :4] = 5.0
    codes = np.stack([encode(label * np.float32(exposure)) for exposure in EXPOSURES])
    known = np.asarray(label.max(axis=-1) < 4.0)
    return Pair(subset, codes, EXPOSURES, label, known)


class Drawn:
    """Pairs in an endless row."""

    def __init__(self, *pairs: Pair) -> None:
        self.asked: list[tuple[Subset, ...]] = []
        self._row = cycle(pairs)

    def draw(self, rng: np.random.Generator, subsets: tuple[Subset, ...] = SUBSETS) -> Pair:
        self.asked.append(tuple(subsets))
        return next(self._row)

    def describe(self) -> str:
        return "made up"


def test_the_network_is_shown_what_a_merge_shows_it() -> None:
    found = pair()
    linear = [np.moveaxis(decode(code), -1, 0) for code in found.codes]
    seen = Seen([list(planes) for planes in linear], (1.0, 1.0, 1.0), EXPOSURES, limit=1 / EXPOSURES[0])
    shown = dict(zip(("frames", "masked", "linear"), planes_of(found), strict=False))
    for name, planes in shown.items():
        np.testing.assert_allclose(planes, PLANES[name](seen), atol=1e-6, err_msg=name)
    label, known = planes_of(found)[3:]
    np.testing.assert_allclose(label[:, 10, 10], found.label[10, 10] / 4, rtol=1e-6)
    assert label[:, 0, 0].tolist() == [1.0] * 3
    assert (known[0, 0, 0], known[0, 10, 10]) == (0.0, 1.0)


def batch(radiance: float, known: float) -> Triplets:
    plane = torch.full((1, 3, 4, 4), radiance)
    return Triplets(plane, plane, plane, plane, torch.full((1, 1, 4, 4), known))


def test_the_loss_is_linear_and_of_tones() -> None:
    lesson = SelfSupervisedLesson(RECIPE)
    tones = abs(float(mu_law(np.float32([0.5]))[0] - mu_law(np.float32([0.3]))[0]))
    found = lesson.error(torch.full((1, 3, 4, 4), 0.3), batch(0.5, 1.0))
    assert float(found) == pytest.approx(0.2 + 0.2 * tones, rel=1e-5)
    only = SelfSupervisedLesson(replace(RECIPE, alpha=0.0)).error(torch.zeros(1, 3, 4, 4), batch(0.5, 1.0))
    assert float(only) == pytest.approx(0.5)


def test_more_light_is_not_wrong_where_the_label_is_a_bound() -> None:
    lesson = SelfSupervisedLesson(RECIPE)
    assert float(lesson.error(torch.full((1, 3, 4, 4), 0.9), batch(0.5, 0.0))) == 0.0
    assert float(lesson.error(torch.full((1, 3, 4, 4), 0.4), batch(0.5, 0.0))) > 0.1
    assert float(lesson.error(torch.full((1, 3, 4, 4), 0.9), batch(0.5, 1.0))) > 0.4


def test_negative_radiance_has_a_gradient_that_is_finite() -> None:
    radiance = torch.full((1, 3, 4, 4), -0.1, requires_grad=True)
    SelfSupervisedLesson(RECIPE).error(radiance, batch(0.5, 1.0)).backward()  # type: ignore[no-untyped-call]
    assert radiance.grad is not None
    assert bool((radiance.grad < 0).all())
    assert bool(torch.isfinite(radiance.grad).all())


def test_the_rate_drops_twice() -> None:
    rates = [RECIPE.rate_at(progress) for progress in (0.0, 0.69, 0.7, 0.94, 0.95, 1.0)]
    assert rates == pytest.approx([2e-3, 2e-3, 2e-4, 2e-4, 2e-5, 2e-5])
    assert SelfSupervisedRecipe().rate == 1e-4


def test_turning_keeps_pixels_together() -> None:
    """What is true of every pixel before is true after: the label is what the reference shows."""
    before, rng = pair(), np.random.default_rng(3)
    orientations = set()
    for _ in range(40):
        after = turned(before, rng)
        lit = np.minimum(after.label, 1.0)
        np.testing.assert_allclose(decode(after.codes[1]), lit, atol=1e-5)
        np.testing.assert_array_equal(after.known, after.label.max(axis=-1) < 4.0)
        orientations.add(after.label.tobytes())
    assert len(orientations) > 20


def test_only_the_subsets_asked_for_are_drawn() -> None:
    source = Drawn(pair())
    lesson = SelfSupervisedLesson(replace(RECIPE, subsets=("ED", "MD")))
    batches = lesson.batches(source, np.random.default_rng(0))
    shapes = [tuple(drawn.frames.shape) for drawn in islice(batches, 2)]
    batches.close()
    assert shapes == [(4, 9, 32, 32)] * 2
    assert set(source.asked) == {("ED", "MD")}


def test_it_learns(tmp_path: Path) -> None:
    """From pairs that agree, the loss falls to less than a third within forty steps."""
    losses: list[float] = []
    ticks = iter(range(10_000))
    train(
        SelfSupervisedLesson(replace(RECIPE, rate=1e-2)),
        Drawn(*(pair(seed) for seed in range(6))),
        [],
        tmp_path / "run.safetensors",
        tell=lambda state, loss: losses.append(loss),
        clock=lambda: float(next(ticks)),
    )
    assert len(losses) == 40
    assert np.mean(losses[-5:]) < np.mean(losses[:3]) / 3


def test_the_mean_follows_the_statistics_of_batches() -> None:
    lesson = SelfSupervisedLesson(RECIPE)
    batches = collate([pair(seed) for seed in range(4)])
    for _ in range(3):
        lesson.step(batches, 0.0)
    lesson.follow(0.0)
    lesson.network.eval()
    with torch.no_grad():
        planes = batches.frames, batches.masked, batches.linear
        np.testing.assert_array_equal(lesson.mean(*planes).numpy(), lesson.network(*planes).numpy())
    before = dict(lesson.mean.named_buffers())["backbone.down.0.1.running_mean"].clone()
    lesson.network.train()
    lesson.step(batches, 0.0)
    lesson.follow(0.5)
    now = dict(lesson.network.named_buffers())["backbone.down.0.1.running_mean"]
    kept = dict(lesson.mean.named_buffers())["backbone.down.0.1.running_mean"]
    assert not torch.equal(now, before)
    torch.testing.assert_close(kept, (before + now) / 2)


def test_weights_without_counters_are_enough_to_start_from() -> None:
    """A weights file does not hold how many batches a normalisation has seen."""
    state = build("unet", {"width": 4}).state_dict()
    stored = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    assert len(stored) < len(state)
    lesson = SelfSupervisedLesson(RECIPE, init=stored)
    torch.testing.assert_close(
        lesson.network.state_dict()["backbone.last.weight"], stored["backbone.last.weight"]
    )
    del stored["backbone.last.weight"]
    with pytest.raises(Exception, match="another architecture"):
        fill(lesson.network, stored, "x")


def test_scores_are_by_subset_where_labels_are_exact() -> None:
    lesson = SelfSupervisedLesson(RECIPE)
    scores = lesson.validate(lesson.mean, [pair(0, "MD"), pair(1, "ED")])
    assert set(scores) == {"reference", "fused", "network"}
    reference = scores["reference"]
    found = pair(1)
    lost = np.minimum(found.label, 1.0)
    wrong = mu_law(lost / 4) - mu_law(np.minimum(found.label / 4, 1))
    square = float(np.square(wrong[found.known]).mean())
    assert reference["ED"] == pytest.approx(-10 * np.log10(square), abs=0.05)
    assert reference["whole"] == pytest.approx((reference["ED"] + reference["MD"]) / 2, abs=0.01)
    assert np.isnan(reference["EDM"])
    assert scores["fused"]["whole"] > reference["whole"] + 10  # frames agree: fusing them is right


def test_pictures_have_the_columns(tmp_path: Path) -> None:
    lesson = SelfSupervisedLesson(RECIPE)
    shown = lesson.pictures(lesson.mean, pair())
    assert tuple(shown) == lesson.shown
    assert all(tuple(code.shape) == (1, 3, 32, 32) for code in shown.values())
    assert all(float(code.min()) >= 0 and float(code.max()) <= 1 for code in shown.values())


def test_memory_is_known_of_every_architecture() -> None:
    assert set(BYTES_PER_PIXEL) == {"unet", "resnet", "grdn"}
    wide = SelfSupervisedLesson(replace(RECIPE, config={"width": 8})).bytes_per_pixel
    assert wide > SelfSupervisedLesson(RECIPE).bytes_per_pixel > 0
