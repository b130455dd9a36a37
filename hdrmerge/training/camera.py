"""Scenes -> the photographs of many brackets at once, in torch, on the CPU or on CUDA.

    scene -> canvas -> movers -> lens and homography -> exposure -> noise -> codes -> JPEG

This is `scene.look` and `simulate.record` for training: `take` photographs a `Plan` with those two,
`take_all` photographs many plans in a few large operations, and both see the same. A plan holds
all that is drawn at random but the noise. Tensors are (frames, channels, H, W).
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..bracket import Shot
from ..exposure import Array, Float, Response
from ..scene import LENS_BLUR, OVERSAMPLE, Matrix, Mover, _Canvas, look
from ..simulate import Camera, Simulated, _over, expose, record, scale_for_saturation

AT_ONCE = {"cpu": 1 << 20}
"""Canvas samples that are worked on together, 12 bytes each: on the CPU, what its caches hold."""

AT_ONCE_ELSEWHERE = 1 << 26
"""The same for other devices, where large operations are fast and memory is the limit: about 4 GB in all."""

COUNTABLE = 16.0
"""Electrons below which photons are counted (Poisson); above, a skewed Gaussian is as good."""

LEVELS = 1 << 14
"""Cells of the table that encodes 8 bits, equally wide in the root of the signal.

A step between two codes is misplaced by 1/60 of its width at most for the named curves."""


# --- what is asked for, what is given back --------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Plan:
    """Everything that is drawn at random about one bracket, so that both cameras can take it.

    ``scene`` (h, w, 3) is linear Rec. 709, what stands before the camera, as for
    `simulate.simulate_bracket`; ``size`` is (H, W) of a frame. ``shots`` come from
    `simulate.plan_shots`, shortest first, ``homographies`` and ``movers`` as `scene.look` takes them.
    ``saturated_share`` of the reference's pixels clip. ``jpeg_quality`` (70 to 100, 8 bits only)
    compresses the codes, None leaves them as recorded; ``subsampled`` halves the chroma (4:2:0).
    """

    scene: Float
    size: tuple[int, int]
    shots: tuple[Shot, ...]
    reference: int
    homographies: tuple[Matrix, ...]
    movers: tuple[Mover, ...]
    saturated_share: float
    camera: Camera
    iso: float = 100.0
    jpeg_quality: int | None = None
    subsampled: bool = False

    def __post_init__(self) -> None:
        frames, (height, width) = len(self.shots), self.size
        if len(self.homographies) != frames or not np.allclose(self.homographies[self.reference], np.eye(3)):
            raise ValueError(
                f"{frames} frames need as many homographies, the identity at index {self.reference}"
            )
        if self.jpeg_quality is not None and self.camera.bits != 8:
            raise ValueError(f"JPEG files hold 8 bits, this camera records {self.camera.bits}")
        if min(height, width) < 2:
            raise ValueError(f"a frame has 2 x 2 pixels at least, not {width} x {height}")

    @property
    def relative_exposures(self) -> tuple[float, ...]:
        """Exposures over the reference's."""
        return _over(self.shots, self.reference)


@dataclass(frozen=True, eq=False)
class Photographs:
    """One bracket as tensors on the device, and the plan it was taken by.

    ``codes`` (N, 3, H, W) are uint8, or int32 for 14 bits. ``views`` (N, 3, H, W) is the radiance each
    frame sees without noise and clipping, 1.0 where the reference saturates. ``moving`` and
    ``saturated`` (H, W), bool, are those of `simulate.Simulated`; what clipped is known from before
    the JPEG compression. The tensors are parts of larger ones: clone what is kept for long.
    """

    codes: Tensor
    views: Tensor
    moving: Tensor
    saturated: Tensor
    plan: Plan

    @property
    def truth(self) -> Tensor:
        """What the reference sees, (3, H, W)."""
        return self.views[self.plan.reference]

    def simulated(self) -> Simulated:
        """Return the same in numpy, for all that works on `simulate.Simulated`."""
        plan = self.plan
        codes = self.codes.permute(0, 2, 3, 1).cpu().numpy()
        codes = np.ascontiguousarray(codes, np.uint8 if plan.camera.bits == 8 else np.uint16)
        views = np.ascontiguousarray(self.views.permute(0, 2, 3, 1).cpu().numpy())
        return Simulated(
            tuple(codes),
            plan.shots,
            plan.reference,
            tuple(views),
            plan.homographies,
            self.moving.cpu().numpy(),
            self.saturated.cpu().numpy(),
            plan.camera,
        )


