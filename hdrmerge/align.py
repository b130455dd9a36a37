"""Register the frames of a bracket to its reference, whatever their exposure.

A frame's tones are replaced by their rank within the frame: exposure and response curve are
monotone, so ranks of static content agree between frames, and tones that one of the two has
clipped are cut from both. On these rank pictures

    SIFT features (Lowe 2004) -> MAGSAC++ (Barath et al. 2020)      where the frame roughly lies
    pyramidal Lucas-Kanade tracks (Bouguet 2001) -> MAGSAC++        to a small fraction of a pixel

and of the homography, the similarity, the translation and the identity that one wins that explains
the tracks best for the freedom it takes (geometric robust information criterion, Torr 1998).
Identity always stands for election, and takes the seat when the winner moves nothing by more than
a quarter of a pixel or does not make the pictures more alike: an aligned bracket stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from .exposure import Array, Float
from .proxy import Proxy

Model = Literal["none", "translation", "similarity", "homography"]
MODELS: tuple[Model, ...] = ("none", "translation", "similarity", "homography")
Matrix = NDArray[np.float64]

FEATURE_PIXELS = 400_000  # size of the picture that SIFT sees
STILL = 0.25  # [px of the frame] a motion nowhere larger than this is none
TRACK_ERROR = 0.1  # [px of the proxy] least standard error of a track
OUTLIER = 3.0  # [standard errors] a track farther off is something that moved
FREEDOM = {"none": 0, "translation": 2, "similarity": 4, "homography": 8}
MIN_INLIERS = {"translation": 6, "similarity": 12, "homography": 30}
MIN_COMMON = 0.03  # share of tones two frames must have in common to be compared
MIN_LIKENESS = 0.12  # correlation of details below which a frame shows something else


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


@dataclass(frozen=True, eq=False)
class _RankPicture:
    """A proxy's tones as ranks 0..1 within the frame, and the tones that are not black or clipped."""

    rank: Float
    low: float
    high: float
    factor: int
    keypoints: NDArray[np.float32]  # (K, 2) in proxy pixels
    descriptors: Float | None

    @classmethod
    def of(cls, proxy: Proxy) -> _RankPicture:
        light = cv2.transform(proxy.linear, np.array([[0.25, 0.5, 0.25]], np.float32))
        light = cv2.GaussianBlur(light, (0, 0), 0.7)
        light[proxy.clipped] = 1.0
        # A tone's rank is the share of pixels darker than it; the square root spreads dark tones.
        tone = np.clip(np.sqrt(np.maximum(light, 0.0)) * 65535.0, 0, 65535).astype(np.uint16)
        counts = np.bincount(tone.ravel(), minlength=65536)
        below = (np.cumsum(counts) - counts) / tone.size
        rank = below.astype(np.float32).take(tone)
        keypoints, descriptors = _features(rank)
        black = int(np.flatnonzero(counts)[0])
        low = float((counts[: black + 1].sum()) / tone.size)
        return cls(
            rank, low, float(below[65535]) if counts[65535] else 1.0, proxy.factor, keypoints, descriptors
        )


