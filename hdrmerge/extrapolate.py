"""What is white in a photograph -> as bright as it would be if light went on rising as it did before.

    distance to where light is recorded, over the distance it took to become white -> stops -> light

The further inside something white, and the steeper light rose towards it, the brighter: a lamp, whose edge is
sharp, at once by nearly `MOST`, a glow on a wall hardly. It is a guess without knowledge, and a good one;
`networks.virtual_bracket` begins with it, and says what is wrong with it. The constants err least on views of
scenes that networks are trained on.

Units: light is linear, 1.0 is white.
"""

from __future__ import annotations

import cv2
import numpy as np

from .exposure import Float

WHITE = 0.95  # of all channels from here on: code 249 of 255
BEFORE = 0.65  # where light began to rise
POWER = 0.7  # of the ratio of distances, which light does not quite follow
MOST = 2.5  # [stops] that anything white is brighter than white, at most
CREASE = 1.0  # [px] sigma of a blur, for distances have creases


def extrapolated(light: Float) -> Float:
    """Return light (h, w, 3) with what is white in all channels brighter, and the rest as it is."""
    least = light.min(axis=2)
    inside = least >= np.float32(WHITE)
    if not inside.any():
        return light
    lit = inside | (least >= np.float32(BEFORE))
    depth, way = (cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5) for mask in (inside, lit))
    rise = cv2.GaussianBlur(depth / np.maximum(way - depth, 1), (0, 0), CREASE)
    stops = MOST * (1 - np.exp(np.power(rise, np.float32(POWER)) * np.float32(np.log2(BEFORE) / MOST)))
    return np.asarray(light * np.exp2(stops * inside)[..., None], np.float32)
