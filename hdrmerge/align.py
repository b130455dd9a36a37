"""Register the frames of a bracket to its reference, whatever their exposure.

A frame's tones are replaced by their rank within the frame: exposure and response curve are
monotone, so ranks of static content agree between frames, and tones that one of the two has
clipped are cut from both. On these rank pictures

    pyramidal Lucas-Kanade tracks (Bouguet 2001) -> MAGSAC++ (Barath et al. 2020)
    where they get lost, SIFT features (Lowe 2004) -> MAGSAC++ first, then tracks from there

and of the homography, the similarity, the translation and the identity that one wins that explains
the tracks best for the freedom it takes (geometric robust information criterion, Torr 1998).
Identity always stands for election, and takes the seat when the winner moves nothing by more than
a quarter of a pixel or does not make the pictures more alike: an aligned bracket stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from .exposure import Array, Float
from .proxy import Proxy, from_blocks

Model = Literal["none", "translation", "similarity", "homography"]
MODELS: tuple[Model, ...] = ("none", "translation", "similarity", "homography")
Matrix = NDArray[np.float64]

FEATURE_PIXELS = 400_000  # size of the picture that SIFT sees
BLACK = 0.0008  # linear level, about code 3 of 255 in sRGB: darker tones are noise and rounding
PEDESTAL = 0.01  # linear level below which the darkest twentieth of a frame may be scattered light or fog
CONVINCING = 0.5  # share of tracks that must agree where no features are to be asked
SURE, SURE_INLIERS = 0.8, 100  # share and number of tracks that must agree where details are too few to tell
STILL = 0.25  # [px of the frame] a motion nowhere larger than this is none
TRACK_ERROR = 0.1  # [px of the proxy] least standard error of a track
OUTLIER = 3.0  # [standard errors] a track farther off is something that moved
FREEDOM = {"none": 0, "translation": 2, "similarity": 4, "homography": 8}
MIN_INLIERS = {"translation": 6, "similarity": 12, "homography": 30}
MIN_COMMON = 0.03  # share of tones two frames must have in common to be compared
MIN_LIKENESS = 0.05  # correlation of details below which a frame shows something else
MIN_EVIDENCE = 0.3  # share of the picture that must have details in both frames to say so


@dataclass(frozen=True)
class Alignment:
    """The verdict on one frame.

    ``matrix`` (3, 3) takes reference pixels to frame pixels (centres at integers), at full size.
    ``inliers`` counts the tracks that support it, ``residual`` is their median distance [px of the
    frame], None where there were none. A frame that is not ``used`` stays out of the merge;
    ``note`` says why, or what else the reader should know.
    """

    model: Model
    matrix: Matrix
    inliers: int = 0
    residual: float | None = None
    used: bool = True
    note: str = ""

    @property
    def is_identity(self) -> bool:
        return bool(np.array_equal(self.matrix, np.eye(3)))


def align(proxies: Sequence[Proxy], reference: int, model: Model = "homography") -> list[Alignment]:
    """Register every proxy to the reference's; ``model`` is the most general motion allowed."""
    unmoved = Alignment("none", np.eye(3))
    if model == "none":
        return [unmoved] * len(proxies)
    with ThreadPoolExecutor() as pool:
        pictures = list(pool.map(_RankPicture.of, proxies))
        others = [i for i in range(len(proxies)) if i != reference]
        found = pool.map(lambda i: _align_pair(pictures[reference], pictures[i], model), others)
        verdicts = dict(zip(others, found, strict=True))
    return [verdicts.get(i, unmoved) for i in range(len(proxies))]


