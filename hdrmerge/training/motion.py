"""What moved between three frames, told by optical flow: the camera, or things before it.

    frames -> flow, both ways -> dominant motion -> homography of the camera -> frames as the reference
                              -> static test of each patch

From Nazarczuk et al. 2022, "Self-supervised HDR Imaging from Motion and Exposure Cues", section 3.1 and
appendix C.1. The paper takes its flow from GMA (Jiang et al. 2021), whose weights are not to be had here:
in its place stands DIS of OpenCV (Kroeger et al. 2016), behind `Flow`, so that a learned one can take over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ..exposure import Array, Float, Mask
from ..flowmerge import dis_flow, flow_pictures
from ..painter import LUMA
from ..scene import Matrix

Flow = Callable[[Array, Array], Float]
"""Optical flow of grey pictures (H, W) uint8, still and moving: (H, W, 2) float32 [px], x and y; what the
first shows at p the second shows at p + flow(p)."""

FARTHEST = 15.0  # [px] dominant motion from which frames are not aligned, the paper's t_f
POINTS = 20_000  # that a homography is found from, at most
REPROJECTION = 1.0  # [px] farthest a point may lie from where a homography puts it
ITERATIONS = 2000  # of RANSAC
BETTER = 0.95  # of the squared difference that is left where a homography is worth a resampling
LENIENCE = (0.5, 2.0)  # [px] least and most that the flow in a static patch may differ from its median
MARGIN = 40  # [px] around a patch that shifts need at most
STEADY = 4.0  # [px] standard deviation of the shift of a camera held still
ALIGNED = 0.25  # [px] the same where frames are aligned before anything else: a pixel now and then
MOVING = (20.0, 3.0)  # [px] mean and standard deviation of that of one held freely

Shift = tuple[int, int]
"""[px] down and to the right."""


# --- optical flow ---------------------------------------------------------------------------------


def luma(code: Float) -> Float:
    """Return the luma (H, W) of codes (H, W, 3)."""
    return np.asarray(cv2.transform(code, LUMA), np.float32)


@dataclass(frozen=True, eq=False)
class Flows:
    """Flow (H, W, 2) [px] between the reference and another frame, and its magnitudes (H, W)."""

    there: Float  # reference -> other
    magnitudes: tuple[Float, Float]  # there, and back

    @classmethod
    def between(cls, reference: Float, other: Float, ratio: float, flow: Flow = dis_flow) -> Flows:
        """Measure both ways; ``ratio`` is the exposure of the other frame over the reference's."""
        still, moving = flow_pictures(reference, other, ratio)
        there, back = flow(still, moving), flow(moving, still)
        return cls(there, (_magnitude(there), _magnitude(back)))


def _magnitude(flow: Float) -> Float:
    return np.asarray(cv2.magnitude(flow[..., 0], flow[..., 1]), np.float32)


# --- the camera's motion --------------------------------------------------------------------------


def dominant_bin(magnitude: Float) -> int:
    """Return the fullest bin of the histogram of a flow's magnitudes; bin b is from b to b + 1 px."""
    return int(np.bincount(np.minimum(magnitude, 10_000.0).astype(np.int32).ravel()).argmax())


def alignable(magnitudes: Sequence[Float]) -> bool:
    """Tell whether the dominant motion to all other frames is small enough to be undone: step 2 of the sheet.

    The middle of its bin counts.
    """
    return all(dominant_bin(magnitude) + 0.5 < FARTHEST for magnitude in magnitudes)


def camera_motion(flows: Flows, rng: np.random.Generator) -> Matrix | None:
    """Return the homography (3, 3) from pixels of the reference to those of the other frame.

    By RANSAC from points whose motion lies in the dominant bin or beside it: what moves by itself has no
    say. None where there is none. Sheet A.3, step 3.
    """
    there, magnitude = flows.there, flows.magnitudes[0]
    middle = dominant_bin(magnitude)
    chosen = np.flatnonzero((magnitude >= middle - 1) & (magnitude < middle + 2))
    if len(chosen) > POINTS:
        chosen = chosen[rng.integers(len(chosen), size=POINTS)]
    if len(chosen) < 4:
        return None
    y, x = np.divmod(chosen, magnitude.shape[1])
    start = np.stack([x, y], axis=1).astype(np.float32)
    matrix, _ = cv2.findHomography(
        start, start + there[y, x], cv2.RANSAC, REPROJECTION, maxIters=ITERATIONS, confidence=0.999
    )
    return None if matrix is None or not np.isfinite(matrix).all() else np.asarray(matrix, np.float64)


