"""Small graphs used by several test files, and comparisons of a runner with the graph itself."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

import invgraph as ig
from invgraph.testing import randomize

MLP, CONV = ig.nets.MLP(hidden=6), ig.nets.ConvNet(hidden=4)
AFFINE = ig.Affine(clamp=1.0)


def crossed_graph() -> ig.Graph:
    """Build a graph with a node conditioned on a value that an earlier node transforms.

    The reversible runner has to rebuild that value before it computes the node's gradient.
    """
    x, y, c = ig.InputNode(4, name="x"), ig.InputNode(3, name="y"), ig.ConditionNode(2, name="c")
    h = ig.Node(x, ig.Coupling, {"transform": AFFINE, "subnet": MLP}, conditions=c, name="first")
    w = ig.Node(h, ig.Coupling, {"transform": AFFINE, "subnet": MLP}, name="second")
    feature = ig.FeatureNode((h, c), Feature, name="feature")
    k = ig.Node(y, ig.Coupling, {"transform": AFFINE, "subnet": MLP}, conditions=(h, w, feature), name="third")
    return ig.Graph((x, y), (w, k), c)


class Feature(nn.Module):
    """Feature of an inner value and a condition."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 5)

    def forward(self, h: Tensor, c: Tensor) -> Tensor:
        return torch.tanh(self.linear(torch.cat((h, c), dim=1)))


def deep_graph(depth: int, width: int = 8, subnet: object = MLP) -> ig.Graph:
    x, c = ig.InputNode(width, name="x"), ig.ConditionNode(3, name="c")
    h: ig.Node | ig.InputNode = x
    for k in range(depth):
        h = ig.Node(h, ig.Permute, {"seed": k})
        h = ig.Node(h, ig.Coupling, {"transform": AFFINE, "subnet": subnet}, conditions=c, name=f"coupling_{k}")
    return ig.Graph(x, h, c)


def build(make: Callable[[], ig.Graph], dtype: torch.dtype = torch.float64) -> ig.Graph:
    torch.manual_seed(0)
    graph = make().to(dtype)
    randomize(graph, seed=1)
    return graph


def draw(graph: ig.Invertible, inverse: bool = False, batch: int = 3) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    generator = torch.Generator().manual_seed(3)
    shapes = graph.out_shapes if inverse else graph.in_shapes

    def leaves(shapes: tuple[tuple[int, ...], ...]) -> tuple[Tensor, ...]:
        drawn = (torch.randn(batch, *shape, generator=generator, dtype=torch.float64) for shape in shapes)
        return tuple(t.requires_grad_() for t in drawn)

    return leaves(shapes), leaves(graph.cond_shapes)


def gradients(graph: ig.Graph, module: ig.Invertible, inverse: bool) -> list[Tensor]:
    """Return outputs, and all gradients of a loss that weights each element differently."""
    xs, cs = draw(graph, inverse)
    ports = (graph._outputs() if inverse else graph._inputs(), graph._conditions())
    call = module.inverse if inverse else module
    ys, log_det = call(ports[0].pack(xs), ports[1].pack(cs))
    ys = ys if isinstance(ys, tuple) else (ys,)
    loss = sum((y * torch.linspace(0.5, 1.5, y.numel(), dtype=y.dtype).view_as(y)).square().sum() for y in ys)
    loss = loss + (log_det * torch.arange(1.0, 4.0, dtype=torch.float64)).sum()
    trained = [p for p in graph.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, (*xs, *cs, *trained), allow_unused=True)
    return [*(y.detach() for y in ys), log_det.detach(), *(torch.zeros(()) if g is None else g for g in found)]


def agree(graph: ig.Graph, inverse: bool, **options: object) -> None:
    """Assert that the reversible runner gives the results and gradients of the graph."""
    reference = gradients(graph, graph, inverse)
    reversible = gradients(graph, ig.reversible(graph, **options), inverse)  # type: ignore[arg-type]
    for expected, got in zip(reference, reversible, strict=True):
        assert got.shape == expected.shape
        assert (got - expected).abs().max() <= 1e-10 * max(1.0, float(expected.abs().max()))


def both(
    graph: ig.Graph, inverse: bool, samples: int, rows: int, data: tuple[Tensor, ...] | None = None
) -> tuple[list[Tensor], list[Tensor]]:
    """Return values and log-determinants of the bound graph, and of the graph itself with repeated conditions."""
    generator = torch.Generator().manual_seed(1)
    source = graph._outputs() if inverse else graph._inputs()
    xs = data or tuple(torch.randn(samples, rows, *s, generator=generator, dtype=torch.float64) for s in source.shapes)
    cs = tuple(torch.randn(rows, *s, generator=generator, dtype=torch.float64) for s in graph.cond_shapes)
    bound = graph.bind(graph._conditions().pack(cs))
    ys, log_det = (bound.inverse if inverse else bound)(source.pack(xs))
    flat = source.pack(tuple(x.flatten(0, 1) for x in xs))
    repeated = graph._conditions().pack(tuple(c.repeat(samples, *(1 for _ in c.shape[1:])) for c in cs))
    plain, plain_log_det = (graph.inverse if inverse else graph)(flat, repeated)
    ours = [*(ys if isinstance(ys, tuple) else (ys,)), log_det]
    theirs = [*(plain if isinstance(plain, tuple) else (plain,)), plain_log_det]
    return ours, [t.unflatten(0, (samples, rows)) for t in theirs]