@dataclass(eq=False)
class _RankPicture:
    """A proxy's tones as ranks 0..1 within the frame; below ``low`` is black, from ``high`` on clipped."""

    rank: Float
    low: float
    high: float
    factor: int

    @classmethod
    def of(cls, proxy: Proxy) -> _RankPicture:
        light = cv2.transform(proxy.linear, np.array([[0.25, 0.5, 0.25]], np.float32))
        light = cv2.GaussianBlur(light, (0, 0), 0.7)
        light[proxy.clipped] = 1.0
        # A tone's rank is the share of pixels darker than it; the square root spreads dark tones.
        tone = np.clip(np.sqrt(np.maximum(light, 0.0)) * 65535.0, 0, 65535).astype(np.uint16)
        counts = np.bincount(tone.ravel(), minlength=65536)
        darker = ((np.cumsum(counts) - counts) / tone.size).astype(np.float32)
        floor = (float(np.searchsorted(darker, 0.05)) / 65535) ** 2
        black = max(BLACK, 1.5 * floor if floor < PEDESTAL else 0.0)
        low, high = float(darker[int(black**0.5 * 65535)]), float(darker[65535])
        return cls(darker.take(tone), low, high if counts[65535] else 1.0, proxy.factor)

    @cached_property
    def features(self) -> tuple[Array, Array | None]:
        """SIFT keypoints (K, 2) in proxy pixels and their descriptors, None where there are none."""
        scale = min(1.0, (FEATURE_PIXELS / self.rank.size) ** 0.5)
        small = cv2.resize(self.rank, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        sift = cv2.SIFT.create(nfeatures=1500, contrastThreshold=0.02)
        points, descriptors = sift.detectAndCompute((small * 255).astype(np.uint8), None)
        at = np.array([point.pt for point in points], np.float32).reshape(-1, 2)
        return (at + 0.5) / scale - 0.5, descriptors


@dataclass(frozen=True, eq=False)
class _Fit:
    """A motion fitted to tracks: ``inliers`` of them, their ``share``, their median ``residual`` [px]."""

    model: Model
    matrix: Matrix
    inliers: int = 0
    share: float = 0.0
    residual: float | None = None


def _align_pair(reference: _RankPicture, frame: _RankPicture, allowed: Model) -> Alignment:
    low, high = max(reference.low, frame.low), min(reference.high, frame.high)
    if high - low < MIN_COMMON:
        return Alignment("none", np.eye(3), note="too few tones in common with the reference to align")
    still, moving = _stretched(reference.rank, low, high), _stretched(frame.rank, low, high)
    # Most cameras hardly moved: tracks from where things were. Features where those get lost.
    fits = _refined(still, moving, np.eye(3), allowed)
    if not fits or fits[0].share < CONVINCING or fits[0].inliers < MIN_INLIERS["homography"]:
        start = _from_features(reference, frame)
        fits = (_refined(still, moving, start, allowed) if start is not None else []) or fits
    chosen, likeness = _elect(still, moving, fits, reference.factor)
    if likeness is not None and likeness < MIN_LIKENESS:
        return Alignment("none", np.eye(3), used=False, note="shows something else than the reference")
    residual = None if chosen.residual is None else round(chosen.residual * reference.factor, 3)
    return Alignment(chosen.model, _at_full_size(chosen.matrix, reference.factor), chosen.inliers, residual)


def _stretched(rank: Float, low: float, high: float) -> Array:
    """Cut the ranks to the common tones and spread these over 8 bits."""
    return np.asarray(np.clip((rank - low) * (255.0 / (high - low)), 0, 255), np.uint8)


def _from_features(reference: _RankPicture, frame: _RankPicture) -> Matrix | None:
    """Return the homography that SIFT matches support, the similarity where they are few, or None."""
    (here, a), (there, b) = reference.features, frame.features
    if a is None or b is None or len(a) < 8 or len(b) < 8:
        return None
    pairs = cv2.BFMatcher(cv2.NORM_L2).knnMatch(a, b, k=2)
    good = [pair[0] for pair in pairs if len(pair) == 2 and pair[0].distance < 0.8 * pair[1].distance]
    if len(good) < MIN_INLIERS["similarity"]:
        return None
    source, target = here[[m.queryIdx for m in good]], there[[m.trainIdx for m in good]]
    shape = reference.rank.shape
    matrix, mask = cv2.findHomography(source, target, cv2.USAC_MAGSAC, 3.0, maxIters=5000)
    if matrix is not None and mask.sum() >= MIN_INLIERS["homography"] and _sane(matrix, shape):
        return np.asarray(matrix, np.float64)
    matrix, mask = cv2.estimateAffinePartial2D(source, target, method=cv2.RANSAC, ransacReprojThreshold=3.0)
    if matrix is None or mask.sum() < MIN_INLIERS["similarity"]:
        return None
    similarity = np.vstack([matrix, [0, 0, 1]])
    return similarity if _sane(similarity, shape) else None


def _refined(still: Array, moving: Array, start: Matrix, allowed: Model) -> list[_Fit]:
    """Track points from the reference into the frame and fit every allowed model to the tracks.

    The second round starts from the first one's answer, where the tracks have nowhere far to go.
    Returns fits, best first, none where the tracks support none.
    """
    fits: list[_Fit] = []
    for levels in (4, 1):
        tracks = _tracked(still, moving, start, levels)
        if tracks is None:
            break
        fits = _fitted(*tracks, still.shape, allowed) or fits
        if not fits:
            break
        start = fits[0].matrix
    return fits


def _tracked(still: Array, moving: Array, start: Matrix, levels: int) -> tuple[Array, Array] | None:
    """Return points of the reference and where Lucas-Kanade finds them in the frame, (K, 2) each."""
    height, width = still.shape
    spacing = max(4.0, (height * width / 4000) ** 0.5)
    points = cv2.goodFeaturesToTrack(still, 1200, 0.005, spacing, blockSize=5)
    if points is None or len(points) < MIN_INLIERS["translation"]:
        return None
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpPerspective(moving, start, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    still, warped = _flattened(still), _flattened(warped)
    window = (21, 21)
    there, seen, _ = cv2.calcOpticalFlowPyrLK(still, warped, points, None, winSize=window, maxLevel=levels)
    back, seen_back, _ = cv2.calcOpticalFlowPyrLK(warped, still, there, None, winSize=window, maxLevel=levels)
    good = (seen.ravel() > 0) & (seen_back.ravel() > 0)
    good &= np.abs(points - back).reshape(-1, 2).max(axis=1) < 0.5
    target = cv2.perspectiveTransform(there, start).reshape(-1, 2)
    good &= np.all((target >= 0) & (target <= [moving.shape[1] - 1, moving.shape[0] - 1]), axis=1)
    if good.sum() < MIN_INLIERS["translation"]:
        return None
    return points.reshape(-1, 2)[good], target[good]


def _flattened(ranks: Array) -> Array:
    """Take the large-scale tones out of a rank picture, 8 bits.

    Ranks are relative to what a frame sees: a camera that moves along a gradient shifts them all a
    little, and a tracker takes that for motion the other way.
    """
    base = cv2.GaussianBlur(ranks, (0, 0), 8.0)
    return np.asarray(cv2.addWeighted(ranks, 2.0, base, -2.0, 128.0), np.uint8)


def _fitted(source: Array, target: Array, shape: tuple[int, ...], allowed: Model) -> list[_Fit]:
    """Fit the models that are allowed and supported to tracks; return them, best explanation first."""
    shift = np.median(target - source, axis=0)
    proposals: dict[Model, Any] = {"translation": np.array([[1, 0, shift[0]], [0, 1, shift[1]]])}
    general = MODELS.index(allowed)
    if general >= 2 and len(source) >= MIN_INLIERS["similarity"]:
        proposals["similarity"], _ = cv2.estimateAffinePartial2D(
            source, target, method=cv2.RANSAC, ransacReprojThreshold=0.7
        )
    if general >= 3 and len(source) >= MIN_INLIERS["homography"]:
        proposals["homography"], _ = cv2.findHomography(source, target, cv2.USAC_MAGSAC, 0.7, maxIters=5000)
    fits, distances = [], {}
    for model, matrix in proposals.items():
        if matrix is None:
            continue
        square = np.asarray(matrix if len(matrix) == 3 else np.vstack([matrix, [0, 0, 1]]), np.float64)
        distance = np.linalg.norm(_apply(square, source) - target, axis=1)
        inliers = distance < 1.0
        if (count := int(inliers.sum())) >= MIN_INLIERS[model] and _sane(square, shape):
            fits.append(_Fit(model, square, count, count / len(source), float(np.median(distance[inliers]))))
            distances[model] = distance
    if not fits:
        return []
    most = max(fit.inliers for fit in fits)
    error = max(TRACK_ERROR, 1.2 * min(fit.residual or 0.0 for fit in fits if fit.inliers >= 0.8 * most))

    def criterion(fit: _Fit) -> float:
        off = np.minimum(distances[fit.model] / error, OUTLIER)
        return float(off @ off + FREEDOM[fit.model] * np.log(4 * len(source)))

    return sorted(fits, key=criterion)


def _elect(still: Array, moving: Array, fits: list[_Fit], factor: int) -> tuple[_Fit, float | None]:
    """Return the best fit or the identity, and how alike the pictures then are."""
    identity = _Fit("none", np.eye(3))
    plain = _likeness(still, moving, identity.matrix)
    if not fits:
        return identity, plain
    best = fits[0]
    height, width = still.shape
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height]], np.float64)
    unmoved = np.abs(_apply(best.matrix, corners) - corners).max() <= STILL / factor
    moved = _likeness(still, moving, best.matrix)
    worse = plain is not None and moved is not None and moved < plain + 0.002
    unsure = moved is None and (best.share < SURE or best.inliers < SURE_INLIERS)
    if unmoved or worse or unsure:
        return replace(best, model="none", matrix=np.eye(3)), plain
    return best, moved


