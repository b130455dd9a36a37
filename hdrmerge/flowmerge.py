"""What neighbours tell about one frame of a video, without a network: the classical ways to merge them.

    codes -> in line by a similarity -> fetched by optical flow -> believed where they agree -> weighted mean

Exposures alternate from frame to frame, so that a neighbour shows what the reference clipped, or lost in
noise. `reference_alone` ignores that. `merge_in_line` believes all neighbours once the camera's motion is
undone: what moved by itself becomes a ghost. `merge_by_flow` follows each pixel by DIS (Kroeger et al. 2016,
"Fast Optical Flow using Dense Inverse Search") and believes what it finds only where both frames, as bright
and as clipped as each other, show the same.

Frames are those around the reference which have all other exposures, from the past and from the future:
2 N - 1 of them, as `networks.coarse` takes them, the reference in the middle (or at ``reference``).

Units: a frame is gamma codes (H, W, 3) in [0, 1], linear ^ (1 / 2.2); exposures are relative to the shortest
of the video, which is 1. Radiance 1.0 is where the shortest clips.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from .align import align
from .exposure import Array, Float, Mask, NoiseModel, Response, smoothstep
from .painter import GAMMA, LUMA
from .proxy import NEARLY_CLIPPED, Proxy, block_of

Matrix = NDArray[np.float64]
Grey = NDArray[np.uint8]

FADE = (0.99, 0.93)  # codes of the brightest channel between which a frame's weight goes from 0 to 1
NOISE = NoiseModel(0.0, 1e-3).with_quantisation(Response.named("gamma2.2"), 256)  # of every frame
LAST_RESORT = 1e-4  # weight of a clipped reference beside 1, the most that the shortest exposure has
DIFFERENT = (0.04, 0.12)  # of codes, from where a neighbour is believed less, and from where not at all
SMOOTHNESS = 60.0  # weight of smoothness in the refinement of DIS, by default 20
FINE_SMOOTHNESS = (15.0, 5.0)  # the same of a fine flow: to longer exposures, and to shorter ones
FINE_STEPS = 50  # of its descent, by default 25

RECORD_NOISE = 5e-4  # of means of 3 x 3 pixels, 1.0 = clipping: the noise of a frame, as `confirmation` asks
RECORD_SHARES = (0.005, 0.03)  # of what is seen: may differ besides, in a longer exposure and a shorter one
USUAL_DIFFERENCE = 0.8  # median of differences between frames in line, in units of what is expected
CONFIRMED = 32.0  # ratio of exposures up to which a record says so much
SAMPLED = 100_000  # pixels that the median is taken of
LARGEST_DIFFERENCE = 8.0  # of such medians, beside the usual one: what is left is motion


# --- the three ways -------------------------------------------------------------------------------


def reference_alone(
    frames: Sequence[Float], exposures: Sequence[float], reference: int | None = None
) -> Float:
    """Return the radiance (H, W, 3) that the reference recorded."""
    middle = _middle(frames, reference)
    return radiance(frames[middle], exposures[middle])


def merge_in_line(
    frames: Sequence[Float],
    exposures: Sequence[float],
    reference: int | None = None,
    matrices: Sequence[Matrix] | None = None,
) -> Float:
    """Return the weighted mean (H, W, 3) of frames that one similarity each brings into line.

    ``matrices`` are those of `similarities`, found here unless given.
    """
    middle = _middle(frames, reference)
    matrices = similarities(frames, middle) if matrices is None else matrices
    lined = [in_line(codes, matrix) for codes, matrix in zip(frames, matrices, strict=True)]
    trust = [inside.astype(np.float32) for _, inside in lined]
    return weighted([codes for codes, _ in lined], exposures, trust, middle)


def merge_by_flow(
    frames: Sequence[Float],
    exposures: Sequence[float],
    reference: int | None = None,
    matrices: Sequence[Matrix] | None = None,
    fine: bool = False,
) -> Float:
    """Return the weighted mean (H, W, 3) of what flow fetches from each frame, where it is believed.

    Frames are brought into line first, so that flow has less to find; ``matrices`` as in `merge_in_line`. A
    ``fine`` merge takes the flow so, as in `flow_to`, and each channel by itself, as in `shares_of`.
    """
    middle = _middle(frames, reference)
    matrices = similarities(frames, middle) if matrices is None else matrices
    own, found = frames[middle], list(frames)
    trust = [np.ones(own.shape[:2], np.float32)] * len(frames)
    for k, (codes, matrix) in enumerate(zip(frames, matrices, strict=True)):
        if k != middle:
            ratio = exposures[k] / exposures[middle]
            found[k], inside = fetched(codes, flow_to(own, in_line(codes, matrix)[0], ratio, fine), matrix)
            trust[k] = agreement(own, found[k], ratio) * inside
    return weighted(found, exposures, trust, middle, by_channel=fine)


def _middle(frames: Sequence[Float], reference: int | None) -> int:
    return len(frames) // 2 if reference is None else reference


# --- codes ----------------------------------------------------------------------------------------


def radiance(codes: Float, exposure: float) -> Float:
    """Return the radiance that codes recorded, in [0, 1 / exposure]."""
    return np.asarray(np.power(codes, np.float32(GAMMA)) * np.float32(1 / exposure), np.float32)


def rematched(codes: Float, ratio: float) -> Float:
    """Return what codes were with ``ratio`` times the exposure: clip(codes * ratio ^ (1 / gamma)).

    >>> [round(float(code), 3) for code in rematched(np.float32([0.5, 0.5326]), 4)]
    [0.939, 1.0]
    """
    return np.asarray(np.clip(codes * np.float32(ratio ** (1 / GAMMA)), 0.0, 1.0), np.float32)


def alike(one: Float, other: Float, ratio: float) -> tuple[Float, Float]:
    """Return two frames as bright and as clipped as each other: the shorter one matched to the longer.

    ``ratio`` is the exposure of the other over that of the one.
    """
    return rematched(one, max(ratio, 1.0)), rematched(other, max(1 / ratio, 1.0))


def weighted(
    frames: Sequence[Float],
    exposures: Sequence[float],
    trust: Sequence[Float],
    reference: int,
    by_channel: bool = False,
) -> Float:
    """Return the mean radiance (H, W, 3) of frames in line, by their noise and ``trust`` (H, W) in [0, 1].

    The inverse of the variance of radiance, nothing where a frame is clipped. Where none is left, the
    reference says at least how bright it was.
    """
    total = np.zeros_like(frames[reference])
    shares = shares_of(frames, exposures, trust, reference, by_channel)
    for codes, exposure, share in zip(frames, exposures, shares, strict=True):
        total += np.power(codes, np.float32(GAMMA)) * (share * np.float32(1 / exposure))
    return total


def shares_of(
    frames: Sequence[Float],
    exposures: Sequence[float],
    trust: Sequence[Float],
    reference: int,
    by_channel: bool = False,
) -> list[Float]:
    """Return the share of each frame in the mean that `weighted` takes, (H, W, 1) in [0, 1]; together 1.

    ``by_channel`` they are (H, W, 3): of a coloured light that it clips, the reference still knows the other
    channels. A neighbour may not say so of itself: what of it is clipped cannot be compared.
    """
    weights = []
    for k, (codes, exposure) in enumerate(zip(frames, exposures, strict=True)):
        linear = np.power(codes, np.float32(GAMMA))
        seen = linear if by_channel else cv2.transform(linear, LUMA)[..., None]
        brightest = codes if by_channel and k == reference else codes.max(axis=-1, keepdims=True)
        weight = trust[k][..., None] / (NOISE.variance(seen) / np.float32(NOISE.read**2 * exposure**2))
        if exposure > min(exposures) * 1.01:
            weight = weight * smoothstep(*FADE, brightest)
        weights.append(np.maximum(weight, np.float32(LAST_RESORT)) if k == reference else weight)
    total = np.sum(weights, axis=0)
    return [np.asarray(weight / total, np.float32) for weight in weights]


# --- the camera's motion --------------------------------------------------------------------------


def similarities(frames: Sequence[Float], reference: int) -> list[Matrix]:
    """Return for each frame the similarity (3, 3) that takes pixels of the reference to its own.

    Turned, shifted, enlarged; the identity where nothing can be told, or nothing moved. Exposures need not
    be known.
    """
    found = align([proxy_of(codes) for codes in frames], reference, "similarity")
    return [alignment.matrix if alignment.used else np.eye(3) for alignment in found]


def proxy_of(codes: Float) -> Proxy:
    """Return what alignment sees of a frame: linear, no larger than it needs."""
    height, width = codes.shape[:2]
    factor = min(block_of(height * width), height, width)
    linear = np.power(codes[: height // factor * factor, : width // factor * factor], np.float32(GAMMA))
    clipped = (linear.max(axis=-1) >= NEARLY_CLIPPED).astype(np.float32)
    size = width // factor, height // factor
    if factor > 1:
        linear, clipped = (cv2.resize(p, size, interpolation=cv2.INTER_AREA) for p in (linear, clipped))
    return Proxy(np.asarray(linear, np.float32), np.asarray(clipped > 0), factor)


def in_line(codes: Float, matrix: Matrix) -> tuple[Float, Mask]:
    """Return a frame in the reference's pixels (H, W, 3), and where it shows anything (H, W).

    Elsewhere it stays as it was: a network shall see no border. ``matrix`` is that of `similarities`.
    """
    height, width = codes.shape[:2]
    if np.array_equal(matrix, np.eye(3)):
        return codes, np.ones((height, width), np.bool_)
    x, y = _pixels(height, width)
    return _looked_up(codes, *_through(matrix, x, y))


# --- optical flow ---------------------------------------------------------------------------------


def flow_to(reference: Float, other: Float, ratio: float, fine: bool = False) -> Float:
    """Return optical flow (H, W, 2) [px], x first: what the reference shows at p the other shows at p + flow.

    ``ratio`` is the exposure of the other over the reference's. A ``fine`` flow is found at full size, too;
    it may bend more where the reference is clipped and the other is not.
    """
    smoothness = FINE_SMOOTHNESS[ratio < 1] if fine else None
    return dis_flow(*flow_pictures(reference, other, ratio), smoothness)


def flow_pictures(still: Float, moving: Float, ratio: float) -> tuple[Grey, Grey]:
    """Return two frames (H, W, 3) as grey pictures for a flow, as bright and as clipped as each other.

    ``ratio`` is the exposure of ``moving`` over that of ``still``.
    """
    one, other = alike(still, moving, ratio)
    return grey(one), grey(other)


def grey(codes: Float) -> Grey:
    """Return a picture (H, W, 3) of values in [0, 1] as one for a flow, (H, W)."""
    return np.asarray(np.rint(cv2.transform(codes, LUMA) * np.float32(255)), np.uint8)


def dis_flow(still: Array, moving: Array, fine: float | None = None) -> Float:
    """Return the flow (H, W, 2) [px] of OpenCV's DIS between grey pictures (H, W) uint8.

    On a rendered scene without noise it is 0.05 px off at half of the pixels, 0.5 px at one in a hundred.
    Smoother than by default: of real brackets a third more patches are seen to be static. With a smoothness
    ``fine`` it is found at full size, too, where else it ends at half of it: five times the work, and what it
    fetches of made-up video is 2 dB nearer to the truth, at edges of what moves and within what is clipped.
    """
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    dis.setVariationalRefinementAlpha(SMOOTHNESS if fine is None else fine)
    if fine is not None:
        dis.setFinestScale(0)
        dis.setGradientDescentIterations(FINE_STEPS)
    return np.asarray(dis.calc(still, moving, None), np.float32)


def fetched(codes: Float, flow: Float, matrix: Matrix | None = None) -> tuple[Float, Mask]:
    """Return what a frame shows at p + flow (H, W, 3), and where that is inside of it (H, W).

    Of a frame that was brought into line by ``matrix`` before the flow was found, in one resampling.
    """
    height, width = codes.shape[:2]
    x, y = _pixels(height, width)
    x, y = x + flow[..., 0], y + flow[..., 1]
    return _looked_up(codes, *((x, y) if matrix is None else _through(matrix, x, y)))


def led_on(flow: Float, matrix: Matrix) -> Float:
    """Return the flow (H, W, 2) [px] to a frame as it was taken, of that to where ``matrix`` puts it."""
    if np.array_equal(matrix, np.eye(3)):
        return flow
    x, y = _pixels(*flow.shape[:2])
    across, down = _through(matrix, x + flow[..., 0], y + flow[..., 1])
    return np.stack([across - x, down - y], axis=-1)


def agreement(reference: Float, other: Float, ratio: float) -> Float:
    """Say how far a frame in line may be believed, (H, W) in [0, 1]: it shows what the reference shows.

    Means over 3 x 3 pixels are compared, since noise is no difference. Where the longer exposure of both is
    clipped, the other must be as bright.
    """
    one, two = (cv2.blur(codes, (3, 3)) for codes in alike(reference, other, ratio))
    return 1 - smoothstep(*DIFFERENT, np.abs(one - two).max(axis=-1))


def belief(reference: Float, other: Float, ratio: float) -> Float:
    """Say how far a frame in line may be believed, (H, W) in [0, 1], finer than `agreement` alone.

    Besides, the reference's record has to confirm what the other frame shows: of two neighbours that hardly
    differ the one that is followed better counts more. Exposures further apart than `CONFIRMED` have too
    little in common for that.
    """
    alike = agreement(reference, other, ratio)
    if max(ratio, 1 / ratio) > CONFIRMED:
        return alike
    return alike * confirmation(reference, other, ratio)


def confirmation(reference: Float, other: Float, ratio: float) -> Float:
    """Say how far what a frame shows is what the reference recorded, (H, W) in [0, 1].

    In linear light, means over 3 x 3 pixels: e^-1 is left of a difference as large as noise and a small share
    of what is seen. If most pixels differ by more, frames are noisier, or their exposures others than
    stated, and as much more is expected.
    """
    most = np.float32(min(1.0, 1 / ratio))  # where the longer exposure clips
    own, seen = (np.minimum(radiance(*one), most) for one in ((reference, 1.0), (other, ratio)))
    level = cv2.blur(np.maximum(own, seen), (3, 3)) * np.float32(RECORD_SHARES[ratio < 1])
    wrong = np.abs(cv2.blur(own - seen, (3, 3))) / (level + np.float32(RECORD_NOISE * np.hypot(1, 1 / ratio)))
    wrong = wrong.max(axis=-1)
    told = wrong[own.min(axis=-1) < NEARLY_CLIPPED * most]
    usual = float(np.median(told[:: max(len(told) // SAMPLED, 1)])) if len(told) else 0.0
    expected = np.float32(np.clip(usual / USUAL_DIFFERENCE, 1.0, LARGEST_DIFFERENCE))
    return np.asarray(np.exp(-wrong / expected), np.float32)


# --- resampling -----------------------------------------------------------------------------------


def _pixels(height: int, width: int) -> tuple[Float, Float]:
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return x, y


def _through(matrix: Matrix, x: Float, y: Float) -> tuple[Float, Float]:
    """Return where a matrix takes pixels; of a similarity or a homography."""
    m = matrix.astype(np.float32)
    depth = m[2, 0] * x + m[2, 1] * y + m[2, 2]
    across, down = ((m[row, 0] * x + m[row, 1] * y + m[row, 2]) / depth for row in (0, 1))
    return across, down


def _looked_up(codes: Float, x: Array, y: Array) -> tuple[Float, Mask]:
    """Return codes at x and y (H, W) [px], bicubic; those at the pixel itself where that is outside."""
    height, width = codes.shape[:2]
    found = cv2.remap(codes, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    inside = (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)
    return np.where(inside[..., None], np.clip(found, 0.0, 1.0), codes).astype(np.float32), inside
