"""The feature pyramid that the small model conditions on, step by step, each step feeding the next."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

Widths = tuple[int, int, int, int]


def pyramid_steps(size: int, widths: Widths) -> list[nn.Sequential]:
    """Four networks from lightness to maps at full, half and quarter size, and to a vector.

    Arguments:
        size: pixels of the lightness's side.
        widths: channels of the three maps and of the vector.
    """
    fine, half, quarter, whole = widths
    pooled = size // 16  # positions that the vector still tells apart
    return [
        nn.Sequential(_conv(1, fine), nn.LeakyReLU(), _conv(fine, fine)),
        nn.Sequential(nn.LeakyReLU(), _conv(fine, half), nn.LeakyReLU(), _conv(half, half, stride=2)),
        nn.Sequential(nn.LeakyReLU(), _conv(half, quarter, stride=2)),
        nn.Sequential(
            nn.LeakyReLU(), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(quarter * pooled * pooled, whole)
        ),
    ]  # fmt: skip


def _conv(channels_in: int, channels_out: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1)


class Pyramid(nn.Module):
    """The steps as one network, for models that are no graphs: lightness to three maps and a vector.

    Arguments:
        steps: of :func:`pyramid_steps`.
        widths: the same.
    """

    def __init__(self, steps: Sequence[nn.Module], widths: Widths) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps)
        self.widths = widths

    def forward(self, lightness: Tensor) -> tuple[Tensor, ...]:
        found = []
        for step in self.steps:
            lightness = step(lightness)
            found.append(lightness)
        return tuple(found)
