"""Faults of FrEIA 0.2, measured beside ours: ``python -m tests.support.freia_faults``."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import invgraph as ig


def subnet(channels_in: int, channels_out: int) -> nn.Module:
    return nn.Linear(channels_in, channels_out)


def log_det_error(layer: Any, x: Tensor, rev: bool) -> float:
    """The largest difference between a layer's log-determinant and that of its Jacobian."""
    shape = x.shape[1:]
    _, log_jac = layer((x,), rev=rev)

    def flat(row: Tensor) -> Tensor:
        (y,), _ = layer((row.reshape(1, *shape),), rev=rev)
        return y.flatten()  # type: ignore[no-any-return]

    jacobians = [torch.autograd.functional.jacobian(flat, row.flatten()) for row in x]
    expected = torch.linalg.slogdet(torch.stack(jacobians)).logabsdet
    return (torch.as_tensor(log_jac).expand(len(x)) - expected).abs().max().item()


def scaling_inverse(ff: Any, fm: Any) -> float:
    layer = fm.LearnedElementwiseScaling([(3,)])
    for parameter in layer.parameters():
        parameter.data = torch.full_like(parameter, 0.7)
    return log_det_error(layer, torch.rand(2, 3), rev=True)


def sigmoid_of_images(ff: Any, fm: Any) -> float:
    layer = fm.InvertibleSigmoid([(2, 2, 2)])
    x = torch.randn(2, 2, 2, 2)
    return 0.0 if layer((x,))[1].shape == (2,) and log_det_error(layer, x, rev=False) < 1e-4 else 1.0


def residual_gradient(ff: Any, fm: Any) -> float:
    return float(not fm.IResNetLayer([(3,)])((torch.randn(2, 3),))[1].requires_grad)


def haar_changes_its_input(ff: Any, fm: Any) -> float:
    x = torch.randn(1, 4, 2, 2)
    kept = x.clone()
    fm.HaarDownsampling([(1, 4, 4)])((x,), rev=True)
    return (x - kept).abs().max().item()


def without_log_det(ff: Any, fm: Any) -> float:
    x = ff.InputNode(4)
    h = ff.Node(x, fm.GLOWCouplingBlock, {"subnet_constructor": subnet})
    net = ff.GraphINN([x, h, ff.OutputNode(h)])
    data = torch.randn(3, 4)
    return (net(data)[1] - torch.as_tensor(net(data, jac=False)[1])).abs().max().item()


def narrow_subnet(ff: Any, fm: Any) -> float:
    block = fm.AffineCouplingOneSided([(4,)], subnet_constructor=lambda i, o: nn.Linear(i, 3))
    try:
        block((torch.randn(2, 4),))
    except (RuntimeError, ValueError):
        return 0.0
    return 1.0


def one_row(ff: Any, fm: Any) -> float:
    try:
        (y,), _ = fm.ActNorm([(3,)])((torch.randn(1, 3),))
    except ArithmeticError:
        return 0.0
    return float(not y.isfinite().all())


def numpys_generator(ff: Any, fm: Any) -> float:
    np.random.seed(1)
    before = np.random.get_state()[1].copy()  # type: ignore[index,union-attr]
    fm.PermuteRandom([(4,)], seed=5)
    return float((np.random.get_state()[1] != before).any())  # type: ignore[index]


def pickled(ff: Any, fm: Any) -> float:
    try:
        pickle.dumps(fm.AllInOneBlock([(4,)], subnet_constructor=subnet))
    except (AttributeError, pickle.PicklingError):
        return 1.0
    return 0.0


def orders(ff: Any, fm: Any) -> float:
    """Number of orders of modules, beyond one, that 30 networks of the same three branches have."""
    found, kept = set(), []
    for _ in range(30):
        x = ff.InputNode(6)
        split = ff.Node(x, fm.Split, {"section_sizes": [2, 2, 2]})
        ends = [ff.Node((split, k), fm.ActNorm, {}, name=str(k)) for k in range(3)]
        join = ff.Node([end.out0 for end in ends], fm.Concat, {})
        net = ff.GraphINN([x, split, *ends, join, ff.OutputNode(join)])
        kept.append(net)
        found.add(tuple(node.name for node in net.node_list if node in ends))
    return len(found) - 1.0


def double_precision(ff: Any, fm: Any) -> float:
    net = ff.SequenceINN(4)
    net.append(fm.PermuteRandom, seed=1)
    net.append(fm.HouseholderPerm, n_reflections=2)
    _, log_jac = net.double()(torch.randn(2, 4, dtype=torch.float64))
    return float(not isinstance(log_jac, Tensor) or log_jac.dtype != torch.float64 or log_jac.shape != (2,))


FAULTS: dict[str, Callable[[Any, Any], float]] = {
    "log-determinant of a scaling's inverse: error": scaling_inverse,
    "log-determinant of a sigmoid of images: wrong": sigmoid_of_images,
    "log-determinant of a residual block: without gradient": residual_gradient,
    "inverse wavelets change the caller's tensor by": haar_changes_its_input,
    "jac=False: log-determinant off by": without_log_det,
    "a subnet of too few channels: accepted": narrow_subnet,
    "ActNorm started by one row: not finite": one_row,
    "PermuteRandom(seed) reseeds numpy": numpys_generator,
    "an all-in-one block can't be pickled": pickled,
    "further orders of modules in 30 equal networks": orders,
    "log-determinant of a float64 chain: no float64 of shape (B,)": double_precision,
}
"""Each measures zero where a library is right."""


def measure(framework: Any, modules: Any) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.default_generator.manual_seed(0)
        return {what: fault(framework, modules) for what, fault in FAULTS.items()}


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import FrEIA.framework
        import FrEIA.modules
    theirs, ours = measure(FrEIA.framework, FrEIA.modules), measure(ig.freia.framework, ig.freia.modules)
    print(f"{'':62} {'FrEIA':>8} {'ours':>8}")
    for what in FAULTS:
        print(f"{what:62} {theirs[what]:8.2g} {ours[what]:8.2g}")
