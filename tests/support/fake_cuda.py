"""Run everything on fake CUDA tensors, so that no tensor of the CPU gets into a graph on a GPU; no GPU is needed.

``make fake-cuda`` makes an environment with torch's CUDA build and runs ``python -m tests.support.fake_cuda`` in it.
Fake tensors have shapes, dtypes and devices but no data; torch refuses an operation on tensors of two devices. All
layers of the table (tests/support/cases.py) run in both directions, plain and bound, as do the densities and samples
of a flow, and the three models of the paper. Nothing computes a gradient, because autograd needs a device: for the
same reason ``ContinuousFlow``, which differentiates inside, is left out, and the gradient inside ``Flow.denoise`` is
replaced by zeros.
"""

from __future__ import annotations

import copy
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))

import torch
from cases import CASES, Case
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributions import Distribution, HalfNormal, Uniform

import invgraph as ig
from invgraph.densities.bases import base_tensor
from invgraph.numerics.interval import REALS
from invgraph.torch_internals import floating_tensor, tensor_stores

SAMPLES, ROWS = 2, 3
NEEDS_AUTOGRAD = {ig.ContinuousFlow: "differentiates inside, which needs a device"}


def on_cuda(module: nn.Module) -> nn.Module:
    """The module with fake CUDA tensors in place of its parameters and buffers; tied ones stay tied."""
    moved: dict[int, Tensor] = {}
    for store in tensor_stores(module.modules()):
        for name, tensor in store.items():
            if tensor is None:
                continue
            if id(tensor) not in moved:
                fake = torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda")
                is_parameter = isinstance(tensor, nn.Parameter)
                moved[id(tensor)] = nn.Parameter(fake, tensor.requires_grad) if is_parameter else fake
            store[name] = moved[id(tensor)]
    return module


def empty(rows: int, shapes: Any) -> tuple[Tensor, ...]:
    return tuple(torch.empty(rows, *shape, device="cuda") for shape in shapes)


def require_cuda(*values: Any) -> None:
    for value in values:
        if isinstance(value, Tensor):
            assert value.device.type == "cuda", f"a result on {value.device}"
        else:
            require_cuda(*value)


@contextmanager
def faked() -> Iterator[None]:
    """Fake tensors, without gradients; those that are asked for all the same are zeros."""

    def zeros(outputs: object, inputs: Any, *_: object, **__: object) -> tuple[Tensor, ...]:
        return tuple(torch.zeros_like(value) for value in inputs)

    with FakeTensorMode(), torch.no_grad(), mock.patch.object(torch.autograd, "grad", zeros):
        yield


def graph_of(case: Case) -> ig.Graph:
    module = case.build(torch.float32)
    xs = [ig.InputNode(*shape, name=f"x{k}") for k, shape in enumerate(module.in_shapes)]
    cs = [ig.ConditionNode(*shape, name=f"c{k}") for k, shape in enumerate(module.cond_shapes)]
    return ig.Graph(xs, list(ig.Node(xs, module, conditions=cs, name="layer")), cs)


def run_plain(graph: ig.Graph) -> None:
    inputs, outputs, conditions = graph._inputs(), graph._outputs(), graph._conditions()
    c = conditions.pack(empty(ROWS, graph.cond_shapes))
    require_cuda(graph(inputs.pack(empty(ROWS, graph.in_shapes)), c))
    require_cuda(graph.inverse(outputs.pack(empty(ROWS, graph.out_shapes)), c))


def run_bound(graph: ig.Graph) -> None:
    bound = graph.bind(graph._conditions().pack(empty(ROWS, graph.cond_shapes)))
    for call, ports in ((bound, graph._inputs()), (bound.inverse, graph._outputs())):
        values = tuple(value.unflatten(0, (SAMPLES, ROWS)) for value in empty(SAMPLES * ROWS, ports.shapes))
        require_cuda(call(ports.pack(values)))


