"""Golden values: what every layer and one whole graph gave when they were last looked at.

``python tests/support/golden.py`` writes golden.json anew, beside it: do so only when a layer is meant to change, and
say why in the commit. The test (tests/test_golden.py) compares in float64, so that a change of any formula shows.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from cases import CASES, Case
from torch import Tensor

FILE = Path(__file__).with_name("golden.json")
Values = dict[str, list[float]]


def keyed() -> dict[str, Case]:
    """The cases whose calls repeat, by their name; a number tells apart those of one name."""
    found: dict[str, Case] = {}
    for case in CASES:
        if "repeatable" not in case.without:
            same = sum(name.split("#")[0] == case.id for name in found)
            found[f"{case.id}#{same}" if same else case.id] = case
    return found


def told(tensors: tuple[Tensor, ...]) -> list[float]:
    """A few numbers that any change of the tensors changes: sum, sum of squares, a weighted sum, first and last."""
    flat = torch.cat([tensor.detach().flatten() for tensor in tensors]).double()
    weights = torch.arange(1, len(flat) + 1, dtype=torch.float64).sqrt()
    return [flat.sum().item(), flat.square().sum().item(), (flat * weights).sum().item(), flat[0].item(),
            flat[-1].item()]  # fmt: skip


def values(case: Case) -> Values:
    """Outputs and log-dets of both directions in float64, on fixed data and parameters."""
    module = case.build().eval()
    xs, cs = case.data(module, torch.float64)
    ys, ds = case.latents(module, torch.float64)
    with torch.no_grad():
        forward, log_det = module(xs, cs)
        inverse, back = module.inverse(ys, ds)
    return {"forward": [*told(forward), *log_det.tolist()], "inverse": [*told(inverse), *back.tolist()]}


def main() -> None:
    found = {name: values(case) for name, case in keyed().items()}
    FILE.write_text(json.dumps(found, indent=None, separators=(",", ":")).replace("},", "},\n") + "\n")
    print(f"{len(found)} cases written to {FILE.name}")


if __name__ == "__main__":
    main()
