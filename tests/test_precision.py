"""Which numbers networks learn in: those that a device is faster with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

torch = pytest.importorskip("torch", reason="training needs the extra train")

from hdrmerge.training import precision  # noqa: E402

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    precision.halves.cache_clear()
    yield
    precision.halves.cache_clear()


@pytest.mark.parametrize("half", [True, False])
def test_the_faster_ones_are_taken(half: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = torch.float32 if half else torch.bfloat16
    monkeypatch.setattr(precision, "seconds", lambda numbers: 1.0 + (numbers == slow))
    assert precision.numbers_of(CPU) == ("bfloat16" if half else "float32")
    with precision.mixed(CPU):
        found = torch.nn.functional.conv2d(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 3, 3))
    assert found.dtype == (torch.bfloat16 if half else torch.float32)


@pytest.mark.parametrize("half", [True, False])
def test_a_gpu_says_what_it_can(half: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **how: asked.append(how) or half)
    assert precision.halves("cuda") is half
    assert asked == [{"including_emulation": False}]


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode])
def test_time_is_taken_where_nothing_is_learned(around: type) -> None:
    with around():
        times = [precision.seconds(numbers) for numbers in (torch.float32, torch.bfloat16)]
    assert all(0 < taken < 10 for taken in times)
    assert torch.is_grad_enabled()


def test_it_is_told_apart_where_one_is_emulated() -> None:
    """A convolution of twice the numbers cannot be so much slower that noise decides."""
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        assert not precision.halves("cpu")