def elected(reference: Float, code: Float, ratio: float, matrix: Matrix) -> Matrix:
    """Return a homography, or the identity where frames agree without it about as well.

    So a bracket from a tripod stays as it is: the flow in the dark parts of a picture is good enough to
    tell that nothing moves, not to resample by. ``ratio`` as in `Flows.between`.
    """
    still, moving = flow_pictures(reference, code, ratio)
    height, width = still.shape
    moved = cv2.warpPerspective(moving, matrix, (width, height), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP)
    told = cv2.inRange(still, 20, 235) & cv2.inRange(moving, 20, 235) & cv2.inRange(moved, 20, 235)
    before, after = (cv2.norm(still, other, cv2.NORM_L2SQR, told) for other in (moving, moved))
    return matrix if after < BETTER * before else np.eye(3)


def warped(code: Float, matrix: Matrix) -> tuple[Float, Mask]:
    """Return what a frame (H, W, 3) shows in the reference's pixels, and where it shows anything (H, W).

    ``matrix`` takes pixels of the reference to the frame's. Bicubic; valid to half a pixel beyond the
    outermost centres, where the edge is repeated.
    """
    height, width = code.shape[:2]
    inverse, size = cv2.WARP_INVERSE_MAP, (width, height)
    moved = cv2.warpPerspective(
        code, matrix, size, flags=cv2.INTER_CUBIC | inverse, borderMode=cv2.BORDER_REPLICATE
    )
    whole = np.full((height, width), 255, np.uint8)
    inside = cv2.warpPerspective(whole, matrix, size, flags=cv2.INTER_LINEAR | inverse)
    return np.clip(moved, 0.0, 1.0), np.asarray(inside >= 127)


# --- static patches -------------------------------------------------------------------------------


def lenience(median: float) -> float:
    """Return how far [px] the flow in a static patch may differ from its median: T of step 5 of the sheet.

    >>> [lenience(median) for median in (0.1, 1.0, 5.0)]
    [0.5, 1.0, 2.0]
    """
    return max(min(median, LENIENCE[1]), LENIENCE[0])


def is_static(magnitudes: Sequence[Float], quantile: float = 1.0) -> bool:
    """Tell whether nothing moves by itself in a patch, from all its flow magnitudes (h, w).

    In each map a share ``quantile`` of the pixels must agree with the median; 1 is the paper's, less
    forgives a noisy flow.
    """
    for magnitude in magnitudes:
        median = float(np.median(magnitude))
        off = np.count_nonzero(np.abs(magnitude - np.float32(median)) > lenience(median))
        if off > (1.0 - quantile) * magnitude.size + 1e-6:
            return False
    return True


# --- motion that is added -------------------------------------------------------------------------


def draw_shift(
    rng: np.random.Generator, far: bool, room: tuple[Shift, Shift], steady: float = STEADY
) -> Shift:
    """Draw a shift of the camera: N(0, ``steady``) px along each axis; +-N(20, 3) px where it moves ``far``.

    Sheet A.3, step 14. ``room`` is how far the patch may move (up and left, down and right): a shift that
    does not fit goes the other way, or as far as it can, so that no border is invented.
    """
    moved = []
    for before, after in zip(*room, strict=True):
        drawn = rng.normal(*MOVING) * rng.choice((-1, 1)) if far else rng.normal(0.0, steady)
        whole = int(np.rint(drawn))
        if not -before <= whole <= after and -before <= -whole <= after:
            whole = -whole
        moved.append(int(np.clip(whole, -before, after)))
    return moved[0], moved[1]