def _features(rank: Float) -> tuple[NDArray[np.float32], Float | None]:
    scale = min(1.0, (FEATURE_PIXELS / rank.size) ** 0.5)
    picture = (
        rank if scale == 1.0 else cv2.resize(rank, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    )
    sift = cv2.SIFT.create(nfeatures=1500, contrastThreshold=0.02)
    points, descriptors = sift.detectAndCompute((picture * 255).astype(np.uint8), None)
    at = np.array([p.pt for p in points], np.float32).reshape(-1, 2)
    return ((at + 0.5) / scale - 0.5).astype(np.float32), descriptors


def _align_pair(reference: _RankPicture, frame: _RankPicture, allowed: Model) -> Alignment:
    low, high = max(reference.low, frame.low), min(reference.high, frame.high)
    if high - low < MIN_COMMON:
        return Alignment("none", np.eye(3), note="too few tones in common with the reference to align")
    still, moving = _stretched(reference.rank, low, high), _stretched(frame.rank, low, high)
    start = _from_features(reference, frame)
    found = _refined(still, moving, start, allowed)
    if found is None and start is not None:
        found = _refined(still, moving, None, allowed)
    factor = float(reference.factor)
    (model, matrix, inliers, residual), likeness = _elect(still, moving, found, factor)
    verdict = Alignment(
        model,
        _at_full_size(matrix, factor),
        inliers,
        None if residual is None else round(residual * factor, 3),
    )
    if likeness is not None and likeness < MIN_LIKENESS:
        return Alignment(
            "none", np.eye(3), inliers, verdict.residual, False, "shows something else than the reference"
        )
    return verdict


def _stretched(rank: Float, low: float, high: float) -> Array:
    """Cut the ranks to the common tones and spread these over 8 bits."""
    return np.asarray(np.clip((rank - low) * (255.0 / (high - low)), 0, 255), np.uint8)


def _from_features(reference: _RankPicture, frame: _RankPicture) -> Matrix | None:
    """Return the homography that SIFT matches support, None where there are too few."""
    a, b = reference.descriptors, frame.descriptors
    if a is None or b is None or len(a) < 8 or len(b) < 8:
        return None
    pairs = cv2.BFMatcher(cv2.NORM_L2).knnMatch(a, b, k=2)
    good = [p[0] for p in pairs if len(p) == 2 and p[0].distance < 0.8 * p[1].distance]
    if len(good) < MIN_INLIERS["similarity"]:
        return None
    source = reference.keypoints[[m.queryIdx for m in good]]
    target = frame.keypoints[[m.trainIdx for m in good]]
    matrix, mask = cv2.findHomography(source, target, cv2.USAC_MAGSAC, 3.0, maxIters=5000)
    if matrix is not None and mask.sum() >= MIN_INLIERS["homography"] and _sane(matrix, reference.rank.shape):
        return np.asarray(matrix, np.float64)
    matrix, mask = cv2.estimateAffinePartial2D(source, target, method=cv2.RANSAC, ransacReprojThreshold=3.0)
    if matrix is None or mask.sum() < MIN_INLIERS["similarity"]:
        return None
    similarity = np.vstack([matrix, [0, 0, 1]])
    return similarity if _sane(similarity, reference.rank.shape) else None


_Candidate = tuple[Model, Matrix, int, float | None]


def _refined(still: Array, moving: Array, start: Matrix | None, allowed: Model) -> list[_Candidate] | None:
    """Track points from the reference into the frame and fit every allowed model to the tracks.

    The second round starts from the first one's answer, where the tracks have nowhere far to go.
    Returns candidates, best first, None where the tracks support none.
    """
    candidates: list[_Candidate] | None = None
    for levels in (3, 1) if start is not None else (5, 2):
        tracks = _tracked(still, moving, np.eye(3) if start is None else start, levels)
        if tracks is None:
            break
        candidates = _fitted(*tracks, still.shape, allowed) or candidates
        if candidates is None:
            break
        start = candidates[0][1]
    return candidates


def _tracked(still: Array, moving: Array, start: Matrix, levels: int) -> tuple[Array, Array] | None:
    """Return points of the reference and where Lucas-Kanade finds them in the frame, (K, 2) each."""
    height, width = still.shape
    points = cv2.goodFeaturesToTrack(
        still, 1200, 0.005, max(4.0, (height * width / 4000) ** 0.5), blockSize=5
    )
    if points is None or len(points) < MIN_INLIERS["translation"]:
        return None
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpPerspective(moving, start, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
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


def _fitted(source: Array, target: Array, shape: tuple[int, ...], allowed: Model) -> list[_Candidate] | None:
    """Fit the models that are allowed and supported to tracks; return them, best explanation first."""
    fits: list[_Candidate] = []
    general = MODELS.index(allowed)
    shift = np.median(target - source, axis=0)
    _add(
        fits,
        "translation",
        np.array([[1, 0, shift[0]], [0, 1, shift[1]], [0, 0, 1.0]]),
        source,
        target,
        shape,
    )
    if general >= 2 and len(source) >= MIN_INLIERS["similarity"]:
        matrix, _ = cv2.estimateAffinePartial2D(source, target, method=cv2.RANSAC, ransacReprojThreshold=0.7)
        if matrix is not None:
            _add(fits, "similarity", np.vstack([matrix, [0, 0, 1]]), source, target, shape)
    if general >= 3 and len(source) >= MIN_INLIERS["homography"]:
        matrix, _ = cv2.findHomography(source, target, cv2.USAC_MAGSAC, 0.7, maxIters=5000)
        if matrix is not None:
            _add(fits, "homography", np.asarray(matrix, np.float64), source, target, shape)
    if not fits:
        return None
    error = max(TRACK_ERROR, 1.2 * min(fit[3] or 0.0 for fit in fits if fit[2] >= 0.8 * fits[-1][2]))

    def criterion(fit: _Candidate) -> float:
        distance = np.minimum(np.linalg.norm(_apply(fit[1], source) - target, axis=1) / error, OUTLIER)
        return float(distance @ distance + FREEDOM[fit[0]] * np.log(4 * len(source)))

    return sorted(fits, key=criterion)


def _add(
    fits: list[_Candidate], model: Model, matrix: Matrix, source: Array, target: Array, shape: tuple[int, ...]
) -> None:
    distance = np.linalg.norm(_apply(matrix, source) - target, axis=1)
    inliers = distance < 1.0
    count = int(inliers.sum())
    if count >= MIN_INLIERS[model] and _sane(matrix, shape):
        fits.append((model, matrix, count, float(np.median(distance[inliers]))))


def _elect(
    still: Array, moving: Array, fits: list[_Candidate] | None, factor: float
) -> tuple[_Candidate, float | None]:
    """Return the best candidate or the identity, and how alike the pictures then are."""
    identity: _Candidate = ("none", np.eye(3), 0, None)
    plain = _likeness(still, moving, identity[1])
    if not fits:
        return identity, None
    best = fits[0]
    general = _likeness(still, moving, best[1])
    height, width = still.shape
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height], [width / 2, height / 2]], float)
    still_stands = np.abs(_apply(best[1], corners) - corners).max() <= STILL / factor
    if still_stands or (plain is not None and general is not None and general < plain + 0.002):
        return (*identity[:2], best[2], best[3]), plain
    return best, general


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
    textured = (aa > 1.0) & (bb > 1.0)
    if textured.sum() < 8:
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


def _at_full_size(matrix: Matrix, factor: float) -> Matrix:
    """Take a matrix between proxies to one between frames; block k is centred at k f + (f - 1) / 2."""
    if np.array_equal(matrix, np.eye(3)):
        return np.eye(3)
    half = (factor - 1) / 2
    up = np.array([[factor, 0, half], [0, factor, half], [0, 0, 1.0]])
    full = up @ matrix @ np.linalg.inv(up)
    return np.asarray(full / full[2, 2], np.float64)
