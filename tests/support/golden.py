"""Golden values: recorded results of every layer and of whole graphs.

``python tests/support/golden.py`` rewrites golden.json. Do so only when the results of a layer are meant to change, and
say why in the commit. The test (tests/test_golden.py) compares in float64, so it detects a change of any formula.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path

import torch
from cases import CASES, Case
from defaults import default_dtype
from torch import Tensor

import invgraph as ig

FILE = Path(__file__).with_name("golden.json")
Values = dict[str, list[float]]


@functools.cache
def keyed() -> dict[str, Case]:
    """Return the deterministic cases by name; cases of the same name are numbered."""
    found: dict[str, Case] = {}
    for case in CASES:
        if "repeatable" not in case.without:
            same = sum(name.split("#")[0] == case.id for name in found)
            found[f"{case.id}#{same}" if same else case.id] = case
    return found


def summarize(tensors: tuple[Tensor, ...]) -> list[float]:
    """Return sum, sum of squares, a weighted sum, the first and the last element: any change of the tensors shows."""
    flat = torch.cat([tensor.detach().flatten() for tensor in tensors]).double()
    weights = torch.arange(1, len(flat) + 1, dtype=torch.float64).sqrt()
    return [flat.sum().item(), flat.square().sum().item(), (flat * weights).sum().item(), flat[0].item(),
            flat[-1].item()]  # fmt: skip


@functools.cache
def build(name: str) -> ig.Invertible:
    """Return the module of a case, which is only called.

    Parameters are drawn in float64: the last digits of float32 depend on the processor, which would show in float64.
    """
    with default_dtype(torch.float64):
        return keyed()[name].build_anew().eval()


def values(name: str) -> Values:
    """Return outputs (summarized) and log-dets of both directions in float64, for fixed data and parameters."""
    case, module = keyed()[name], build(name)
    xs, cs = case.data(module, torch.float64)
    ys, ds = case.latents(module, torch.float64)
    with torch.no_grad():
        forward, log_det = module(xs, cs)
        inverse, back = module.inverse(ys, ds)
    return {"forward": [*summarize(forward), *log_det.tolist()], "inverse": [*summarize(inverse), *back.tolist()]}


def main() -> None:
    found = {name: values(name) for name in keyed()}
    FILE.write_text(json.dumps(found, indent=None, separators=(",", ":")).replace("},", "},\n") + "\n")
    print(f"{len(found)} cases written to {FILE.name}")


if __name__ == "__main__":
    main()
