"""The paper's MNIST model: 24 couplings of 784 numbers, subnets of 512 units, ten one-hot conditions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import invgraph as ig
from tests.benchmarks.by_hand import ByHand
from tests.benchmarks.timing import Job, interleave, rows

DEPTH, WIDTH, HIDDEN, CLASSES = 24, 784, 512, 10


def graph(depth: int = DEPTH, width: int = WIDTH, hidden: int = HIDDEN) -> ig.Graph:
    x, digit = ig.InputNode(width, name="image"), ig.ConditionNode(CLASSES, name="digit")
    h: Any = x
    args = {"transform": ig.Affine(clamp=1.0), "subnet": ig.nets.MLP(hidden=hidden)}
    for k in range(depth):
        h = ig.Node(h, ig.Permute, {"seed": k})
        h = ig.Node(h, ig.Coupling, args, conditions=digit, name=f"coupling_{k}")
    return ig.Graph(x, h, digit)


def _mlp(channels_in: int, channels_out: int, hidden: int = HIDDEN) -> nn.Module:
    return nn.Sequential(nn.Linear(channels_in, hidden), nn.ReLU(), nn.Linear(hidden, channels_out))


class Straight(nn.Module):
    """The same arithmetic as a person would write it by hand."""

    def __init__(self, depth: int = DEPTH, width: int = WIDTH, hidden: int = HIDDEN) -> None:
        super().__init__()
        half = width // 2
        self.half = half
        self.nets = nn.ModuleList(_mlp(half + CLASSES, width, hidden) for _ in range(2 * depth))
        self.orders = [torch.randperm(width) for _ in range(depth)]

    def forward(self, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        log_det = x.new_zeros(x.shape[0])
        for k, order in enumerate(self.orders):
            a, b = x[:, order].chunk(2, dim=1)
            for net in self.nets[2 * k : 2 * k + 2]:
                raw, t = net(torch.cat([b, c], 1)).chunk(2, 1)
                s = 2 / math.pi * torch.atan(raw)
                a, b = b, a * torch.exp(s) + t
                log_det = log_det + s.sum(1)
            x = torch.cat([a, b], 1)
        return x, log_det

    def inverse(self, z: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        log_det = z.new_zeros(z.shape[0])
        for k in reversed(range(len(self.orders))):
            a, b = z.chunk(2, dim=1)
            for net in (self.nets[2 * k + 1], self.nets[2 * k]):
                raw, t = net(torch.cat([a, c], 1)).chunk(2, 1)
                s = 2 / math.pi * torch.atan(raw)
                a, b = (b - t) * torch.exp(-s), a
                log_det = log_det - s.sum(1)
            z = torch.cat([a, b], 1)[:, self.orders[k].argsort()]
        return z, log_det


class Products:
    """The floor: only the matrix products of the model, forwards through all layers, then backwards, gradients kept."""

    def __init__(self, batch: int, depth: int = DEPTH, width: int = WIDTH, hidden: int = HIDDEN) -> None:
        read = width // 2 + CLASSES
        self.first = [torch.randn(hidden, read) * 0.01 for _ in range(2 * depth)]
        self.last = [torch.randn(width, hidden) * 0.01 for _ in range(2 * depth)]
        self.x, self.h, self.g = torch.randn(batch, read), torch.randn(batch, hidden), torch.randn(batch, width)

    @torch.no_grad()
    def forward(self) -> None:
        for first, last in zip(self.first, self.last, strict=True):
            (self.x @ first.t()) @ last.t()

    @torch.no_grad()
    def train(self) -> None:
        self.forward()
        self.kept = []
        for first, last in zip(reversed(self.first), reversed(self.last), strict=True):
            hidden_grad = self.g @ last
            self.kept += [self.g.t() @ self.h, hidden_grad.t() @ self.x]
            hidden_grad @ first


class Moved(Products):
    """The floor with the bytes that must move as well: activations kept for the way back, one pass over each number."""

    @torch.no_grad()
    def forward(self) -> None:
        half = self.last[0].shape[0] // 2
        self.activations = []
        x = self.x
        for first, last in zip(self.first, self.last, strict=True):
            h = (x @ first.t()).relu_()
            params = h @ last.t()
            x = torch.empty_like(x)
            torch.addcmul(params[:, half:], params[:, :half], self.x[:, :half], out=x[:, :half])
            self.activations.append((x, h, params))

    @torch.no_grad()
    def train(self) -> None:
        self.forward()
        half = self.last[0].shape[0] // 2
        self.kept = []
        g = self.g
        for first, last in zip(reversed(self.first), reversed(self.last), strict=True):
            x, h, params = self.activations.pop()
            torch.addcmul(g[:, :half], params[:, :half], x[:, :half], out=params[:, half:])
            hidden_grad = (params @ last).mul_(h)
            self.kept += [params.t() @ h, hidden_grad.t() @ x]
            g = hidden_grad @ first


def freia() -> Any:
    import FrEIA.framework as ff
    import FrEIA.modules as fm

    condition = ff.ConditionNode(CLASSES)
    nodes = [ff.InputNode(WIDTH)]
    for k in range(DEPTH):
        nodes.append(ff.Node(nodes[-1], fm.PermuteRandom, {"seed": k}))
        args = {"subnet_constructor": _mlp, "clamp": 1.0}
        nodes.append(ff.Node(nodes[-1], fm.GLOWCouplingBlock, args, conditions=condition))
    return ff.GraphINN([*nodes, condition, ff.OutputNode(nodes[-1])])


class _WithContext(nn.Module):
    """nflows hands data and context to the subnet as two arguments."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.net = _mlp(channels_in + CLASSES, channels_out)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        return self.net(torch.cat([x, context], 1))