def fitting(graph: ig.Graph) -> tuple[Distribution, ...] | None:
    """Bases on the ranges of the outputs, on the CPU; None where the standard normal fits."""
    if all(own is None or own.covers(REALS) for own in graph.range):
        return None
    bases: list[Distribution] = []
    for shape, own in zip(graph.out_shapes, graph.range, strict=True):
        assert own is not None
        low = torch.full(shape, own.low)
        bounded = own.high < float("inf")
        bases.append(Uniform(low, low.new_full(shape, own.high)) if bounded else HalfNormal(low.new_ones(shape)))
        bases[-1]._validate_args = False  # it reads the data
    return tuple(bases)


def run_flow(flow: ig.Flow) -> None:
    graph, cs = flow.graph, empty(ROWS, flow.graph.cond_shapes)
    parts: list[Any] = list(flow.latents.bases or ())
    for part in parts:
        parts += [part.base_dist] if "base_dist" in vars(part) else []
        moved = {k: torch.empty(v.shape, device="cuda") for k, v in vars(part).items() if isinstance(v, Tensor)}
        vars(part).update(moved)
    flow.latents._tensors = tuple(map(base_tensor, flow.latents.bases or ()))
    x = graph._inputs().pack(empty(ROWS, graph.in_shapes))
    c = graph._conditions().pack(cs)
    require_cuda(flow.log_prob(x, c), flow.loss(x, c), flow.denoise(x, c, sigma=0.1))
    if floating_tensor(graph) is not None or cs:  # otherwise nothing says on which device to draw
        require_cuda(flow.sample(SAMPLES, c), flow.sample(SAMPLES, c, 0.5))


def paper_models() -> Iterator[tuple[str, Callable[[], ig.Graph]]]:
    """The models of the cINN paper, at the sizes of its preset, built without memory."""
    import bedrooms_cinn
    import imagenet_cinn
    import mnist_cinn

    paper = mnist_cinn.PRESETS["paper"]
    yield "MNIST", lambda: mnist_cinn.build(paper.blocks, paper.hidden, paper.clamp).graph
    yield "bedrooms", lambda: bedrooms_cinn.bedrooms(bedrooms_cinn.PRESETS["paper"])
    yield "ImageNet", lambda: imagenet_cinn.imagenet(imagenet_cinn.PRESETS["paper"])


def main() -> int:
    if not torch.backends.cuda.is_built():
        print(f"torch {torch.__version__} is built without CUDA: make fake-cuda makes an environment that has it")
        return 2
    done: Counter[str] = Counter()
    failed: list[str] = []

    def attempt(kind: str, name: str, graph: ig.Graph, check: Callable[[Any], None]) -> None:
        done[kind] += 1
        try:
            own: Any = copy.deepcopy(graph)  # outside: the tensors are real
            own = ig.Flow(own, base=fitting(own)) if check is run_flow else own
            with faked():
                on_cuda(own)
                check(own)
        except Exception as error:
            failed.append(f"{kind}: {name}: {type(error).__name__}: {' '.join(str(error).split())[:200]}")

    left_out = [case.id for case in CASES if case.cls in NEEDS_AUTOGRAD]
    for case in CASES:
        if case.cls in NEEDS_AUTOGRAD:
            continue
        graph = graph_of(case)
        attempt("plain, both directions", case.id, graph, run_plain)
        if graph.cond_shapes:
            attempt("bound, both directions", case.id, graph, run_bound)
        attempt("log_prob, loss, sample, denoise", case.id, graph, run_flow)
    for name, build in paper_models():
        with torch.device("meta"):
            graph = build()
        graph.eval()
        attempt("plain, both directions", name, graph, run_plain)
        attempt("bound, both directions", name, graph, run_bound)
        attempt("log_prob, loss, sample, denoise", name, graph, run_flow)
    print(*failed, sep="\n", end="\n" if failed else "")
    print(f"torch {torch.__version__}, fake CUDA tensors:")
    for kind, count in done.items():
        print(f"  {kind}: {count - sum(line.startswith(kind) for line in failed)} of {count}")
    print(f"  left out: {len(left_out)} cases of ContinuousFlow, which {NEEDS_AUTOGRAD[ig.ContinuousFlow]}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
