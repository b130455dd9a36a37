"""Radiance -> display: turn a radiance map into sRGB codes that look like a good photograph.

Every operator bears the name and year of its method and finds all it needs in the scene, so that
neither the scale of the radiance nor the number of threads changes a picture. Pixels that are not
numbers become black, infinite ones white.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor

from .errors import HdrmergeError
from .exposure import Float
from .operators import drago2003, durand2002, mantiuk2006, mulaw, narkowicz2015, reinhard2002
from .render import Codes8, Survey, survey

Operator = Callable[[Float, Survey, Executor], Codes8]

OPERATORS: dict[str, Operator] = {
    "durand2002": durand2002,  # local: compresses large-scale contrast, keeps detail
    "reinhard2002": reinhard2002,  # global photographic curve
    "drago2003": drago2003,  # global adaptive logarithm
    "mantiuk2006": mantiuk2006,  # local contrast in the gradient domain, slow
    "narkowicz2015": narkowicz2015,  # global filmic curve with toe and shoulder
    "mulaw": mulaw,  # mu-law 5000, as papers show results
}

DEFAULT = "durand2002"
"""The operator of a preview nobody gave a thought to."""


def tonemap(
    radiance: Float, operator: str = DEFAULT, *, ev100: float | None = None, threads: int | None = None
) -> Codes8:
    """Return the display picture (H, W, 3), sRGB codes, of ``radiance`` (H, W, 3), linear Rec. 709.

    ``operator`` is one of `OPERATORS`. ``ev100`` is the exposure value of the frame in which radiance
    1.0 saturates [stops]; where it is known the default operator keeps a night dark.
    """
    if operator not in OPERATORS:
        raise HdrmergeError(f"no tone mapping operator {operator!r}; choose one of {', '.join(OPERATORS)}")
    if radiance.ndim != 3 or radiance.shape[2] != 3 or radiance.size == 0:
        raise HdrmergeError(f"cannot tone map an array of shape {radiance.shape}; it takes (H, W, 3)")
    with ThreadPoolExecutor(threads or min(os.cpu_count() or 1, 8)) as pool:
        return OPERATORS[operator](radiance, survey(radiance, pool, ev100), pool)
