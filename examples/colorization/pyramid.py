"""Feature pyramid of the small model, as steps that each read the previous one."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

Widths = tuple[int, int, int, int]


def pyramid_steps(size: int, widths: Widths) -> list[nn.Sequential]:
    """Return four networks, from lightness to maps at full, half and quarter resolution, and to a vector.

    Arguments:
        size: Side of the lightness, in pixels.
        widths: Channels of the three maps and of the vector.
    """
    fine, half, quarter, whole = widths
    pooled = size // 16  # side of the map that is flattened to the vector
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
    """Network that runs all steps, for models that are not graphs: lightness to three maps and a vector.

    Arguments:
        steps: Steps from :func:`pyramid_steps`.
        widths: Channels of the three maps and of the vector.
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