def nflows() -> Any:
    from nflows.transforms import AffineCouplingTransform, CompositeTransform, RandomPermutation
    from nflows.utils.torchutils import create_mid_split_binary_mask

    layers: list[Any] = []
    for _ in range(DEPTH):
        layers.append(RandomPermutation(WIDTH))
        mask = create_mid_split_binary_mask(WIDTH)
        layers += [AffineCouplingTransform(m, _WithContext) for m in (mask, 1 - mask)]
    return CompositeTransform(layers)


def normflows() -> Any:
    import normflows as nf

    flows: list[Any] = []
    for _ in range(2 * DEPTH):
        flows.append(nf.flows.Permute(WIDTH, mode="shuffle"))
        flows.append(nf.flows.AffineCouplingBlock(nf.nets.MLP([WIDTH // 2, HIDDEN, WIDTH], init_zeros=True)))
    return nf.NormalizingFlow(nf.distributions.DiagGaussian(WIDTH, trainable=False), flows)


def zuko() -> Any:
    import zuko

    return zuko.flows.NICE(WIDTH, CLASSES, transforms=2 * DEPTH, hidden_features=(HIDDEN,))


def _loss(z: Tensor, log_det: Tensor) -> Tensor:
    return z.square().sum() / 2 - log_det.sum()


def _compiled(model: nn.Module) -> nn.Module:
    model.compile()
    return model


def train_jobs(batch: int, compiled: bool) -> dict[str, Job]:
    """A train step (loss and gradients, no optimizer) of every contestant."""
    x = torch.randn(batch, WIDTH)
    c = functional.one_hot(torch.arange(batch) % CLASSES, CLASSES).float()
    jobs: dict[str, Job] = {}

    def add(name: str, make: Callable[[], Any], loss: Callable[[Any], Tensor]) -> None:
        try:
            model = make()
        except ImportError as error:
            print(f"  {name}: not installed ({error})")
            return

        parameters = list(model.parameters())  # as an optimizer holds them

        def step() -> None:
            for p in parameters:
                p.grad = None
            loss(model).backward()

        jobs[name] = step

    jobs["floor"] = Products(batch).train
    jobs["floor, bytes moved"] = Moved(batch).train
    add("invgraph", graph, lambda m: _loss(*m(x, c)))
    if compiled:
        add("invgraph compiled", lambda: graph().compile(), lambda m: _loss(*m(x, c)))
    add("invgraph reversible", lambda: ig.reversible(graph()), lambda m: _loss(*m(x, c)))
    add("straight", Straight, lambda m: _loss(*m(x, c)))
    if compiled:
        add("straight compiled", lambda: _compiled(Straight()), lambda m: _loss(*m(x, c)))
    add("by hand", lambda: ByHand(DEPTH, WIDTH, CLASSES, HIDDEN), lambda m: _loss(*m(x, c)))
    add("FrEIA", freia, lambda m: _loss(*m(x, c=[c])))
    add("nflows", nflows, lambda m: _loss(*m(x, context=c)))
    add("zuko", zuko, lambda m: -m(c).log_prob(x).sum())
    add("normflows (no condition)", normflows, lambda m: -m.log_prob(x).sum())
    return jobs


def evaluation_jobs(batch: int, compiled: bool, inverse: bool) -> dict[str, Job]:
    """One direction without gradient; the inverse is what samples."""
    x = torch.randn(batch, WIDTH)
    c = functional.one_hot(torch.arange(batch) % CLASSES, CLASSES).float()
    plain, straight = graph(), Straight()
    jobs: dict[str, Job] = {"floor": Products(batch).forward}
    jobs["invgraph"] = lambda: (plain.inverse if inverse else plain)(x, c)
    if compiled:
        fast = graph().compile()
        jobs["invgraph compiled"] = lambda: (fast.inverse if inverse else fast)(x, c)
    bound = plain.bind(c)
    jobs["invgraph bound"] = lambda: (bound.inverse if inverse else bound)(x.unsqueeze(0))
    jobs["straight"] = lambda: (straight.inverse if inverse else straight)(x, c)
    try:
        other = freia()
        jobs["FrEIA"] = lambda: other(x, c=[c], rev=inverse)
    except ImportError:
        pass
    return {name: torch.no_grad()(job) for name, job in jobs.items()}


def run(batch: int, seconds: float, compiled: bool) -> list[dict[str, object]]:
    """Train step, forward and inverse at one batch size."""
    share = seconds / 4
    found = rows(interleave(train_jobs(batch, compiled), 2 * share), "floor", work="train step", batch=batch)
    for inverse, work in ((False, "forward"), (True, "inverse")):
        jobs = evaluation_jobs(batch, compiled, inverse)
        found += rows(interleave(jobs, share), "floor", work=work, batch=batch)
    return found