# --- one bracket in numpy -------------------------------------------------------------------------


def take(plan: Plan, rng: np.random.Generator) -> Simulated:
    """Photograph a plan by `scene.look` and `simulate.record`; JPEG by Pillow."""
    views, moving = look(plan.scene, plan.size, plan.homographies, plan.movers)
    scale = scale_for_saturation(views[plan.reference], plan.saturated_share)
    views = tuple(expose(view, scale) for view in views)
    codes = [
        record(expose(view, ratio), plan.camera, plan.iso, rng)
        for view, ratio in zip(views, plan.relative_exposures, strict=True)
    ]
    saturated = plan.camera.saturated(codes[plan.reference])
    frames = tuple(_pillow(frame, plan.jpeg_quality, plan.subsampled) for frame in codes)
    return Simulated(
        frames, plan.shots, plan.reference, views, plan.homographies, moving, saturated, plan.camera
    )


def _pillow(codes: Array, quality: int | None, subsampling: bool) -> Array:
    from PIL import Image

    if quality is None:
        return codes
    file = io.BytesIO()
    Image.fromarray(codes).save(file, "JPEG", quality=quality, subsampling=2 if subsampling else 0)
    with Image.open(file) as image:
        return np.asarray(image)


# --- many brackets in torch -----------------------------------------------------------------------


@torch.no_grad()
def take_all(
    plans: Sequence[Plan],
    seed_or_generator: int | torch.Generator,
    device: str | torch.device = "cpu",
) -> list[Photographs]:
    """Photograph plans of any sizes, frame counts and cameras; frames of one size go together.

    The noise is drawn from a generator on the ``device`` (or one seeded here). It depends on which
    plans are taken together; nothing else does.
    """
    device = torch.device(device)
    if isinstance(seed_or_generator, int):
        generator = torch.Generator(device).manual_seed(seed_or_generator)
    else:
        generator = seed_or_generator
        if generator.device.type != device.type:
            raise ValueError(f"a generator on {generator.device} draws nothing on {device}")
    taken: dict[int, Photographs] = {}
    with torch.autocast(device.type, enabled=False):
        for members in _together(plans, AT_ONCE.get(device.type, AT_ONCE_ELSEWHERE)):
            photographs = _take_together([plans[member] for member in members], generator, device)
            taken.update(zip(members, photographs, strict=True))
    return [taken[index] for index in range(len(plans))]


def _together(plans: Sequence[Plan], most: int) -> Iterator[list[int]]:
    """Yield the indices of plans that go together: one size and bit depth, ``most`` samples of canvas."""

    def kind(index: int) -> tuple[tuple[int, int], int]:
        return plans[index].size, plans[index].camera.bits

    group: list[int] = []
    samples = 0
    for index in sorted(range(len(plans)), key=kind):
        plan = plans[index]
        # Shake adds a few percent to the canvas; that need not be counted.
        more = len(plan.shots) * math.prod(plan.size) * OVERSAMPLE**2
        if group and (kind(index) != kind(group[0]) or samples + more > most):
            yield group
            group, samples = [], 0
        group.append(index)
        samples += more
    if group:
        yield group


