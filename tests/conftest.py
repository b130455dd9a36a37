"""What several test files share: a scene to photograph, and slow tests left out unless asked for."""

from __future__ import annotations

import numpy as np
import pytest

from hdrmerge.scene import ramp_scene


def pytest_configure(config: pytest.Config) -> None:
    """Leave slow tests to ``pytest -m slow`` (or any other ``-m``)."""
    if not config.option.markexpr:
        config.option.markexpr = "not slow"


@pytest.fixture(scope="session")
def ramp() -> np.ndarray:
    """A logarithmic ramp over 7.6 stops with colour, texture and edges, (560, 840, 3), read-only."""
    scene = ramp_scene(560, 840, np.random.default_rng(1))
    scene.setflags(write=False)
    return scene


@pytest.fixture(scope="session")
def elsewhere() -> np.ndarray:
    """A scene that has nothing in common with `ramp` but its tones, read-only."""
    scene = ramp_scene(560, 840, np.random.default_rng(99))[:, ::-1].copy()
    scene.setflags(write=False)
    return scene