def _likeness(still: Array, moving: Array, matrix: Matrix) -> float | None:
    """Return the robust correlation of details of two rank pictures in [-1, 1], None if there are none.

    Both are band-passed first, so that the softening of a resampled picture is no advantage, and
    their product is taken as a mean over blocks, so that a moving object is one block among many.
    """
    height, width = still.shape
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpPerspective(
        moving, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    inside = cv2.warpPerspective(np.full_like(moving, 255), matrix, (width, height), flags=flags)
    a, b = _details(still), _details(warped)
    outside = inside < 255
    a[outside] = 0
    b[outside] = 0
    block = max(8, min(height, width) // 24)
    size = (max(width // block, 1), max(height // block, 1))
    aa, bb, ab = (cv2.resize(x, size, interpolation=cv2.INTER_AREA) for x in (a * a, b * b, a * b))
    textured = (aa > 4.0) & (bb > 4.0)
    if textured.sum() < max(8, MIN_EVIDENCE * textured.size):
        return None
    return float(np.median(ab[textured] / np.sqrt(aa[textured] * bb[textured])))


def _details(picture: Array) -> Float:
    fine = cv2.GaussianBlur(picture.astype(np.float32), (0, 0), 1.5)
    return np.asarray(fine - cv2.GaussianBlur(fine, (0, 0), 6.0), np.float32)


def _sane(matrix: Any, shape: tuple[int, ...]) -> bool:
    """Tell whether a hand-held camera could have moved so: little zoom, little tilt, enough overlap."""
    height, width = shape
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], float)
    if not np.all(np.isfinite(matrix)):
        return False
    weights = np.hstack([corners, np.ones((4, 1))]) @ np.asarray(matrix)[2]
    if weights.min() <= 0.5 or weights.max() >= 2.0:
        return False
    moved = _apply(matrix, corners).astype(np.float32)
    if not cv2.isContourConvex(moved):
        return False
    area = cv2.contourArea(moved) / (width * height)
    overlap, _ = cv2.intersectConvexConvex(moved, corners.astype(np.float32))
    return 0.75 < area < 1.33 and overlap / (width * height) > 0.4


def _apply(matrix: Any, points: Array) -> Array:
    moved = np.hstack([points, np.ones((len(points), 1))]) @ np.asarray(matrix, np.float64).T
    return np.asarray(moved[:, :2] / moved[:, 2:], np.float64)


def _at_full_size(matrix: Matrix, factor: int) -> Matrix:
    """Take a matrix between proxies to one between frames."""
    if np.array_equal(matrix, np.eye(3)):
        return np.eye(3)
    up = from_blocks(factor)
    full = up @ matrix @ np.linalg.inv(up)
    return np.asarray(full / full[2, 2], np.float64)