def _take_together(
    plans: Sequence[Plan], generator: torch.Generator, device: torch.device
) -> list[Photographs]:
    views, moving = _look(plans, device)
    of = [plan for plan in plans for _ in plan.shots]  # the plan of each frame
    starts = np.cumsum([0, *(len(plan.shots) for plan in plans)])
    at = [int(start) + plan.reference for start, plan in zip(starts, plans, strict=False)]
    references = torch.tensor(at, device=device)
    scale = _scales(views[references], [plan.saturated_share for plan in plans])
    views *= scale[torch.tensor([i for i, plan in enumerate(plans) for _ in plan.shots], device=device)]
    ratios = [ratio for plan in plans for ratio in plan.relative_exposures]
    linear = _noisy(views * _column(ratios, device), of, generator)
    codes = _encoded_8(linear, of) if plans[0].camera.bits == 8 else _encoded_14(linear, of)
    white = [255 if plan.camera.bits == 8 else plan.camera.white_level for plan in plans]
    saturated = (codes[references] == _column(white, device)).any(dim=1)
    _compress(codes, of)
    return [
        Photographs(codes[first:end], views[first:end], mask, clipped, plan)
        for first, end, mask, clipped, plan in zip(starts, starts[1:], moving, saturated, plans, strict=False)
    ]


def _column(values: Sequence[float], device: torch.device) -> Tensor:
    """Return values (frames, 1, 1, 1), float32, to go with tensors (frames, channels, H, W)."""
    return torch.tensor(values, dtype=torch.float32, device=device)[:, None, None, None]


def _upload(array: Array, device: torch.device) -> Tensor:
    """Return an array as a float32 tensor, which may share its memory: not to be written to."""
    # Torch warns of arrays that are read-only, and takes no flipped ones.
    return torch.from_numpy(np.require(array, np.float32, ["C", "W"])).to(device)


# --- what the frames see: `scene.look` ------------------------------------------------------------


