"""Plant mistakes in a copy of the package, one at a time, and see whether the tests catch each.

``python tests/support/mutants.py`` runs all of them; with the arguments ``haar graph``, those whose file holds a word;
``-j 4`` runs four at a time. The tests run without any mistake first, and must pass. A mutant is caught when the tests
named with it then fail; tests that are not even collected say nothing of it. One that is not caught makes the exit
status 1.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import hypothesis.strategies  # noqa: F401  imported here, once for all
import networkx as nx  # noqa: F401
import pytest

ROOT = Path(__file__).resolve().parents[2]
CONTRACT = "tests/core/test_contract.py"
LAYERS = "tests/layers/test_layers.py"
DENSE = ("tests/fused/test_affine_coupling.py",)
NODES = "tests/graph/test_nodes.py"
BAD = "tests/graph/test_bad_input.py"
FLOW = "tests/test_flow.py"
RANDOM = "tests/graph/test_random_graphs.py"
SPLINES, BIJECTIONS = "tests/transforms/test_splines.py", "tests/transforms/test_bijections.py"
AUTOREGRESSIVE, PATCHES = "tests/layers/test_autoregressive.py", "tests/layers/test_patch_autoregressive.py"
LINEAR, ALL_IN_ONE = "tests/layers/test_linear_layers.py", "tests/layers/test_all_in_one.py"
RESIDUAL, MIXTURE, CONTINUOUS = (
    f"tests/test_{name}.py" for name in ("residual", "gaussian_mixture", "continuous_flow")
)
CHECKPOINT, DAMAGE = "tests/checkpoint/test_checkpoint.py", "tests/checkpoint/test_checkpoint_damage.py"
REVERSIBLE, BOUND, FAULTS = (f"tests/test_{name}.py" for name in ("reversible", "bound", "faults"))
FINGERPRINT, DIAGNOSE, INIT = (f"tests/test_{name}.py" for name in ("fingerprint", "diagnose", "init"))


class Mutant(NamedTuple):
    """A mistake: in which file of the package what becomes what, and which tests must notice."""

    told: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


MUTANTS = (
    Mutant("the log-det of the inverse has the forward's sign", "fused/affine.py",
           "div_(scales[0]), log_det.neg_()", "div_(scales[0]), log_det", (CONTRACT, "-k", "Coupling-Affine")),
    Mutant("the shift is added before the scale", "fused/affine.py",
           "y = torch.addcmul(t, x, scales[0], out=out)", "y = torch.mul(x + t, scales[0], out=out)",
           (CONTRACT, "-k", "Coupling-Affine")),
    Mutant("the gradient of the scale forgets the log-det", "fused/affine.py",
           "torch.addcmul(log_det_slope, x_slope, x, out=raw_slope)", "torch.mul(x_slope, x, out=raw_slope)",
           ("tests/fused/test_affine.py",)),
    Mutant("the gradient of the inverse's scale has the forward's sign", "fused/affine.py",
           "torch.addcmul(-log_det_slope, y_slope, y, value=-1, out=raw_slope)",
           "torch.addcmul(log_det_slope, y_slope, y, out=raw_slope)", ("tests/fused/test_affine.py",)),
    Mutant("a gradient is overwritten before the shift has read it", "fused/affine.py",
           "            t_slope.copy_(y_slope)\n            x_slope = torch.mul(y_slope, scale, out=out)",
           "            x_slope = torch.mul(y_slope, scale, out=out)\n            t_slope.copy_(y_slope)", DENSE),
    Mutant("a hidden layer's gradient passes where ReLU was zero", "fused/mlp.py",
           "_past_relu(slope @ self.weights[k], read, 0)", "slope @ self.weights[k]", DENSE),
    Mutant("a condition's weights get the data's gradient", "fused/mlp.py",
           "found[k] = turned @ c", "found[k] = turned @ (c + 1)", DENSE),
    Mutant("the second side of a dense coupling is told to have read the part before it changed", "fused/affine_coupling.py",
           "read = after[other] if place else before[other]", "read = before[other]", DENSE),
    Mutant("the other part's own gradient is dropped", "fused/affine_coupling.py",
           "torch.addmm(current[other], slope, net.weights[0], out=out[other])",
           "torch.mm(slope, net.weights[0], out=out[other])", DENSE),
    Mutant("a condition gets the gradient of one side alone", "fused/affine_coupling.py",
           "found[k] = more if so_far is None else so_far.add_(more)", "found[k] = more", DENSE),
    Mutant("the part that a one-sided dense coupling leaves is not passed on", "fused/affine_coupling.py",
           "            after[1].copy_(before[1])", "            after[1].zero_()", DENSE),
    Mutant("later derivatives are those of the numbers alone", "fused/dispatch.py",
           "create_graph=again", "create_graph=False", DENSE),
    Mutant("a value gets the gradient of what was made of it too", "fused/dispatch.py",
           "own = [value.view_as(value) for value in values]", "own = list(values)",
           ("tests/fused/test_affine.py",)),
    Mutant("a transform derived from the affine one is taken for it", "layers/coupling.py",
           "type(self.transform) is not Affine", "not isinstance(self.transform, Affine)", DENSE),
    Mutant("hooks of a subnet's layers are passed by", "nets/feedforward.py",
           "return bool(hooks)", "return False", DENSE),
    Mutant("the gradient through the clamp forgets its bound", "numerics/soft_clamp.py",
           "value=half / alpha**2", "value=half", ("tests/fused/test_affine.py",)),
    Mutant("the clamp is dropped", "numerics/soft_clamp.py",
           "clamped = torch.atan(_divide(s, alpha)).mul_(2 * alpha / math.pi)", "clamped = s + 0", (LAYERS,)),
    Mutant("the clamp's bound is alpha times pi / 2", "numerics/soft_clamp.py",
           ".mul_(2 * alpha / math.pi)", ".mul_(alpha)", (LAYERS,)),
    Mutant("the sum of a log-det includes the batch", "transforms/transform.py",
           "terms.flatten(1).sum(1)", "terms.sum().expand(terms.shape[0])", (CONTRACT, "-k", "Coupling-Affine")),
    Mutant("a log-det is summed over the channels only", "transforms/transform.py",
           "terms.flatten(1).sum(1)", "terms.sum(1).flatten(1)[:, 0] if terms.ndim > 2 else terms.sum(1)",
           (CONTRACT, "-k", "Coupling-Affine")),
    Mutant("a log-det is accumulated in float32", "transforms/transform.py",
           "terms.flatten(1).sum(1)", "terms.flatten(1).float().sum(1).to(terms.dtype)",
           (CONTRACT, "-k", "Coupling-Affine")),
    Mutant("the mean is not taken off the log scales", "transforms/volume_preserving.py",
           "s - s.mean(dim=tuple(range(1, s.ndim)), keepdim=True)", "s", (CONTRACT, "-k", "VolumePreserving")),
    Mutant("the mean of the log scales includes the batch", "transforms/volume_preserving.py",
           "dim=tuple(range(1, s.ndim))", "dim=tuple(range(s.ndim))", (CONTRACT, "-k", "VolumePreserving")),
    Mutant("the inverse of a shift is the shift", "transforms/additive.py",
           "y - params[:, 0]", "y + params[:, 0]", (CONTRACT, "-k", "Additive")),
    Mutant("the second side of a coupling reads what it transforms", "layers/coupling.py",
           "self._params(nets[side], side, parts[1 - side], cs,", "self._params(nets[side], side, parts[side], cs,",
           (CONTRACT, "-k", "Coupling")),
    Mutant("the inverse of a coupling undoes its sides in the order of the forward", "layers/coupling.py",
           "sides[::-1] if inverse else sides", "sides", (CONTRACT, "-k", "Coupling")),
    Mutant("the log-det of the second side is forgotten", "layers/coupling.py",
           "log_det = more if log_det is None else log_det + more", "log_det = more", (CONTRACT, "-k", "Coupling")),
    Mutant("a coupling splits in the middle whatever it was told", "numerics/channels.py",
           "int(channels * number) if isinstance(number, float) else number", "channels // 2", (LAYERS,)),
    Mutant("a part of no channels is allowed", "numerics/channels.py",
           "if not 0 < first < channels:", "if not 0 <= first <= channels:", (BAD,)),
    Mutant("an MLP forgets all conditions but the last", "nets/feedforward.py",
           "total = torch.addmm(total, c,", "total = torch.addmm(cast(nn.Linear, self.layers[0]).bias, c,", (LAYERS,)),
    Mutant("a convolution forgets its conditions", "nets/feedforward.py",
           "add_share(first(x), shared[0]) if shared else first(x)", "first(x)", (LAYERS,)),
    Mutant("a subnet's activation overwrites what it was given", "nets/feedforward.py",
           "        h: Tensor = _plus_share(x, cast(nn.Linear, first), shared[0]) if shared else first(x)",
           "        x.relu_()\n"
           "        h: Tensor = _plus_share(x, cast(nn.Linear, first), shared[0]) if shared else first(x)",
           (CONTRACT, "-k", "caller and Elementwise")),
    Mutant("the last layer of an MLP is not zero at the start", "nets/feedforward.py",
           ", sizes[1], bias=False) for shape in cond_shapes)\n        for layer in (*self.layers, *self.conditions):\n"
           "            start(cast(nn.Linear, layer), zero=layer is self.layers[-1])",
           ", sizes[1], bias=False) for shape in cond_shapes)\n        for layer in (*self.layers, *self.conditions):\n"
           "            start(cast(nn.Linear, layer), zero=False)", (LAYERS,)),
    Mutant("the last layer of a convolutional subnet is not zero at the start", "nets/feedforward.py",
           "            for shape in cond_shapes\n        )\n        for layer in (*self.layers, *self.conditions):\n"
           "            start(cast(nn.Linear, layer), zero=layer is self.layers[-1])",
           "            for shape in cond_shapes\n        )\n        for layer in (*self.layers, *self.conditions):\n"
           "            start(cast(nn.Linear, layer), zero=False)", ("tests/nets/test_nets.py",)),
    Mutant("the second condition is not concatenated to a plain subnet's data", "core/subnet.py",
           "torch.cat((x, *spread), dim=1)", "torch.cat((x, *(s for s in list(spread)[:1] * len(shared))), dim=1)",
           (LAYERS,)),
    Mutant("a permutation is its own inverse", "layers/permute.py",
           "x = _gather(ys[0], self.inverse_order, self.order)", "x = _gather(ys[0], self.order, self.inverse_order)",
           (CONTRACT, "-k", "Permute")),
    Mutant("the gradient of a permutation is gathered by the permutation", "layers/permute.py",
           "return _gather(grad, inverse, order), None, None", "return _gather(grad, order, inverse), None, None",
           (CONTRACT, "-k", "Permute")),
    Mutant("the seed of a permutation goes to the global generator", "layers/permute.py",
           "generator = torch.Generator().manual_seed(seed)", "generator = torch.manual_seed(seed)",
           (CONTRACT, "-k", "Permute")),
    Mutant("an orthogonal layer is inverted by its own matrix", "layers/linear.py",
           "mix(ys[0], self.matrix.t())", "mix(ys[0], self.matrix)", (CONTRACT, "-k", "Orthogonal")),
    Mutant("a rotation is not made exact when it is widened", "layers/linear.py",
           "if widened and not self.matrix.is_meta:", "if False:", (CONTRACT, "-k", "Orthogonal")),
    Mutant("the positions are not counted in a linear layer's log-det", "layers/linear.py",
           "log_det = self.log_abs_det * self.positions", "log_det = self.log_abs_det * 1",
           (CONTRACT, "-k", "FixedLinear")),
    Mutant("the details of Haar are not rebalanced in the inverse", "layers/haar.py",
           "_scale_derivatives(x, 1 / self.rebalance)", "_scale_derivatives(x, 1.0)", (CONTRACT, "-k", "Haar")),
    Mutant("the log-det of Haar counts the averages too", "layers/haar.py",
           "details = math.prod(shape) - math.prod(shape) // 2**self.axes", "details = math.prod(shape)",
           (CONTRACT, "-k", "Haar")),
    Mutant("both orders of Haar's channels are the same", "layers/haar.py",
           "y = y if self.order_by_wavelet else y.transpose(1, 2)", "y = y.transpose(1, 2)", (CONTRACT, "-k", "Haar")),
    Mutant("Haar changes the caller's tensor", "layers/haar.py",
           "y = xs[0].unsqueeze(1) * self.norm", "y = xs[0].mul_(self.norm).unsqueeze(1)", (CONTRACT, "-k", "Haar")),
    Mutant("Squeeze transposes its patches", "layers/squeeze.py",
           "x.permute(0, 1, *places, ", "x.permute(0, 1, *reversed(places), ", (LAYERS,)),
    Mutant("the parts of a split come in the other order", "layers/split.py",
           "return tuple((*shape[: self.dim], size, *shape[self.dim + 1 :]) for size in self.sizes)",
           "return tuple((*shape[: self.dim], size, *shape[self.dim + 1 :]) for size in self.sizes[::-1])",
           (CONTRACT, "-k", "Split")),
    Mutant("the log-det of ActNorm forgets the positions", "layers/actnorm.py",
           "(self.log_scale.sum() * self.positions)", "(self.log_scale.sum() * 1)", (CONTRACT, "-k", "ActNorm")),
    Mutant("ActNorm is not ready after loading", "layers/actnorm.py",
           'self.ready = bool(state_dict[prefix + "initialized"])', "pass", (LAYERS,)),
    Mutant("ActNorm initialises itself with whatever is called first", "layers/actnorm.py",
           "        log_det = self._ready_log_det(xs[0])\n",
           "        if not self.ready:\n            self.initialize(xs[0])\n"
           "        log_det = self._ready_log_det(xs[0])\n",
           (BAD,)),
    Mutant("a node's log-det is dropped from the graph's", "graph/graph.py",
           "log_det = log_det + share", "log_det = log_det + 0 * share", (CONTRACT, "-k", "Graph")),
    Mutant("the inverse schedule ignores conditions", "graph/graph.py",
           "for value in (*taken, *node.conditions):", "for value in taken:", (RANDOM,)),
    Mutant("a slot is let go while it is still read", "graph/graph.py",
           "kept.update(idle)", "kept.update(sources)", (RANDOM,)),
    Mutant("outputs come back in the order of the nodes", "graph/graph.py",
           "starts, ends = (tuple(slots[value] for value in side) for side in (wiring.inputs, wiring.outputs))",
           "starts, ends = (tuple(sorted(slots[value] for value in side)) for side in (wiring.inputs, wiring.outputs))",
           (RANDOM,)),
    Mutant("a value may be read twice", "graph/wiring.py",
           "if other is not None or value in outputs:", "if False:", (BAD,)),
    Mutant("a dangling output is accepted", "graph/wiring.py",
           "if value not in wiring.consumer and value not in outputs:", "if False:", (BAD,)),
    Mutant("nodes are ordered by address", "graph/wiring.py",
           "key=lambda node: node.order))\n\n\ndef _names", "key=id))\n\n\ndef _names", (NODES, RANDOM)),
    Mutant("batches of different sizes are accepted", "shapes.py",
           "elif value.shape[0] != first.shape[0]:", "elif False:", (BAD,)),
    Mutant("the channels of an input are not checked", "shapes.py",
           "if value.shape[1:] != self.shapes[index] or value.ndim == 0:", "if value.ndim == 0:", (BAD,)),
    Mutant("tuples of a layer that is held by another are nested once more", "core/invertible.py",
           "(outputs if isinstance(outputs, tuple) else (outputs,)), log_det", "(outputs,), log_det",
           (CONTRACT, "-k", "Inverse")),
    Mutant("Inverse goes forward both ways", "core/invertible.py",
           "return flat_call(self.module.inverse, self._inputs(), self._conditions(), xs, cs)",
           "return flat_call(self.module, self._outputs(), self._conditions(), xs, cs)", (CONTRACT, "-k", "Inverse")),
    Mutant("log_prob forgets the log-det", "flow.py",
           "self._base_log_prob(self.graph._outputs().unpack(\"Flow\", z)) + log_det",
           "self._base_log_prob(self.graph._outputs().unpack(\"Flow\", z)) + 0 * log_det", (FLOW,)),
    Mutant("the loss keeps the normal's constant", "flow.py",
           "0.5 * self.dims * math.log(2 * math.pi)\n        loss", "0.0\n        loss", (FLOW,)),
    Mutant("denoising takes sigma for its square", "flow.py", "deviation * deviation * g", "deviation * g", (FLOW,)),
    Mutant("a knot belongs to the bin on its left", "transforms/spline.py",
           "(t.unsqueeze(1) >= knots[:, 1:-1])", "(t.unsqueeze(1) > knots[:, 1:-1])", (SPLINES,)),
    Mutant("the least size of a bin is not taken off the rest", "transforms/spline.py",
           "least + (1 - least * raw.shape[1]) * torch.softmax", "least + torch.softmax", (SPLINES,)),
    Mutant("the last knot is the sum of the bins, as it was rounded", "transforms/spline.py",
           "inner = sizes[:, :-1].cumsum(1)\n"
           "    return torch.cat((torch.zeros_like(sizes[:, :1]), inner, torch.ones_like(sizes[:, :1])), dim=1)",
           "inner = sizes.cumsum(1)\n    return torch.cat((torch.zeros_like(sizes[:, :1]), inner), dim=1)", (SPLINES,)),
    Mutant("the tails of a spline keep the slope of its middle", "transforms/spline.py",
           "per_sample(torch.where(inside, log_slope, 0.0))", "per_sample(log_slope)", (SPLINES,)),
    Mutant("the log scale is missing in a mixture's density", "transforms/mixture_cdf.py",
           "torch.logsumexp(shares - self.log_scales, dim=dim)", "torch.logsumexp(shares, dim=dim)",
           (CONTRACT, "-k", "MixtureCDF")),
    Mutant("the quotient of a mixture's slope divides by the large side first", "transforms/mixture_cdf.py",
           "(log_cdf > log_rest).unsqueeze(dim)", "(log_cdf < log_rest).unsqueeze(dim)", (BIJECTIONS,)),
    Mutant("the bracket of a mixture's inverse is one component's", "transforms/mixture_cdf.py",
           "return roots.amin(1), roots.amax(1)", "return roots[:, 0], roots[:, 0]", (CONTRACT, "-k", "MixtureCDF")),
    Mutant("a root is found without its implicit derivative", "numerics/root_finding.py",
           "return _newton(function, _newton(function, root, target), target)", "return root",
           (CONTRACT, "-k", "MixtureCDF")),
    Mutant("the second derivative of a root is missing", "numerics/root_finding.py",
           "_newton(function, _newton(function, root, target), target)", "_newton(function, root, target)",
           (BIJECTIONS,)),
    Mutant("the slope of a Bernstein polynomial forgets the degree", "transforms/bernstein.py",
           "torch.log(slope.squeeze(dim) * degree)", "torch.log(slope.squeeze(dim))", (CONTRACT, "-k", "Bernstein")),
    Mutant("the ends of a Bernstein polynomial have a slope of their own", "transforms/bernstein.py",
           "end = torch.full_like(steps[:, :1], 1 / self.degree)",
           "end = torch.full_like(steps[:, :1], 1.1 / self.degree)", (BIJECTIONS,)),
    Mutant("a number of an autoregressive layer sees itself", "layers/autoregressive.py",
           "degrees += [torch.arange(size).repeat(numbers)]", "degrees += [torch.arange(1, size + 1).repeat(numbers)]",
           (AUTOREGRESSIVE,)),
    Mutant("the last hidden units of an autoregressive layer see nothing new", "layers/autoregressive.py",
           "* (size - lowest) // width", "* (size - lowest) // (2 * width)", (AUTOREGRESSIVE,)),
    Mutant("the inverse by blocks takes the parameters of the first block for all", "layers/autoregressive.py",
           "params = self._numbers(x, shared, places)", "params = self._numbers(x, shared, slice(0, y.shape[1]))",
           (AUTOREGRESSIVE,)),
    Mutant("the iterated inverse stops where most of the samples have converged", "layers/autoregressive.py",
           "if bool(((image - y).abs() <= allowed).all()):",
           "if bool(((image - y).abs() <= allowed).double().mean() > 0.9):", (AUTOREGRESSIVE,)),
    Mutant("reflections are undone in the order of the forward", "layers/householder.py",
           "reversed(range(self.reflections))", "range(self.reflections)", (CONTRACT, "-k", "Householder")),
    Mutant("the squares of huge reflection vectors overflow", "layers/householder.py",
           "torch.where(largest > 0, largest, 1.0)", "torch.where(largest > 0, 1.0, 1.0)", (LINEAR,)),
    Mutant("the positions are not counted in a low-rank layer's log-det", "layers/low_rank_linear.py",
           "(logs.sum(1) * self.positions)", "logs.sum(1)", (CONTRACT, "-k", "LowRank")),
    Mutant("the part of U within the span stays", "layers/low_rank_linear.py",
           "free - q @ (q.t() @ free)", "free", (CONTRACT, "-k", "LowRank")),
    Mutant("the rows of a 1 x 1 convolution are permuted by the inverse order", "layers/conv1x1.py",
           "(lower @ upper)[self.order]", "(lower @ upper)[self.order.argsort()]", (LINEAR,)),
    Mutant("a 1 x 1 convolution forgets the signs of its diagonal", "layers/conv1x1.py",
           "widen(self.signs * torch.exp(self.log_scale))", "widen(torch.exp(self.log_scale))", (LINEAR,)),
    Mutant("the inverse of an all-in-one block scales before it shifts back", "layers/all_in_one.py",
           "y = y if self.log_scale is None else y * torch.exp(-self.log_scale)",
           "y = y if self.log_scale is None else (y + self.shift) * torch.exp(-self.log_scale) - self.shift",
           (CONTRACT, "-k", "AllInOne")),
    Mutant("a reversed all-in-one block turns by the same matrix twice", "layers/all_in_one.py",
           "x = mix(x, matrix.t()) if self.reverse else x", "x = mix(x, matrix) if self.reverse else x",
           (CONTRACT, "-k", "AllInOne")),
    Mutant("reversing an all-in-one block does nothing", "layers/all_in_one.py",
           "self.reverse = reverse", "self.reverse = False", (ALL_IN_ONE,)),
    Mutant("the terms of a residual layer's log-det have one sign", "layers/residual.py",
           "(-1) ** (k + 1) / (k * chance)", "1 / (k * chance)", (RESIDUAL,)),
    Mutant("late terms of a residual layer's log-det count as if always drawn", "layers/residual.py",
           "chance = 0.5 ** max(k - self.terms, 0)", "chance = 1.0", (RESIDUAL,)),
    Mutant("the inverse of a residual layer has the gradient of its last iteration", "layers/residual.py",
           "for _ in range(self.iterations):\n            step = miss - self.net.push(step, fixed)",
           "for _ in range(1):\n            step = miss - self.net.push(step, fixed)", (RESIDUAL,)),
    Mutant("a mixture's density forgets the weights", "layers/gaussian_mixture.py",
           "return log_weights + normal", "return 0 * log_weights + normal", (MIXTURE,)),
    Mutant("the diagonal of a mixture's factors counts twice", "layers/gaussian_mixture.py",
           ".triu(1) + torch.diag_embed(log_diagonal.exp())", " + torch.diag_embed(log_diagonal.exp())",
           (CONTRACT, "-k", "GaussianMixture")),
    Mutant("the first cosine has the norm of the others", "layers/dct.py",
           "cosines[0] = math.sqrt(1 / size)", "cosines[0] = math.sqrt(2 / size)", (LINEAR,)),
    Mutant("the angles of high frequencies are rounded", "layers/dct.py",
           "((2 * n + 1) * k % (4 * size)).double()", "((2 * n + 1) * k).float().mul(math.pi / (2 * size)).double() "
           "/ (math.pi / (2 * size))", (LINEAR,)),
    Mutant("the frequencies of a block stay next to each other", "layers/dct.py",
           "y = y.flatten(1, 1 + self.axes)", "y = y.transpose(1, 2).flatten(1, 1 + self.axes)", (LINEAR,)),
    Mutant("a patch sees itself", "layers/patch_autoregressive.py",
           "torch.nn.functional.pad(self.embed(x[:, :-1]), (0, 0, 1, 0))", "self.embed(x)", (PATCHES,)),
    Mutant("reversed patches come back in the order of the model", "layers/patch_autoregressive.py",
           "from_patches(patches.flip(1) if self.reverse else patches,", "from_patches(patches,", (PATCHES,)),
    Mutant("tokens attend to later ones", "nets/transformer.py",
           ".triu(1)\n", ".triu(2)\n", (PATCHES,)),
    Mutant("Runge and Kutta's weights are equal", "layers/continuous_flow.py",
           "((first, 1), (second, 2), (third, 2), (fourth, 1))",
           "((first, 1.5), (second, 1.5), (third, 1.5), (fourth, 1.5))", (CONTRACT, "-k", "ContinuousFlow")),
    Mutant("the estimated trace of a continuous flow does not see its noise", "layers/continuous_flow.py",
           "(row * probe).flatten(1).sum(1)", "row.flatten(1).sum(1)", (CONTINUOUS,)),
    Mutant("an inverted layer starts as if it were not inverted", "core/invertible.py",
           "        self.module._initialize_inverse(xs, cs)", "        self.module._initialize(xs, cs)", (INIT,)),
    Mutant("a graph in Inverse starts along the forward", "graph/graph.py",
           "self._initialize_along(self.inverse_schedule, ys, cs, inverse=True)",
           "self._initialize_along(self.forward_schedule, ys, cs, inverse=False)", (INIT,)),
    Mutant("a second derivative of a reversible graph is wrong in silence", "reversible/runner.py",
           "if torch.is_grad_enabled():\n            advice = \"second", "if False:\n            advice = \"second",
           (REVERSIBLE,)),
    Mutant("dropout in a reversible graph is run again with other numbers", "reversible/runner.py",
           "if not all(torch.equal(a, b) for a, b in zip(random,",
           "if not all(True for a, b in zip(random,", (REVERSIBLE,)),
    Mutant("backward of a reversible graph runs without the forward's autocast", "reversible/runner.py",
           "with ctx.autocast.again(), FrozenStatistics(runner.graph), torch.no_grad():",
           "with FrozenStatistics(runner.graph), torch.no_grad():", (REVERSIBLE,)),
    Mutant("batch norm counts a batch once more in backward", "reversible/runner.py",
           "with ctx.autocast.again(), FrozenStatistics(runner.graph), torch.no_grad():",
           "with ctx.autocast.again(), torch.no_grad():", (REVERSIBLE,)),
    Mutant("what the anchors kept goes to the steps in the other order", "reversible/runner.py",
           "found[step], kept = kept[: len(step.inputs)], kept[len(step.inputs) :]",
           "found[step], kept = kept[-len(step.inputs) :], kept[: -len(step.inputs)]", (REVERSIBLE,)),
    Mutant("a value that two nodes read has the gradient of the last one", "reversible/backward.py",
           "self.slopes[slot] = added(self.slopes[slot], slope)", "self.slopes[slot] = slope", (REVERSIBLE,)),
    Mutant("the log-det of a node has no gradient in a reversible graph", "reversible/backward.py",
           "for slot in step.outputs), slope_log_det)", "for slot in step.outputs), None)", (REVERSIBLE,)),
    Mutant("the gradient of a conditioning network stops at its conditions", "reversible/backward.py",
           "self._add(step.conditions, found[: len(leaves)])", "pass", (REVERSIBLE,)),
    Mutant("the rebuilt inputs are not compared with the kept ones", "reversible/backward.py",
           "        self._compare(schedule.starts, starts, starts)\n", "", (REVERSIBLE,)),
    Mutant("rounding is carried past an anchor", "reversible/backward.py",
           "self._put(step.inputs, tuple(value.detach() for value in anchored[step]))", "pass", (REVERSIBLE,)),
    Mutant("the guard names the node that loses least", "reversible/backward.py",
           "layer = named[max(steps,", "layer = named[min(steps,", (REVERSIBLE,)),
    Mutant("inner values that a node is conditioned on are not rebuilt for it", "reversible/plan.py",
           "_provide((*step.conditions, *(() if step in early else step.outputs)), known,",
           "_provide(() if step in early else step.outputs, known,", (REVERSIBLE,)),
    Mutant("nothing of the conditions is computed once", "graph/bound.py",
           "self.shares[step.layer] = layer.share(cs)", "pass", (BOUND,)),
    Mutant("samples of a bound graph may have any number of rows", "graph/bound.py",
           "value.shape[1] != self.rows or ", "", (BOUND,)),
    Mutant("a refused random state stays half set", "checkpoint/rng_state.py",
           "        _set(before)\n", "", (CHECKPOINT, "-k", "random_states")),
    Mutant("the state of numpy's generator is not put back", "checkpoint/rng_state.py",
           '    np.random.set_state(state["numpy"])\n', "", (CHECKPOINT, "-k", "random_states")),
    Mutant("the state of Python's generator is not put back", "checkpoint/rng_state.py",
           '    random.setstate(state["python"])\n', "", (CHECKPOINT, "-k", "random_states")),
    Mutant("missing random states are left as they are", "checkpoint/rng_state.py",
           "[name for name in _NAMES if name not in state]", "[]", (CHECKPOINT, "-k", "random_states")),
    Mutant("the lengths of a power iteration are those of the batch", "numerics/singular_value.py",
           "[part.flatten(1).square().sum(1) for part in vector]",
           "[part.square().sum().expand(len(part)) for part in vector]", (DIAGNOSE,)),
    Mutant("a power iteration ends after its first step", "numerics/singular_value.py",
           "if not bool((found > before * (1 + _CONVERGED)).any()):", "if True:", (DIAGNOSE,)),
    Mutant("a power iteration ends when one sample stands still", "numerics/singular_value.py",
           "(found > before * (1 + _CONVERGED)).any()", "(found > before * (1 + _CONVERGED)).all()", (DIAGNOSE,)),
    Mutant("a difference quotient is one of twice the step", "numerics/singular_value.py",
           "(a - b) / (2 * step)", "(a - b) / step", (DIAGNOSE,)),
    Mutant("an unknown argument of a layer is not noticed", "graph/node.py",
           "if name not in accepted and not any(", "if False and not any(", (BAD,)),
    Mutant("a condition may be transformed", "graph/node.py",
           "if isinstance(value.node, (ConditionNode, FeatureNode)):", "if False:", (BAD,)),
    Mutant("dots in names of nodes are accepted", "graph/node.py", 'if "." in name:', "if False:", (BAD,)),
    Mutant("a chain gives its conditions to layers that take none", "graph/node.py",
           "given = conditions if _takes_conditions(module, args) else ()", "given = conditions", (NODES,)),
    Mutant("nodes can be changed", "graph/node.py",
           'raise FrozenInstanceError(f"cannot assign to field {name!r}")', "self.__dict__[name] = value", (NODES,)),
    Mutant("a node of several outputs stands for its first", "graph/node.py",
           "if len(source.outputs) != 1:", "if not source.outputs:", (BAD, NODES)),
    Mutant("check_finite does not look", "graph/graph.py",
           "if self.check_finite:", "if False:", (FAULTS,)),
    Mutant("check_finite looks at the first output only", "graph/graph.py",
           "self._require_finite(step, (*outputs, log_det))", "self._require_finite(step, outputs[:1])", (FAULTS,)),
    Mutant("check_finite lets infinities pass", "graph/graph.py",
           "bool(torch.isfinite(value).all())", "not bool(torch.isnan(value).any())", (FAULTS,)),
    Mutant("the digest of a checkpoint is not compared", "checkpoint/checkpoint.py",
           "if found.hexdigest().encode() != digest:", "if len(found.hexdigest()) != len(digest):", (DAMAGE,)),
    Mutant("the bytes before the digest are not in it", "checkpoint/checkpoint.py",
           "found = hashlib.sha256(content[:start])", "found = hashlib.sha256(b\"\")", (CHECKPOINT,)),
    Mutant("a graph that refuses a checkpoint stays half loaded", "checkpoint/checkpoint.py",
           "        graph.load_state_dict(before)\n", "", (CHECKPOINT,)),
    Mutant("a checkpoint ignores the layers where the tensors agree", "checkpoint/checkpoint.py",
           "if layers or tensors:", "if tensors:", (CHECKPOINT,)),
    Mutant("tuples of training state come back as lists", "checkpoint/state.py",
           'kind = "list" if isinstance(value, list) else "tuple"', 'kind = "list"', (CHECKPOINT,)),
    Mutant("keys of training state become strings", "checkpoint/state.py",
           "name = encode(key, tensors,", "name = encode(str(key), tensors,", (CHECKPOINT,)),
    Mutant("the wiring is not in the fingerprint", "checkpoint/fingerprint.py",
           'f"{line} of {reads[path]}" if path in reads else line', "line", (CHECKPOINT,)),
    Mutant("the arguments of a layer are not in the fingerprint", "checkpoint/fingerprint.py",
           "return f\"{type(module).__name__}({' '.join(module.extra_repr().split())})\"",
           'return f"{type(module).__name__}()"', (FINGERPRINT,)),
    Mutant("the heads of an attention are not in the fingerprint", "nets/transformer.py",
           'return f"heads={self.heads}, causal={self.causal}"', 'return f"causal={self.causal}"', (FINGERPRINT,)),
    Mutant("a checkpoint is written over the old one", "checkpoint/atomic_file.py",
           'temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}.tmp")', "temporary = path", (DAMAGE,)),
    Mutant("an interrupted save leaves its temporary file", "checkpoint/atomic_file.py",
           "except BaseException:", "except ZeroDivisionError:", (DAMAGE,)),
    Mutant("the leftovers of a writer at work are swept", "checkpoint/atomic_file.py",
           "_STALE_SECONDS = 3600", "_STALE_SECONDS = -3600", (CHECKPOINT,)),
    Mutant("a diagnosis leaves the graph in evaluation mode", "core/modes.py",
           "            part.training = training\n", "            pass\n", (DIAGNOSE,)),
    Mutant("the inverse gain is measured at the inputs", "diagnose.py",
           "_largest(layer.inverse, ys, cs, power)", "_largest(layer, xs, cs, power)", (DIAGNOSE,)),
    Mutant("nodes inside nested graphs count twice in the shares", "diagnose.py",
           'sum(abs(row.log_det) for row in rows if "." not in row.name)', "sum(abs(row.log_det) for row in rows)",
           (DIAGNOSE,)),
)  # fmt: skip


def stale(mutant: Mutant) -> bool:
    """Whether the source no longer holds the text exactly once."""
    return (ROOT / "invgraph" / mutant.file).read_text().count(mutant.old) != 1


def start(mutant: Mutant | None, tests: tuple[str, ...], folder: Path) -> int:
    """Fork a process that runs the tests on a copy of the package with this mistake; its id.

    Torch and pytest are imported once, in the process that forks; the package is not.
    """
    for part in ("invgraph", "tests"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__", "benchmarks"))
    shutil.copy(ROOT / "setup.cfg", folder)
    if mutant is not None:
        path = folder / "invgraph" / mutant.file
        path.write_text(path.read_text().replace(mutant.old, mutant.new))
    child = os.fork()
    if child:
        return child
    try:
        os._exit(_tested(tests, folder))
    except BaseException:  # the child must not run on as a second parent
        traceback.print_exc()
        os._exit(70)


def _tested(tests: tuple[str, ...], folder: Path) -> int:
    """What pytest says of the copy."""
    log = os.open(folder / "log", os.O_CREAT | os.O_WRONLY)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True
    import invgraph

    assert str(invgraph.__file__).startswith(str(folder)), "the copy is not what gets imported"
    imported = "ignore:Module already imported:pytest.PytestAssertRewriteWarning"
    return int(pytest.main(["-q", "-x", "-W", imported, "-p", "no:cacheprovider", "-p", "no:xdist", *tests]))


Work = tuple[Mutant | None, tuple[str, ...]]


def run(jobs: int, work: Sequence[Work]) -> Iterator[tuple[Work, int, str]]:
    """Each piece of work with pytest's exit code and the end of what it printed, as they end."""
    waiting, running = list(work)[::-1], {}
    with tempfile.TemporaryDirectory(prefix="mutants-") as place:
        while waiting or running:
            while waiting and len(running) < jobs:
                mutant, tests = waiting.pop()
                folder = Path(place, str(len(waiting)))
                running[start(mutant, tests, folder)] = ((mutant, tests), folder)
            child, status = os.wait()
            done, folder = running.pop(child)
            told = (folder / "log").read_text()[-1000:]
            shutil.rmtree(folder)
            yield done, os.waitstatus_to_exitcode(status), told


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", help="only mutants of files that hold one of these")
    parser.add_argument("-j", "--jobs", type=int, default=2, help="how many at a time")
    options = parser.parse_args()
    chosen = [m for m in MUTANTS if not options.words or any(word in m.file for word in options.words)]
    gone = [mutant for mutant in chosen if stale(mutant)]
    for mutant in gone:
        print(f"STALE     {mutant.file}: {mutant.told}: the source has changed, change the mutant too")
    live = [mutant for mutant in chosen if mutant not in gone]
    selections = dict.fromkeys(mutant.tests for mutant in live)
    for (_, tests), code, told in run(options.jobs, [(None, tests) for tests in selections]):
        if code:
            print(f"without any mistake, pytest {' '.join(tests)} ends with {code}:\n{told}")
            return 1
    print("no mistake: the tests pass", flush=True)
    caught = 0
    for (found, _), code, told in run(options.jobs, [(mutant, mutant.tests) for mutant in live]):
        assert found is not None
        caught += code == 1
        # 0: all passed, 1: some failed; anything else (2: not even collected) says nothing of the mistake.
        outcome = {0: "SURVIVED", 1: "caught"}.get(code, f"BROKEN ({code})")
        print(f"{outcome:9} {found.file}: {found.told}{'' if code in (0, 1) else told}", flush=True)
    print(f"{caught} of {len(chosen)} mutants caught")
    return 0 if caught == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
