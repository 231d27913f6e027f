"""Plant mistakes in a copy of the package, one at a time, and see whether the tests catch each.

``python tests/mutants.py`` runs all of them; ``python tests/mutants.py haar graph`` those whose file holds a word;
``-j 4`` runs four at a time. A mutant is caught when the tests named with it fail; if one survives, the exit status
is 1.
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

ROOT = Path(__file__).resolve().parent.parent
CONTRACT = "tests/test_contract.py"
LAYERS = "tests/test_layers.py"
NODES = "tests/test_nodes.py"
BAD = "tests/test_bad_input.py"
FLOW = "tests/test_flow.py"
RANDOM = "tests/test_random_graphs.py"


class Mutant(NamedTuple):
    """A mistake: in which file of the package what becomes what, and which tests must notice."""

    told: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


MUTANTS = (
    Mutant("the log-det of the inverse has the forward's sign", "transforms/affine.py",
           "torch.exp(-s), -per_sample(s)", "torch.exp(-s), per_sample(s)", (CONTRACT, "-k", "Coupling-Affine")),
    Mutant("the shift is added before the scale", "transforms/affine.py",
           "torch.addcmul(t, x, torch.exp(s))", "(x + t) * torch.exp(s)", (CONTRACT, "-k", "Coupling-Affine")),
    Mutant("the clamp is dropped", "transforms/clamp.py",
           "bent = torch.atan(scaled) * (2 * alpha / math.pi)", "bent = s + 0", (LAYERS,)),
    Mutant("the clamp's bound is alpha times pi / 2", "transforms/clamp.py",
           "(2 * alpha / math.pi)", "alpha", (LAYERS,)),
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
    Mutant("the second side of a coupling reads what it transforms", "modules/coupling.py",
           "self._params(side, parts[1 - side], cs,", "self._params(side, parts[side], cs,",
           (CONTRACT, "-k", "Coupling")),
    Mutant("the inverse of a coupling undoes its sides in the order of the forward", "modules/coupling.py",
           "sides[::-1] if inverse else sides", "sides", (CONTRACT, "-k", "Coupling")),
    Mutant("the log-det of the second side is forgotten", "modules/coupling.py",
           "log_det = more if log_det is None else log_det + more", "log_det = more", (CONTRACT, "-k", "Coupling")),
    Mutant("a coupling splits in the middle whatever it was told", "channels.py",
           "int(channels * split) if isinstance(split, float) else split", "channels // 2", (LAYERS,)),
    Mutant("a part of no channels is allowed", "channels.py",
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
    Mutant("the last layer of a subnet is not zero at the start", "nets/feedforward.py",
           "zero=layer is self.layers[-1]", "zero=False", (LAYERS,)),
    Mutant("the second condition is not concatenated to a plain subnet's data", "subnet.py",
           "torch.cat((x, *spread), dim=1)", "torch.cat((x, *(s for s in list(spread)[:1] * len(shared))), dim=1)",
           (LAYERS,)),
    Mutant("a permutation is its own inverse", "modules/permute.py",
           "x = _gather(ys[0], self.inverse_order, self.order)", "x = _gather(ys[0], self.order, self.inverse_order)",
           (CONTRACT, "-k", "Permute")),
    Mutant("the gradient of a permutation is gathered by the permutation", "modules/permute.py",
           "return _gather(grad, inverse, order), None, None", "return _gather(grad, order, inverse), None, None",
           (CONTRACT, "-k", "Permute")),
    Mutant("the seed of a permutation goes to the global generator", "modules/permute.py",
           "generator = torch.Generator().manual_seed(seed)", "generator = torch.manual_seed(seed)",
           (CONTRACT, "-k", "Permute")),
    Mutant("an orthogonal layer is inverted by its own matrix", "modules/linear.py",
           "mix(ys[0], self.matrix.t())", "mix(ys[0], self.matrix)", (CONTRACT, "-k", "Orthogonal")),
    Mutant("a rotation is not made exact when it is widened", "modules/linear.py",
           "if widened and not self.matrix.is_meta:", "if False:", (CONTRACT, "-k", "Orthogonal")),
    Mutant("the positions are not counted in a linear layer's log-det", "modules/linear.py",
           "log_det = self.log_abs_det * self.positions", "log_det = self.log_abs_det * 1",
           (CONTRACT, "-k", "FixedLinear")),
    Mutant("the details of Haar are not rebalanced in the inverse", "modules/haar.py",
           "_scale_derivatives(x, 1 / self.rebalance)", "_scale_derivatives(x, 1.0)", (CONTRACT, "-k", "Haar")),
    Mutant("the log-det of Haar counts the averages too", "modules/haar.py",
           "details = math.prod(shape) - math.prod(shape) // 2**self.axes", "details = math.prod(shape)",
           (CONTRACT, "-k", "Haar")),
    Mutant("both orders of Haar's channels are the same", "modules/haar.py",
           "y = y if self.order_by_wavelet else y.transpose(1, 2)", "y = y.transpose(1, 2)", (CONTRACT, "-k", "Haar")),
    Mutant("Haar changes the caller's tensor", "modules/haar.py",
           "y = xs[0].unsqueeze(1) * self.norm", "y = xs[0].mul_(self.norm).unsqueeze(1)", (CONTRACT, "-k", "Haar")),
    Mutant("Squeeze transposes its patches", "modules/squeeze.py",
           "x.permute(0, 1, *places, ", "x.permute(0, 1, *reversed(places), ", (LAYERS,)),
    Mutant("the parts of a split come in the other order", "modules/split.py",
           "return tuple((*shape[: self.dim], size, *shape[self.dim + 1 :]) for size in self.sizes)",
           "return tuple((*shape[: self.dim], size, *shape[self.dim + 1 :]) for size in self.sizes[::-1])",
           (CONTRACT, "-k", "Split")),
    Mutant("the log-det of ActNorm forgets the positions", "modules/actnorm.py",
           "(self.log_scale.sum() * self.positions)", "(self.log_scale.sum() * 1)", (CONTRACT, "-k", "ActNorm")),
    Mutant("ActNorm is not ready after loading", "modules/actnorm.py",
           'self.ready = bool(state_dict[prefix + "initialized"])', "pass", (LAYERS,)),
    Mutant("ActNorm initialises itself with whatever is called first", "modules/actnorm.py",
           "        log_det = self._ready_log_det(xs[0])\n",
           "        if not self.ready:\n            self.initialize(xs[0])\n"
           "        log_det = self._ready_log_det(xs[0])\n",
           (BAD,)),
    Mutant("a node's log-det is dropped from the graph's", "graph.py",
           "log_det = log_det + share", "log_det = log_det + 0 * share", (CONTRACT, "-k", "Graph")),
    Mutant("the inverse schedule ignores conditions", "graph.py",
           "for value in (*taken, *node.conditions):", "for value in taken:", (RANDOM,)),
    Mutant("a slot is let go while it is still read", "graph.py",
           "kept.update(idle)", "kept.update(sources)", (RANDOM,)),
    Mutant("outputs come back in the order of the nodes", "graph.py",
           "starts, ends = (tuple(slots[value] for value in side) for side in (wiring.inputs, wiring.outputs))",
           "starts, ends = (tuple(sorted(slots[value] for value in side)) for side in (wiring.inputs, wiring.outputs))",
           (RANDOM,)),
    Mutant("a value may be read twice", "wiring.py",
           "if other is not None or value in outputs:", "if False:", (BAD,)),
    Mutant("a dangling output is accepted", "wiring.py",
           "if value not in wiring.consumer and value not in outputs:", "if False:", (BAD,)),
    Mutant("nodes are ordered by address", "wiring.py",
           "key=lambda node: node.order))\n\n\ndef _names", "key=id))\n\n\ndef _names", (NODES, RANDOM)),
    Mutant("batches of different sizes are accepted", "shapes.py",
           "elif value.shape[0] != first.shape[0]:", "elif False:", (BAD,)),
    Mutant("the channels of an input are not checked", "shapes.py",
           "if value.shape[1:] != shape or value.ndim == 0:", "if value.ndim == 0:", (BAD,)),
    Mutant("tuples of a layer that is held by another are nested once more", "invertible.py",
           "(outputs if isinstance(outputs, tuple) else (outputs,)), log_det", "(outputs,), log_det",
           (CONTRACT, "-k", "Inverse")),
    Mutant("Inverse goes forward both ways", "invertible.py",
           "return flat_call(self.module.inverse, self._inputs(), self._conditions(), xs, cs)",
           "return flat_call(self.module, self._outputs(), self._conditions(), xs, cs)", (CONTRACT, "-k", "Inverse")),
    Mutant("log_prob forgets the log-det", "flow.py",
           "self._base_log_prob(self.graph._outputs().unpack(\"Flow\", z)) + log_det",
           "self._base_log_prob(self.graph._outputs().unpack(\"Flow\", z)) + 0 * log_det", (FLOW,)),
    Mutant("the loss keeps the normal's constant", "flow.py",
           "0.5 * self.dims * math.log(2 * math.pi)\n        loss", "0.0\n        loss", (FLOW,)),
    Mutant("denoising takes sigma for its square", "flow.py", "sigma**2 * g", "sigma * g", (FLOW,)),
)  # fmt: skip


def stale(mutant: Mutant) -> bool:
    """Whether the source no longer holds the text, exactly once (or the same mistake at every place)."""
    return mutant.old not in (ROOT / "invgraph" / mutant.file).read_text()


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


def run(jobs: int, work: Sequence[tuple[Mutant | None, tuple[str, ...]]]) -> Iterator[tuple[Mutant | None, bool, str]]:
    """Each piece of work with whether its tests passed and the end of what they printed, as they end."""
    waiting, running = list(work)[::-1], {}
    with tempfile.TemporaryDirectory(prefix="mutants-") as place:
        while waiting or running:
            while waiting and len(running) < jobs:
                mutant, tests = waiting.pop()
                folder = Path(place, str(len(waiting)))
                running[start(mutant, tests, folder)] = (mutant, folder)
            child, status = os.wait()
            mutant, folder = running.pop(child)
            code, told = os.waitstatus_to_exitcode(status), (folder / "log").read_text()[-1000:]
            # 0: all passed, 1: some failed, 2: not even collected; anything else says nothing of the mistake.
            if code not in (0, 1, 2):
                raise RuntimeError(f"{mutant}: pytest ended with {code}:\n{told}")
            shutil.rmtree(folder)
            yield mutant, code == 0, told


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", help="only mutants of files that hold one of these")
    parser.add_argument("-j", "--jobs", type=int, default=2, help="how many at a time")
    options = parser.parse_args()
    chosen = [m for m in MUTANTS if not options.words or any(word in m.file for word in options.words)]
    gone = [mutant for mutant in chosen if stale(mutant)]
    for mutant in gone:
        print(f"STALE     {mutant.file}: {mutant.told}: the source has changed, change the mutant too")
    ((_, passed, told),) = run(1, [(None, (LAYERS, BAD))])
    if not passed:
        print(f"the tests fail without any mistake:\n{told}")
        return 1
    print("no mistake: the tests pass", flush=True)
    live = [mutant for mutant in chosen if mutant not in gone]
    survived = 0
    for found, passed, _ in run(options.jobs, [(mutant, mutant.tests) for mutant in live]):
        assert found is not None
        survived += passed
        print(f"{'SURVIVED' if passed else 'caught':9} {found.file}: {found.told}", flush=True)
    print(f"{len(live) - survived} of {len(chosen)} mutants caught")
    return 1 if survived or gone else 0


if __name__ == "__main__":
    sys.exit(main())