def _look(plans: Sequence[Plan], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the views (frames, 3, H, W) in the unit of the scene, and moving (plans, H, W)."""
    where = [_Canvas.around(plan.size, plan.homographies) for plan in plans]
    frames = sum(len(plan.shots) for plan in plans)
    rows, columns = (max(canvas.shape[side] for canvas in where) for side in (0, 1))
    # No frame looks past its own canvas, so that what lies between it and the largest is not seen.
    canvases = torch.zeros(frames, 3, rows, columns, device=device)
    covered = torch.zeros(len(plans), rows, columns, dtype=torch.bool, device=device)
    first = 0
    for plan, canvas, touched in zip(plans, where, covered, strict=True):
        mine = canvases[first : first + len(plan.shots), :, : canvas.shape[0], : canvas.shape[1]]
        mine[:] = _filled(plan.scene, canvas, device)
        for mover in plan.movers:
            _composite(mover, canvas, mine, touched)
        first += len(plan.shots)
    of = [canvas for plan, canvas in zip(plans, where, strict=True) for _ in plan.shots]
    matrices = [matrix for plan in plans for matrix in plan.homographies]
    views = _photographed(canvases, of, matrices)
    return views, _touched(covered, where)


def _filled(scene: Float, canvas: _Canvas, device: torch.device) -> Tensor:
    """Return the middle of a scene at the size of the canvas (3, rows, columns), as `_Canvas.fill`."""
    height, width = scene.shape[:2]
    zoom = min(height / canvas.shape[0], width / canvas.shape[1])
    rows, columns = (max(round(length * zoom), 1) for length in canvas.shape)
    top, left = (height - rows) // 2, (width - columns) // 2
    seen = _upload(scene[top : top + rows, left : left + columns], device)
    if rows >= canvas.shape[0] and columns >= canvas.shape[1]:
        by_column = _area(seen, canvas.shape[0]).permute(1, 2, 0)
        return _area(by_column, canvas.shape[1]).permute(1, 2, 0).contiguous()
    # Larger: cubic in the logarithm, see `scene._in_log`.
    offset = 0.05 * seen.median() + 1e-6
    log = torch.log(seen.clamp(min=0).add_(offset)).permute(2, 0, 1)[None]
    log = F.interpolate(log.contiguous(), canvas.shape, mode="bicubic", align_corners=False)[0]
    return log.exp_().sub_(offset).clamp_(min=0)


def _area(picture: Tensor, length: int) -> Tensor:
    """Shrink the first side of a picture to ``length``: each new row is the mean of what it covers."""
    before = len(picture)
    start = np.arange(length)[:, None] * (before / length)
    end = start + before / length
    rows = np.floor(start + 1e-9).astype(np.int64) + np.arange(math.ceil(before / length) + 1)
    share = np.clip(np.minimum(end, rows + 1) - np.maximum(start, rows), 0, None) * (length / before)
    index = torch.from_numpy(np.minimum(rows, before - 1)).to(picture.device)
    # Weighted sums of rows, whatever they embed.
    flat, weights = picture.reshape(before, -1), _upload(share, picture.device)
    small = F.embedding_bag(index, flat, per_sample_weights=weights, mode="sum")
    return small.view(length, *picture.shape[1:])


def _composite(mover: Mover, canvas: _Canvas, canvases: Tensor, touched: Tensor) -> None:
    """Lay a mover over the canvases (N, 3, rows, columns) of its bracket, as `Mover.layer` does.

    A step of the motion moves the object by a fraction of a sample: four copies of it, weighted
    bilinearly. Copies of all steps that fall on the same sample are laid down as one.
    """
    alpha = _upload(mover.alpha, canvases.device)
    opaque = torch.cat([_upload(mover.radiance, canvases.device).permute(2, 0, 1) * alpha, alpha[None]])
    height, width = mover.alpha.shape
    for frame, background in enumerate(canvases):
        x, y = canvas.sample_of((float(mover.centre[frame, 0]), float(mover.centre[frame, 1])))
        copies = _copies(x - (width - 1) / 2, y - (height - 1) / 2, mover.path[frame])
        left, top = (min(place[side] for place in copies) for side in (0, 1))
        right, bottom = (max(place[side] for place in copies) + 1 for side in (0, 1))
        layer = opaque.new_zeros(4, bottom - top + height - 1, right - left + width - 1)
        for (column, row), weight in copies.items():
            part = layer[:, row - top : row - top + height, column - left : column - left + width]
            part.add_(opaque, alpha=weight)
        y0, x0 = max(top, 0), max(left, 0)
        y1 = max(min(top + layer.shape[1], canvas.shape[0]), y0)
        x1 = max(min(left + layer.shape[2], canvas.shape[1]), x0)
        layer = layer[:, y0 - top : y1 - top, x0 - left : x1 - left]
        background[:, y0:y1, x0:x1].mul_(1 - layer[3]).add_(layer[:3])
        touched[y0:y1, x0:x1] |= layer[3] > 0


def _copies(x: float, y: float, path: Matrix) -> dict[tuple[int, int], float]:
    """Return the samples (x, y) where copies of a mover start, and the weight of each."""
    steps = min(max(math.ceil(float(np.hypot(*path))), 1), 64)  # as in `Mover.layer`
    copies: dict[tuple[int, int], float] = {}
    for step in range(steps):
        along = OVERSAMPLE * ((step + 0.5) / steps - 0.5)
        column, right = divmod(x + float(path[0]) * along, 1.0)
        row, down = divmod(y + float(path[1]) * along, 1.0)
        for dx, across in ((0, 1 - right), (1, right)):
            for dy, along_y in ((0, 1 - down), (1, down)):
                if across * along_y > 0:
                    place = int(column) + dx, int(row) + dy
                    copies[place] = copies.get(place, 0.0) + across * along_y / steps
    return copies


def _photographed(canvases: Tensor, where: Sequence[_Canvas], matrices: Sequence[Matrix]) -> Tensor:
    """Return what the pixels of the frames see (frames, 3, H, W), as `_Canvas.photograph`."""
    views = canvases.new_empty(len(canvases), 3, *where[0].size)
    still = [index for index, matrix in enumerate(matrices) if np.array_equal(matrix, np.eye(3))]
    moved = sorted(set(range(len(matrices))) - set(still))
    few = max(AT_ONCE.get(canvases.device.type, AT_ONCE_ELSEWHERE) // canvases[0, 0].numel(), 1)
    for indices, photograph in ((still, _standing), (moved, _moved)):
        for start in range(0, len(indices), few):
            some = indices[start : start + few]
            which = torch.tensor(some, device=canvases.device)
            views[which] = photograph(
                [canvases[i] for i in some], [where[i] for i in some], [matrices[i] for i in some]
            )
    return views


def _standing(canvases: Sequence[Tensor], where: Sequence[_Canvas], _: Sequence[Matrix]) -> Tensor:
    """Return what frames see whose samples are samples of the canvas, because the camera stood still."""
    height, width = (OVERSAMPLE * length for length in where[0].size)
    taps = _lens()
    margin = len(taps) // 2
    seen = torch.stack(
        [
            samples[
                :,
                OVERSAMPLE * canvas.top - margin : OVERSAMPLE * canvas.top + height + margin,
                OVERSAMPLE * canvas.left - margin : OVERSAMPLE * canvas.left + width + margin,
            ]
            for samples, canvas in zip(canvases, where, strict=True)
        ]
    )
    # The lens and the mean over a pixel in one.
    both = np.convolve(taps, np.full(OVERSAMPLE, 1 / OVERSAMPLE))
    return _filtered(_filtered(seen, both, -2, OVERSAMPLE), both, -1, OVERSAMPLE)


def _moved(canvases: Sequence[Tensor], where: Sequence[_Canvas], matrices: Sequence[Matrix]) -> Tensor:
    """Return what frames of a shaken camera see."""
    taps = _lens()
    together = canvases[0][None] if len(canvases) == 1 else torch.stack(list(canvases))
    blurred = _filtered(_filtered(together, taps, -2), taps, -1)
    maps = _maps(where, matrices, blurred.shape[-2:], len(taps) // 2)
    total = blurred.new_zeros(len(canvases), 3, *where[0].size)
    for down in range(OVERSAMPLE):
        for across in range(OVERSAMPLE):
            grid = _grid(maps, where[0].size, (down, across), blurred.device)
            total += F.grid_sample(blurred, grid, padding_mode="border", align_corners=False)
    return total.mul_(1 / OVERSAMPLE**2)


def _lens() -> Matrix:
    """Return the weights of the samples in the lens blur, those that ``cv2.GaussianBlur`` takes."""
    sigma = LENS_BLUR * OVERSAMPLE
    reach = round(sigma * 8 + 1) // 2
    taps = np.exp(-np.square(np.arange(-reach, reach + 1)) / (2 * sigma**2))
    return np.asarray(taps / taps.sum(), np.float64)


def _filtered(pictures: Tensor, taps: Matrix, side: int, every: int = 1) -> Tensor:
    """Filter one side of pictures where all taps fall on samples, at ``every`` n-th sample.

    Sums of shifted pictures, because convolutions of one channel are slow on the CPU, and rounded to
    TF32 on CUDA.
    """
    length = pictures.shape[side] - len(taps) + 1
    slices = [
        (..., slice(tap, tap + length, every), slice(None))
        if side == -2
        else (..., slice(tap, tap + length, every))
        for tap in range(len(taps))
    ]
    total = pictures[slices[0]] * float(taps[0])
    for part, weight in zip(slices[1:], taps[1:], strict=True):
        total.add_(pictures[part], alpha=float(weight))
    return total


def _maps(where: Sequence[_Canvas], matrices: Sequence[Matrix], shape: Sequence[int], margin: int) -> Matrix:
    """Return 3x3 maps from a frame's pixels to the coordinates of `grid_sample` on canvases of ``shape``.

    Those run from -1 to 1 over the outer edges of the first and the last sample.
    """
    rows, columns = shape
    normalised = np.array([[2 / columns, 0, 1 / columns - 1], [0, 2 / rows, 1 / rows - 1], [0, 0, 1]])
    maps = []
    for canvas, matrix in zip(where, matrices, strict=True):
        x, y = canvas.sample_of((0.0, 0.0))
        to_sample = np.array([[OVERSAMPLE, 0, x - margin], [0, OVERSAMPLE, y - margin], [0, 0, 1]])
        maps.append(normalised @ to_sample @ np.linalg.inv(matrix))
    return np.stack(maps)


def _grid(maps: Matrix, size: tuple[int, int], sample: tuple[int, int], device: torch.device) -> Tensor:
    """Return where a frame's pixels look (frames, H, W, 2) at one ``sample`` (down, across) of each."""
    y, x = (
        torch.arange(length, dtype=torch.float32, device=device) + ((which + 0.5) / OVERSAMPLE - 0.5)
        for length, which in zip(size, sample, strict=True)
    )
    m = _upload(maps, device)[..., None, None]
    across, down, depth = (
        torch.add(m[:, row, 0] * x, m[:, row, 1] * y[:, None] + m[:, row, 2]) for row in range(3)
    )
    grid = across.new_empty(*across.shape, 2)
    torch.div(across, depth, out=grid[..., 0])
    torch.div(down, depth, out=grid[..., 1])
    return grid


def _touched(covered: Tensor, where: Sequence[_Canvas]) -> Tensor:
    """Return (plans, H, W): True within 2 px of what an object's blurred picture ever touched."""
    height, width = where[0].size
    if not covered.any():
        return covered.new_zeros(len(where), height, width)
    margin = len(_lens()) // 2
    seen = torch.stack(
        [
            samples[
                OVERSAMPLE * canvas.top - margin : OVERSAMPLE * (canvas.top + height) + margin,
                OVERSAMPLE * canvas.left - margin : OVERSAMPLE * (canvas.left + width) + margin,
            ]
            for samples, canvas in zip(covered, where, strict=True)
        ]
    )
    for side in (1, 2):
        seen = _any_of(seen, OVERSAMPLE + 2 * margin, side)
    seen = F.pad(seen[:, ::OVERSAMPLE, ::OVERSAMPLE], (2, 2, 2, 2))
    for side in (1, 2):
        seen = _any_of(seen, 5, side)
    return seen


def _any_of(mask: Tensor, count: int, side: int) -> Tensor:
    """Return where any of ``count`` neighbours along one side is True, from each to those after it."""
    done = 1
    while done < count:
        step = min(done, count - done)
        length = mask.shape[side] - step
        mask = mask.narrow(side, 0, length) | mask.narrow(side, step, length)
        done += step
    return mask


# --- exposure, noise, codes: `simulate.record` ----------------------------------------------------


def _scales(references: Tensor, shares: Sequence[float]) -> Tensor:
    """Return the factors (plans, 1, 1, 1) of `simulate.scale_for_saturation`."""
    brightest = references.amax(dim=1).flatten(1)
    quantiles = []
    for values, share in zip(brightest, shares, strict=True):
        place = (len(values) - 1) * (1.0 - share)
        low = values.kthvalue(math.floor(place) + 1).values
        high = values.kthvalue(math.ceil(place) + 1).values
        quantiles.append(torch.lerp(low, high, place - math.floor(place)))
    return torch.stack(quantiles).reciprocal_()[:, None, None, None]


def _noisy(linear: Tensor, of: Sequence[Plan], generator: torch.Generator) -> Tensor:
    """Add photon and read noise to signals (frames, 3, H, W) in place, as `simulate.add_noise`.

    Below `COUNTABLE` photons a Poisson count and a Gaussian. Above, the sum of both is drawn from one
    Gaussian z: mean + s z + (skewness s / 6) (z^2 - 1), the expansion of Cornish and Fisher (1938).
    """
    noise = [plan.camera.noise(plan.iso) for plan in of]
    photon = _column([model.photon for model in noise], linear.device)
    read = _column([model.read / model.photon for model in noise], linear.device)  # [electrons]
    mean = linear.clamp_(0.0, 4.0).div_(photon)  # [electrons]
    z = torch.empty_like(mean).normal_(generator=generator)
    dark = (mean < COUNTABLE).flatten().nonzero()[:, 0]
    counted = torch.poisson(mean.view(-1)[dark], generator=generator)
    pixels = linear.shape[1:].numel()
    counted.addcmul_(z.view(-1)[dark], read.flatten()[dark // pixels])
    variance = mean + read.square()
    skew = (mean / variance).mul_(1 / 6)  # in units of a deviation
    mean.addcmul_(variance.sqrt_(), z).addcmul_(skew, z.square_().sub_(1))
    mean.view(-1)[dark] = counted
    return mean.mul_(photon)


def _encoded_8(linear: Tensor, of: Sequence[Plan]) -> Tensor:
    """Return the uint8 codes of signals (frames, 3, H, W), used up, through each frame's response."""
    responses: dict[int, Response] = {id(p.camera.response): p.camera.response for p in of}
    tables = torch.stack([_table(response, linear.device) for response in responses.values()])
    rank = {key: index for index, key in enumerate(responses)}
    which = torch.tensor([rank[id(plan.camera.response)] for plan in of], device=linear.device)
    first = (which[:, None] * 3 + torch.arange(3, device=linear.device)) * (LEVELS + 1)
    cells = linear.clamp_(0.0, 1.0).sqrt_().mul_(LEVELS).round_().to(torch.int32)
    cells += first.to(torch.int32)[..., None, None]
    return tables.view(-1).index_select(0, cells.view(-1)).view(cells.shape)


def _table(response: Response, device: torch.device) -> Tensor:
    """Return the codes (3, LEVELS + 1), uint8, of signals whose roots are equally spaced."""
    signal = np.square(np.linspace(0.0, 1.0, LEVELS + 1))
    codes = Camera(response=response).encode(np.repeat(signal[:, None], 3, axis=1).astype(np.float32))
    return torch.from_numpy(np.ascontiguousarray(codes.T)).to(device)


def _encoded_14(linear: Tensor, of: Sequence[Plan]) -> Tensor:
    """Return the int32 codes of signals (frames, 3, H, W), used up."""
    black = _column([plan.camera.black_level for plan in of], linear.device)
    white = _column([plan.camera.white_level for plan in of], linear.device)
    codes = linear.mul_(white - black).add_(black).round_().clamp_(min=0.0)
    return torch.minimum(codes, white).to(torch.int32)


# --- JPEG, written and read -----------------------------------------------------------------------


def _compress(codes: Tensor, of: Sequence[Plan]) -> None:
    """Replace the codes (frames, 3, H, W) of plans with a JPEG quality by what their files hold."""
    for subsampling in (False, True):
        index = [i for i, p in enumerate(of) if p.jpeg_quality is not None and p.subsampled == subsampling]
        quality = [of[i].jpeg_quality or 0 for i in index]
        if len(index) == len(codes):
            codes[:] = compressed(codes, quality, subsampling)
        elif index:
            which = torch.tensor(index, device=codes.device)
            codes[which] = compressed(codes[which], quality, subsampling)


def compressed(codes: Tensor, quality: Sequence[int], subsampling: bool) -> Tensor:
    """Return what is left of codes (frames, 3, H, W), uint8, after a JPEG file, as libjpeg reads it back.

    Written from ITU-T T.81 (the transform, Annex K tables) and T.871 (JFIF: YCbCr of full range, 4:2:0
    sited in the middle); the rounding and the triangle filter that enlarges the chroma are those
    libjpeg documents. Only entropy coding, which loses nothing, is left out.
    """
    height, width = codes.shape[-2:]
    red, green, blue = (channel.float() for channel in codes.unbind(1))
    # Weights in 1/65536; sums stay below 2^24, so that float32 is exact.
    luma = ((19595 * red).add_(green, alpha=38470).add_(blue, alpha=7471)).add_(32768).mul_(2**-16).floor_()
    chroma = torch.stack(
        [
            (32768 * blue).add_(red, alpha=-11059).add_(green, alpha=-21709),
            (32768 * red).add_(green, alpha=-27439).add_(blue, alpha=-5329),
        ],
        dim=1,
    )
    chroma = chroma.add_(32767).mul_(2**-16).floor_()  # its zero is code 128
    if subsampling:
        chroma = _halved(chroma)
    light, colour = _tables(quality, codes.device)
    luma = _transformed(luma.sub_(128)[:, None], light).add_(128)[:, 0, :height, :width]
    chroma = _transformed(chroma, colour)
    if subsampling:
        chroma = _doubled(chroma[..., : -(-height // 2), : -(-width // 2)])
    blue, red = chroma[..., :height, :width].unbind(1)
    rgb = luma.new_empty(len(codes), 3, height, width)
    torch.add(luma, (91881 * red).add_(32768).mul_(2**-16).floor_(), out=rgb[:, 0])
    mixed = (-22554 * blue).add_(red, alpha=-46802).add_(32768).mul_(2**-16).floor_()
    torch.add(luma, mixed, out=rgb[:, 1])
    torch.add(luma, (116130 * blue).add_(32768).mul_(2**-16).floor_(), out=rgb[:, 2])
    return rgb.clamp_(0, 255).to(torch.uint8)


# ITU-T T.81, tables K.1 and K.2, by rows.
LUMINANCE = """
    16 11 10 16  24  40  51  61   12 12 14 19  26  58  60  55   14 13 16 24  40  57  69  56
    14 17 22 29  51  87  80  62   18 22 37 56  68 109 103  77   24 35 55 64  81 104 113  92
    49 64 78 87 103 121 120 101   72 92 95 98 112 100 103  99"""
CHROMINANCE = """
    17 18 24 47 99 99 99 99   18 21 26 66 99 99 99 99   24 26 56 99 99 99 99 99
    47 66 99 99 99 99 99 99   99 99 99 99 99 99 99 99   99 99 99 99 99 99 99 99
    99 99 99 99 99 99 99 99   99 99 99 99 99 99 99 99"""


def _tables(quality: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the quantisation of luma and chroma (frames, 1, 1, 64) at qualities 1 to 100, as libjpeg's."""
    q = np.array(quality)[:, None, None, None]
    percent = np.where(q < 50, 5000 // np.maximum(q, 1), 200 - 2 * q)
    light, colour = (
        _upload(np.clip((np.array(table.split(), np.int64) * percent + 50) // 100, 1, 255), device)
        for table in (LUMINANCE, CHROMINANCE)
    )
    return light, colour


def _transformed(planes: Tensor, table: Tensor) -> Tensor:
    """Quantise the cosine transform of planes (frames, C, h, w) about 0, padded to whole blocks of 8 x 8."""
    padded = F.pad(planes, (0, -planes.shape[-1] % 8, 0, -planes.shape[-2] % 8), mode="replicate")
    frames, channels, height, width = padded.shape
    blocks = padded.view(frames, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    # In float64 on CUDA, where float32 may be rounded to TF32, 11 bits.
    exact = torch.float64 if planes.is_cuda else torch.float32
    k, n = np.arange(8)[:, None], np.arange(8)
    cosines = np.where(k == 0, 0.5**0.5, 1.0) * np.cos(math.pi * (2 * n + 1) * k / 16) / 2
    forward = torch.from_numpy(np.kron(cosines, cosines).T.copy()).to(planes.device, exact)
    flat = blocks.reshape(frames, channels, -1, 64).to(exact)
    coefficients = (flat @ forward).float().div_(table)
    # To the nearest, halves away from zero; a little more, because halves are not hit exactly.
    coefficients.add_(torch.full_like(coefficients, 0.5001).copysign_(coefficients)).trunc_().mul_(table)
    restored = (coefficients.to(exact) @ forward.T).float()
    restored = restored.add_(0.5).floor_().clamp_(-128, 127)
    return restored.view(blocks.shape).transpose(3, 4).reshape(padded.shape)


def _halved(chroma: Tensor) -> Tensor:
    """Average planes over 2 x 2 samples; halves are rounded down and up in turn."""
    even = F.pad(chroma, (0, chroma.shape[-1] % 2, 0, chroma.shape[-2] % 2), mode="replicate")
    pairs = even[..., ::2, :] + even[..., 1::2, :]
    total = pairs[..., ::2] + pairs[..., 1::2]
    bias = torch.arange(total.shape[-1], device=chroma.device) % 2 + 1
    return total.add_(bias).mul_(0.25).floor_()


def _doubled(chroma: Tensor) -> Tensor:
    """Enlarge planes 2 x 2: each sample is 3/4 of the nearest and 1/4 of the next on either side."""
    for side, below, above in ((-2, 0, 0), (-1, 8, 7)):
        pad = (0, 0, 1, 1) if side == -2 else (1, 1, 0, 0)
        around = F.pad(chroma, pad, mode="replicate")
        length = chroma.shape[side]
        near = chroma * 3
        before = near + around.narrow(side, 0, length) + below
        after = near.add_(around.narrow(side, 2, length)).add_(above)
        chroma = torch.stack([before, after], dim=chroma.ndim + side + 1).flatten(
            chroma.ndim + side, chroma.ndim + side + 1
        )
    return chroma.mul_(1 / 16).floor_()
