"""THE table of mistakes: what a user writes, the class of the error, and words that it must hold."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import invgraph as ig
from invgraph import ArgumentError, GraphError, InputTypeError, NumericsError, ShapeError

AFFINE = ig.Affine(clamp=1.0)
MLP = {"transform": AFFINE, "subnet": ig.nets.MLP(hidden=4)}
CONV = {"transform": AFFINE, "subnet": ig.nets.ConvNet(hidden=4)}


class Bad(NamedTuple):
    """A mistake: its number in the catalog, what is done, and what must come of it."""

    number: str
    mistake: Callable[[], object]
    error: type[ig.InvgraphError]
    words: tuple[str, ...]


def x(*shape: int, name: str | None = "x") -> ig.InputNode:
    return ig.InputNode(*(shape or (4,)), name=name)


def c(*shape: int, name: str | None = "c") -> ig.ConditionNode:
    return ig.ConditionNode(*(shape or (3,)), name=name)


def node(source: Any, module: Any = ig.Permute, args: Any = None, **kwargs: Any) -> ig.Node:
    return ig.Node(source, module, args, **kwargs)


def split() -> ig.Node:
    return node(x(), ig.Split, {"sizes": (1, 3)}, name="split")


def coupling(shape: tuple[int, ...] = (4,), conditions: Any = (), **args: Any) -> ig.Coupling:
    return ig.Coupling(shape, conditions, **{**(MLP if len(shape) == 1 else CONV), **args})


MIXTURE = ig.GaussianMixture((2,), ((3,),))


class Scaled(nn.Module):
    """A subnet with a constant that does not move with it."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels_in, channels_out)
        self.factor = torch.ones(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) * self.factor


class Lying(ig.Invertible):
    """Says that it loses a number."""

    @property
    def out_shapes(self) -> Any:
        return ((self.in_shapes[0][0] - 1,),)

    def _forward(self, xs: Any, cs: Any) -> Any:
        return xs, xs[0].sum(1)

    _inverse = _forward


class HalfDone(ig.Invertible):
    """Has one direction."""

    def _forward(self, xs: Any, cs: Any) -> Any:
        return xs, xs[0].sum(1)


def out_shapes_as_a_method() -> type:
    class Hasty(Lying):
        """Has forgotten the decorator."""

        def out_shapes(self) -> Any:  # type: ignore[override]
            return self.in_shapes

    return Hasty


def double(c: Tensor) -> Tensor:
    return 2 * c


class Wrong(ig.Invertible):
    """Returns something else than it declares."""

    result: Any = None

    @property
    def out_shapes(self) -> Any:
        return self.in_shapes

    def _forward(self, xs: Any, cs: Any) -> Any:
        return self.result(xs[0])

    _inverse = _forward


def wrong(result: Callable[[Tensor], Any]) -> object:
    layer = Wrong((4,))
    layer.result = result
    return layer((torch.zeros(2, 4),))


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


def tuple_factory(channels_in: int, channels_out: int) -> nn.Module:
    return Pair()


def narrow_factory(channels_in: int, channels_out: int) -> nn.Module:
    return nn.Linear(channels_in, channels_out - 1)


def failing_factory(channels_in: int, channels_out: int) -> nn.Module:
    return nn.Linear(channels_in + 1, channels_out)


def no_module_factory(channels_in: int, channels_out: int) -> object:
    return "a network"


def two_readers() -> ig.Graph:
    start = x()
    a, b = node(start, name="a"), node(start, name="b")
    return ig.Graph(start, [a, b])


def never_used() -> ig.Graph:
    start = x()
    first, _ = node(start, ig.Split, {"sizes": (1, 3)}, name="split")
    return ig.Graph(start, first)


def inverse_circle() -> ig.Graph:
    u, v = x(4, name="u"), x(4, name="v")
    a = node(u, ig.Coupling, MLP, conditions=v, name="a")
    b = node(v, ig.Coupling, MLP, conditions=u, name="b")
    return ig.Graph((u, v), (a, b))


def conditioned_on_own_source() -> ig.Graph:
    start = x()
    h = node(start, name="first")
    return ig.Graph(start, node(h, ig.Coupling, MLP, conditions=start, name="second"))


def same_name() -> ig.Graph:
    start = x()
    return ig.Graph(start, node(node(start, name="h"), name="h"))


def mixed(change: Callable[[nn.Module], nn.Module]) -> ig.Graph:
    start = x()
    a = node(start, ig.Coupling, MLP, name="a")
    return ig.Graph(start, node(a, change(coupling()), name="b"))


def cast_on_its_own() -> ig.Graph:
    graph = mixed(lambda m: m)
    graph["b"].double()
    return graph


def from_unlisted() -> ig.Graph:
    first, second = x(name="x1"), x(name="x2")
    return ig.Graph(first, node((first, second), ig.Concat))


def with_condition(listed: Any) -> ig.Graph:
    start, condition = x(), c()
    h = node(start, ig.Coupling, MLP, conditions=condition)
    return ig.Graph(start, h, condition if listed == "one" else listed)


def build(make: Callable[[ig.InputNode], Any]) -> Any:
    """``Graph(*make(start))`` where the mistake is in the sides."""
    return ig.Graph(*make(x()))


def image() -> ig.Graph:
    """The graph that is called wrongly below: an image under a class, each declared alone."""
    start, digit = x(3, 8, 8), c(10, name="digit")
    return ig.Graph(start, node(start, ig.Coupling, CONV, conditions=digit, name="conv"), digit)


def pair() -> ig.Graph:
    """Two inputs and two conditions, as tuples."""
    a, b, d, e = x(4, name="a"), x(2, name="b"), c(3, name="d"), c(5, name="e")
    h = node(a, ig.Coupling, MLP, conditions=(d, e))
    return ig.Graph((a, b), (h, node(b)), (d, e))


def named() -> ig.Graph:
    start = x()
    return ig.Graph(start, node(start, ig.Coupling, MLP, name="mix"), name="cinn")


IMAGE, PAIR, NAMED = image(), pair(), named()
X, D = torch.zeros(2, 3, 8, 8), torch.zeros(2, 10)
PAIRS, GIVEN = (torch.zeros(2, 4), torch.zeros(2, 2)), (torch.zeros(2, 3), torch.zeros(2, 5))


def sparse_image() -> Tensor:
    return X.to_sparse()


def finite() -> object:
    start = x()
    h = node(node(start, name="quiet"), ig.Elementwise, {"transform": AFFINE}, name="loud")
    graph = ig.Graph(start, h, check_finite=True)
    return graph(torch.full((1, 4), torch.finfo(torch.float32).max) * torch.tensor([1.0, 1.0, 1.0, 2.0]))


def logit(number: float) -> object:
    layer = ig.Elementwise((2,), transform=ig.Logit(check_domain=True))
    return layer((torch.tensor([[0.5, number]]),))


DECLARING = (
    Bad("1", lambda: ig.InputNode(), GraphError, ("at least one size",)),
    Bad("1b", lambda: ig.ConditionNode(), GraphError, ("at least one size", "ConditionNode")),
    Bad("2", lambda: ig.InputNode(0, 4), GraphError, ("positive", "0")),
    Bad("3", lambda: ig.InputNode(-1), GraphError, ("positive", "-1")),
    Bad("4", lambda: ig.InputNode(2.5), ArgumentError, ("int", "float")),
    Bad("5", lambda: ig.InputNode(True), ArgumentError, ("bool",)),
    Bad("6", lambda: ig.InputNode((3, 8, 8)), ArgumentError, ("write InputNode(3, 8, 8)",)),
    Bad("7", lambda: node(c()), GraphError, ("condition 'c'", "use conditions=")),
    Bad("8", conditioned_on_own_source, GraphError, ("cannot be inverted",)),
    Bad("9", lambda: node(None), ArgumentError, ("Node or value", "NoneType")),
    Bad("9b", lambda: node([x(), 3]), ArgumentError, ("Node or value", "int")),
    Bad("10", lambda: node(torch.zeros(4)), ArgumentError, ("declare shapes, not data",)),
    Bad("10b", lambda: node([torch.zeros(4)]), ArgumentError, ("declare shapes, not data",)),
    Bad("11", lambda: node([]), GraphError, ("no inputs",)),
    Bad("12", lambda: node(split()), GraphError, ("has 2 outputs; pick one with split[0]",)),
    Bad("13", lambda: split()[2], GraphError, ("outputs 0..1",)),
    Bad("14", lambda: split()[-1], GraphError, ("outputs 0..1", "-1")),
    Bad("14b", lambda: split()["a"], ArgumentError, ("picked by an int",)),
    Bad("15", lambda: node(x(), nn.Linear), ArgumentError, ("not an Invertible; use it as a subnet", "Linear")),
    Bad("15b", lambda: node(x(), nn.Linear(4, 4)), ArgumentError, ("not an Invertible; use it as a subnet",)),
    Bad("15c", lambda: node(x(), AFFINE), ArgumentError,
        ("Affine is not an Invertible but a transform: put it in Elementwise(transform=Affine(...))",)),
    Bad("15d", lambda: node(x(), ig.Logit), ArgumentError, ("put it in Elementwise(transform=Logit(...))",)),
    Bad("15e", lambda: node(x(), torch.relu), ArgumentError, ("expected a layer: a class of layers with args",)),
    Bad("15f", lambda: node(x(), None), ArgumentError, ("module=NoneType", "a layer already built, or a graph")),
    Bad("15g", lambda: node(x(), ig.Invertible), ArgumentError,
        ("Invertible is abstract, it lacks _forward and _inverse: give a class that derives from it",)),
    Bad("15h", lambda: node(x(), HalfDone), ArgumentError,
        ("HalfDone is abstract, it lacks _inverse: define them in the class",)),
    Bad("15i", out_shapes_as_a_method, ArgumentError,
        ("class Hasty", "def out_shapes(...) without @property", "write @property above it")),
    Bad("16", lambda: node(x(3), ig.Permute((4,)), name="h"), GraphError, ("expects (4,), gets (3,)", "'h'")),
    Bad("17", lambda: node(x(), ig.Permute((4,)), {"seed": 1}), ArgumentError, ("already built",)),
    Bad("18", lambda: node(x(), ig.Coupling, {"transform": AFFINE, "subnt": None}), ArgumentError,
        ("unknown argument 'subnt'; did you mean 'subnet'?",)),
    Bad("19", lambda: node(x(), ig.Coupling, {"transform": AFFINE}), ArgumentError, ("needs 'subnet'",)),
    Bad("20", lambda: node(x(), ig.Permute, [("seed", 1)]), ArgumentError, ("mapping",)),
    Bad("21", lambda: node(x(), name=""), GraphError, ("empty",)),
    Bad("22", lambda: node(x(), name="a.b"), GraphError, ("dots are not allowed in names",)),
    Bad("23", lambda: node(x(), name=3), ArgumentError, ("name must be a str", "int")),
    Bad("24", lambda: node(x(), name="forward"), GraphError, ("attribute of torch.nn.Module", "forward")),
    Bad("24b", lambda: node(x(), name="training"), GraphError, ("attribute of torch.nn.Module",)),
    Bad("25", lambda: node(x(), ig.Permute, conditions=c()), GraphError, ("takes no conditions",)),
    Bad("25b", lambda: node(x(), ig.Permute((4,)), conditions=c()), GraphError, ("takes no conditions",)),
    Bad("26b", lambda: ig.FeatureNode(c(), ig.Permute((3,))), ArgumentError, ("feed-forward",)),
    Bad("26c", lambda: ig.FeatureNode((), nn.Linear(3, 3)), GraphError, ("at least one condition",)),
    Bad("26d", lambda: ig.FeatureNode(c(), nn.Linear(4, 3)), GraphError, ("it fails", "Linear", "(B, 3)")),
    Bad("26f", lambda: ig.FeatureNode(c(), torch.relu), ArgumentError,
        ("module=relu", "is not an nn.Module: wrap it in a module")),
    Bad("26g", lambda: ig.FeatureNode(c(), double), ArgumentError,
        ("feature (double)", "a function is not an nn.Module: wrap it in a module, whose forward calls it")),
    Bad("26h", lambda: ig.FeatureNode(c(), dict), ArgumentError, ("a dict is not an nn.Module",)),
    Bad("26i", lambda: ig.FeatureNode(c(1), nn.Embedding, {"num_embeddings": 10, "embedding_dim": 4}), GraphError,
        ("Embedding tried on (B, 1)", "nn.Embedding takes integers", "one_hot", "nn.Linear(classes, size)")),
    Bad("26j", lambda: ig.FeatureNode(c(1), nn.Sequential(nn.Embedding(10, 4), nn.Flatten())), GraphError,
        ("nn.Embedding takes integers", "conditions of a graph are floating-point")),
    Bad("26e", lambda: ig.chain(x()), ArgumentError, ("at least one layer",)),
)  # fmt: skip

BUILDING = (
    Bad("27", lambda: build(lambda s: (s, [])), GraphError, ("no outputs",)),
    Bad("28", lambda: build(lambda s: ([], s)), GraphError, ("no inputs",)),
    Bad("29", from_unlisted, GraphError, ("depends on input 'x2' that is not listed",)),
    Bad("30", inverse_circle, GraphError, ("cannot be inverted", "a -> b -> a")),
    Bad("31", two_readers, GraphError, ("read by 'a' and 'b'; a value may be consumed once",)),
    Bad("31b", lambda: build(lambda s: (s, [s, node(s, name="h")])), GraphError, ("read by", "'h'", "the outputs")),
    Bad("32", never_used, GraphError, ("output 1 of node 'split' is never used",)),
    Bad("33", same_name, GraphError, ("'h'", "used 2 times")),
    Bad("34", lambda: build(lambda s: (s, node(s), c())), GraphError, ("no output depends on condition 'c'",)),
    Bad("35", lambda: with_condition(()), GraphError, ("condition 'c' that is not listed",)),
    Bad("36", lambda: build(lambda s: ([s, s], node(s))), GraphError, ("listed 2 times",)),
    Bad("37", lambda: build(lambda s: (s, [h := node(s), h])), GraphError, ("listed 2 times",)),
    Bad("38", lambda: build(lambda s: ([s, x(name="y")], node(s))), GraphError, ("no output depends on input 'y'",)),
    Bad("39", lambda: build(lambda s: (s, node(s, Lying, name="lying"))), GraphError, ("4 elements in", "lying")),
    Bad("40", lambda: build(lambda s: (s, {node(s)})), ArgumentError, ("set", "order")),
    Bad("40b", lambda: build(lambda s: (s, {"z": node(s)})), ArgumentError, ("dict", "order")),
    Bad("40c", lambda: build(lambda s: (s, "z")), ArgumentError, ("str", "Node or value")),
    Bad("40d", lambda: build(lambda s: (s, None)), ArgumentError, ("NoneType", "Node or value")),
    Bad("40e", lambda: ig.Graph(torch.zeros(4), node(x())), ArgumentError, ("Tensor", "Node or value")),
    Bad("40f", lambda: build(lambda s: (s, split())), GraphError, ("has 2 outputs; pick one with split[0]",)),
    Bad("40g", lambda: build(lambda s: (node(s), node(s))), GraphError, ("InputNode",)),
    Bad("40h", lambda: with_condition(x(3, name="c2")), GraphError, ("ConditionNode",)),
    Bad("40i", lambda: build(lambda s: (s, [node(s), c()])), GraphError, ("condition can't be an output",)),
    Bad("41", lambda: mixed(lambda m: m.to("meta")), GraphError, ("parameters on cpu", "meta", "'a'", "'b'")),
    Bad("41b", lambda: mixed(lambda m: m.double()), GraphError, ("torch.float64", "'b'")),
    Bad("41c", lambda: IMAGE["convolution"], GraphError, ("no such node", "conv")),
    Bad("41d", lambda: ig.Flow(x()), ArgumentError, ("expected a Graph",)),
    Bad("41f", lambda: ig.Graph(s := x(), node(s), name=3), ArgumentError, ("name of a graph must be a str",)),
    Bad("41g", lambda: ig.Graph(s := x(), node(s), name=""), ArgumentError, ("name of a graph", "not empty")),
    Bad("41h", lambda: NAMED["h"], GraphError, ("Graph 'cinn'", "no such node; the graph has mix")),
    Bad("41e", lambda: ig.Inverse(ig.Haar), ArgumentError, ("already built",)),
)  # fmt: skip

MODULES = (
    Bad("43", lambda: coupling((1,)), GraphError, ("needs at least 2 channels: use Elementwise for a single element",)),
    Bad("43b", lambda: coupling((1, 4, 4)), GraphError,
        ("needs at least 2 channels", "Squeeze moves positions into channels", "MaskedCoupling splits the positions")),
    Bad("43c", lambda: ig.AllInOne((1, 4, 4), subnet=ig.nets.ConvNet(4)), GraphError, ("Squeeze", "MaskedCoupling")),
    Bad("43d", lambda: ig.MaskedCoupling((1,), **MLP), GraphError, ("use Elementwise for a single element",)),
    Bad("44", lambda: coupling(split=0), GraphError, ("at least one channel",)),
    Bad("44b", lambda: coupling(split=4), GraphError, ("at least one channel",)),
    Bad("44c", lambda: coupling(split=0.1), GraphError, ("parts of 0 and 4",)),
    Bad("45", lambda: coupling(split=1.0), GraphError, ("(0, 1)",)),
    Bad("45b", lambda: coupling(split="half"), ArgumentError, ("split must be a number",)),
    Bad("45c", lambda: coupling(sides=3), GraphError, ("sides must be 1 or 2",)),
    Bad("45d", lambda: coupling(transform=ig.Affine), ArgumentError, ("expected a transform",)),
    Bad("46", lambda: ig.Affine(clamp=0), GraphError, ("clamp", "positive and finite")),
    Bad("46b", lambda: ig.Affine(clamp=-1.0), GraphError, ("clamp", "positive and finite")),
    Bad("46c", lambda: ig.Affine(clamp=float("nan")), GraphError, ("clamp", "positive and finite")),
    Bad("46d", lambda: ig.VolumePreserving(clamp=float("inf")), GraphError, ("clamp", "positive and finite")),
    Bad("46e", lambda: ig.Affine(clamp="2"), ArgumentError, ("clamp must be a number",)),
    Bad("46f", lambda: ig.Affine(activation="relu"), GraphError, ("'atan', 'tanh', 'sigmoid'",)),
    Bad("47", lambda: coupling(subnet=4), ArgumentError, ("callable",)),
    Bad("47b", lambda: coupling(subnet=nn.Linear(2, 4)), ArgumentError, ("factory",)),
    Bad("47c", lambda: coupling(subnet=no_module_factory), ArgumentError, ("must return an nn.Module",)),
    Bad("48", lambda: node(x(), ig.Coupling, {"transform": AFFINE, "subnet": narrow_factory}, name="h"), GraphError,
        ("'h'", "returned (B, 3)", "expected (B, 4)")),
    Bad("48b", lambda: coupling(subnet=failing_factory), GraphError, ("it fails", "Linear tried on (B, 2)")),
    Bad("48c", lambda: coupling((4, 2, 2), subnet=ig.nets.MLP(4)), GraphError, ("MLP works on vectors",)),
    Bad("48d", lambda: coupling(subnet=ig.nets.ConvNet(4)), GraphError, ("ConvNet works on signals",)),
    Bad("49", lambda: coupling(subnet=tuple_factory), ArgumentError, ("returned a tuple", "one tensor")),
    Bad("50", lambda: coupling((4, 2, 2), ((3, 4, 4),)), GraphError,
        ("spatial sizes differ", "(3, 4, 4)", "a vector (C,) or of shape (C, 2, 2)")),
    Bad("50d", lambda: coupling((4,), ((3, 8, 8),)), GraphError,
        ("condition 0 of shape (3, 8, 8) for data of shape (2,)", "a network in a FeatureNode")),
    Bad("50e", lambda: ig.Elementwise((4,), ((3, 8, 8),), **MLP), GraphError,
        ("a condition of shape (3, 8, 8) for vectors", "FeatureNode")),
    Bad("50f", lambda: ig.Householder((4,), ((3, 8, 8),), subnet=ig.nets.ConvNet(4)), GraphError, ("FeatureNode",)),
    Bad("50g", lambda: ig.LowRankLinear((4,), ((3, 8, 8),), rank=1, subnet=ig.nets.MLP(4)), GraphError,
        ("conditions must be vectors (C,)", "FeatureNode")),
    Bad("50b", lambda: ig.Elementwise((4,), ((3,),), transform=AFFINE), GraphError, ("conditions need a subnet",)),
    Bad("50c", lambda: ig.Elementwise((4,), transform=AFFINE, subnet=ig.nets.MLP(4)), GraphError, ("0 conditions",)),
    Bad("51", lambda: ig.Haar((3, 5, 4)), GraphError, ("height 5 is odd",)),
    Bad("51b", lambda: ig.Squeeze((3, 4, 5)), GraphError, ("width 5 is odd",)),
    Bad("51c", lambda: ig.Squeeze((3, 4, 6), factor=3), GraphError, ("height 4 is not divisible by 3",)),
    Bad("52", lambda: ig.Haar((4,)), GraphError, ("(C, H, W)",)),
    Bad("53", lambda: ig.Haar((1, 2, 2), rebalance=0), GraphError, ("positive",)),
    Bad("53b", lambda: ig.Haar((1, 2, 2), rebalance=-1.0), GraphError, ("positive",)),
    Bad("53c", lambda: ig.Haar((1, 2, 2), rebalance=float("nan")), GraphError, ("positive",)),
    Bad("54", lambda: ig.Split((4,), sizes=(1, 2)), GraphError, ("1+2 != 4",)),
    Bad("54b", lambda: ig.Split((4,), sizes=4), ArgumentError, ("tuple of ints",)),
    Bad("54c", lambda: ig.Split((4,), sizes=(0, 4)), GraphError, ("positive",)),
    Bad("55", lambda: ig.Split((4,), sizes=(2, 2), dim=1), GraphError, ("dim must be in 0..0",)),
    Bad("55b", lambda: ig.Split((4,), sizes=(2, 2), dim=-1), GraphError, ("dim must be in 0..0",)),
    Bad("56", lambda: node((x(2, 4, name="a"), x(2, 5, name="b")), ig.Concat), GraphError, ("'a'", "'b'", "axis 0")),
    Bad("57", lambda: node(x(), ig.Concat), GraphError, ("at least two inputs",)),
    Bad("58", lambda: ig.Reshape((4,), shape=(3,)), GraphError, ("4", "3")),
    Bad("59", lambda: ig.Permute((3,), order=(0, 0, 1)), GraphError, ("not a permutation of 0..2",)),
    Bad("59b", lambda: ig.Permute((3,), order=(0, 1)), GraphError, ("not a permutation of 0..2",)),
    Bad("59c", lambda: ig.Permute((3,), seed=1.5), ArgumentError, ("seed must be an int",)),
    Bad("60", lambda: ig.FixedLinear((2,), matrix=[[1.0, 2.0], [2.0, 4.0]]), GraphError, ("not invertible (cond",)),
    Bad("60b", lambda: ig.FixedLinear((2,), matrix=[[1.0]]), GraphError, ("expected (2, 2)",)),
    Bad("60c", lambda: ig.Conv1x1((2, 4, 4), matrix=[[1.0, 2.0], [2.0, 4.0]]), GraphError, ("not invertible (cond",)),
    Bad("61", lambda: ig.LinearSpline(bins=0), GraphError, ("bins",)),
    Bad("61b", lambda: ig.RationalQuadraticSpline(bins=10, min_width=0.1), GraphError, ("min_width",)),
    Bad("62", lambda: ig.ActNorm((4,))((torch.zeros(2, 4),)), GraphError, ("call initialize(batch)",)),
    Bad("63", lambda: ig.ActNorm((4,)).initialize((torch.zeros(1, 4),)), NumericsError, ("at least two numbers",)),
    Bad("63b", lambda: ig.ActNorm((2,)).initialize((torch.tensor([[1.0, 2.0], [2.0, 2.0]]),)), NumericsError,
        ("channel 1 is constant",)),
    Bad("63c", lambda: ig.nets.MLP(hidden=0), GraphError, ("at least 1",)),
    Bad("63d", lambda: ig.nets.ConvNet(hidden=4, kernel=2), GraphError, ("kernel must be odd",)),
    Bad("63e", lambda: coupling(subnet=lambda i, o: nn.LazyLinear(o)), GraphError,
        ("LazyLinear with the lazy weight", "nn.Linear(in, out)")),
    Bad("63f", lambda: ig.FeatureNode(c(), nn.LazyLinear(2)), GraphError, ("lazy weight", "call it once")),
    Bad("63g", lambda: coupling(subnet=Scaled), GraphError, ("the plain tensor 'factor'", "register_buffer")),
    Bad("63h", lambda: ig.Permute((3,), seed=2**64), GraphError, ("below 2**64",)),
    Bad("63i", lambda: ig.Dequantize((3,), seed=2**63), GraphError, ("below 2**63",)),
    Bad("63j", lambda: ig.Dequantize((3,)).reseed(2**63), GraphError, ("below 2**63",)),
    Bad("63k", lambda: ig.reseed(3, 1), ArgumentError, ("expected a layer",)),  # type: ignore[arg-type]
    Bad("63l", lambda: ig.reseed(nn.Identity(), 2**63), GraphError, ("below 2**63",)),
    Bad("63m", lambda: MIXTURE.choose(seed="a"), ArgumentError, ("seed must be an int",)),  # type: ignore[arg-type]
    Bad("63n", lambda: MIXTURE.choose(seed=2**63), GraphError, ("below 2**63",)),
    Bad("63o", lambda: MIXTURE.choose(seed=1, count=0), GraphError, ("count must be at least 1",)),
    Bad("63p", lambda: ig.Softplus(check_domain="a"), ArgumentError, ("check_domain must be True or False",)),
    Bad("63q", lambda: ig.AllInOne((4,), subnet=ig.nets.MLP(4), seed=2**64), GraphError, ("below 2**64",)),
    Bad("63r", lambda: ig.AllInOne((4,), subnet=ig.nets.MLP(4), permutation=np.zeros(2)), GraphError,
        ("'soft' or 'hard'",)),
)  # fmt: skip

CALLS = (
    Bad("64", lambda: IMAGE(torch.zeros(2, 4, 8, 8), D), ShapeError,
        ("input 'x': expected (B, 3, 8, 8), got (2, 4, 8, 8)",)),
    Bad("64b", lambda: IMAGE.inverse(torch.zeros(2, 4, 8, 8), D), ShapeError,
        ("output 'conv': expected (B, 3, 8, 8)",)),
    Bad("64d", lambda: IMAGE(torch.zeros(2, 3, 8, 6), D), ShapeError, ("axis 3 has size 6 instead of 8",)),
    Bad("64e", lambda: IMAGE(torch.zeros(2, 8, 8, 3), D), ShapeError,
        ("channels come first, write x.permute(0, 3, 1, 2)",)),
    Bad("64f", lambda: NAMED(torch.zeros(2, 3)), ShapeError, ("Graph 'cinn'", "expected (B, 4), got (2, 3)")),
    Bad("64c", lambda: IMAGE(torch.zeros(2, 3, 64), D), ShapeError, ("3 instead of 4",)),
    Bad("65", lambda: IMAGE(X[0], D), ShapeError, ("did you forget the batch dimension?", "x.unsqueeze(0)")),
    Bad("66", lambda: IMAGE(X, torch.zeros(3, 10)), ShapeError, ("'x': batch 2", "'digit': batch 3")),
    Bad("66c", lambda: IMAGE(X, D[:1]), ShapeError,
        ("'x': batch 2, condition 'digit': batch 1", "write digit.expand(2, -1), or use graph.bind(digit)")),
    Bad("66d", lambda: coupling((4,), ((3,),))((torch.zeros(2, 4),), (torch.zeros(1, 3),)), ShapeError,
        ("write condition.expand(2, -1)",)),
    Bad("66b", lambda: PAIR((PAIRS[0], torch.zeros(1, 2)), GIVEN), ShapeError, ("same batch size",)),
    Bad("67", lambda: PAIR(PAIRS[:1], GIVEN), ShapeError, ("1 input\n", "missing input")),
    Bad("67b", lambda: PAIR((*PAIRS, PAIRS[0]), GIVEN), ShapeError, ("surplus input", "input 'a', input 'b'")),
    Bad("67c", lambda: PAIR(PAIRS[0], GIVEN), InputTypeError, ("expected a tuple of 2 tensors",)),
    Bad("68", lambda: PAIR(PAIRS, GIVEN[:1]), ShapeError,
        ("1 condition\n", "(condition 'd', condition 'e'): missing condition: call graph((a, b), (d, e))")),
    Bad("68b", lambda: PAIR(PAIRS, (*GIVEN, D)), ShapeError, ("surplus condition",)),
    Bad("68c", lambda: PAIR(PAIRS, GIVEN[::-1]), ShapeError, ("condition 'd': expected (B, 3), got (2, 5)",)),
    Bad("68d", lambda: IMAGE(X), InputTypeError,
        ("no conditions", "condition 'digit' is missing: call graph(x, digit)")),
    Bad("68f", lambda: IMAGE.inverse(X), InputTypeError, ("digit' is missing: call graph.inverse(z, digit)",)),
    Bad("68g", lambda: IMAGE.initialize(X), InputTypeError, ("digit' is missing: call graph.initialize(x, digit)",)),
    Bad("68h", lambda: IMAGE.bind(()), InputTypeError, ("Graph.bind", "digit' is missing: call graph.bind(digit)")),
    Bad("68i", lambda: IMAGE(X, None), InputTypeError, ("condition 'digit' is missing",)),
    Bad("68j", lambda: ig.reversible(IMAGE)(X), InputTypeError, ("call graph(x, digit)",)),
    Bad("68k", lambda: ig.Inverse(IMAGE)(X), InputTypeError, ("call module(conv, digit)",)),
    Bad("68l", lambda: PAIR(PAIRS), ShapeError,
        ("condition 'd' and condition 'e' are missing: call graph((a, b), (d, e))",)),
    Bad("68m", lambda: PAIR.inverse(PAIRS), ShapeError, ("call graph.inverse((z0, z1), (d, e))",)),
    Bad("68n", lambda: PAIR.bind(()), ShapeError, ("call graph.bind((d, e))",)),
    Bad("68o", lambda: ig.Flow(IMAGE).log_prob(X), InputTypeError, ("Flow.log_prob", "call flow.log_prob(x, digit)")),
    Bad("68p", lambda: ig.Flow(IMAGE).sample(3), InputTypeError, ("Flow.sample", "call flow.sample(3, digit)")),
    Bad("68q", lambda: ig.Flow(PAIR).rsample(3), ShapeError, ("call flow.rsample(3, (d, e))",)),
    Bad("68r", lambda: ig.Flow(IMAGE).loss(X), InputTypeError, ("Flow.loss", "call flow.loss(x, digit)")),
    Bad("68s", lambda: ig.Flow(IMAGE).denoise(X, sigma=0.5), InputTypeError,
        ("call flow.denoise(x, digit, sigma=0.5)",)),
    Bad("68t", lambda: ig.diagnose(IMAGE, X), InputTypeError, ("call diagnose(graph, x, digit)",)),
    Bad("68u", lambda: coupling((4,), ((3,),))((torch.zeros(2, 4),)), ShapeError,
        ("Coupling", "condition 0 is missing: call layer((x,), (c,))")),
    Bad("68v", lambda: coupling((4,), ((3,), (2,))).inverse((torch.zeros(2, 4),)), ShapeError,
        ("condition 0 and condition 1 are missing: call layer.inverse((z,), (c0, c1))",)),
    Bad("68w", lambda: IMAGE(inputs=X, conditions=D), InputTypeError,
        ("a call with inputs=..., conditions=...", "given by their place: call graph(x, digit)")),
    Bad("68x", lambda: PAIR(PAIRS, *GIVEN), InputTypeError,
        ("a call with 3 arguments", "several of either as a tuple: call graph((a, b), (d, e))")),
    Bad("68y", lambda: IMAGE.inverse(X, context=D), InputTypeError,
        ("a call with context=...", "call graph.inverse(z, digit)")),
    Bad("68z", lambda: ig.reversible(IMAGE)(x=X), InputTypeError, ("a call with x=...", "call graph(x, digit)")),
    Bad("68za", lambda: ig.Inverse(IMAGE)(X, D, True), InputTypeError, ("call module(conv, digit)",)),
    Bad("68zd", lambda: IMAGE.inverse(X, D, D), InputTypeError,
        ("a call with 3 arguments", "call graph.inverse(z, digit)")),
    Bad("68zb", lambda: ig.Permute((4,))((torch.zeros(2, 4),), rev=True), InputTypeError, ("call layer((x,))",)),
    Bad("68zc", lambda: NAMED(), InputTypeError, ("input 'x': NoneType", "expected a torch.Tensor")),
    Bad("68e", lambda: ig.Permute((4,))((torch.zeros(2, 4),), (D,)), ShapeError, ("surplus condition",)),
    Bad("69", lambda: IMAGE(np.zeros((2, 3, 8, 8)), D), InputTypeError, ("ndarray", "torch.from_numpy")),
    Bad("69b", lambda: IMAGE([X], D), InputTypeError, ("list", "pass the tensor itself")),
    Bad("69c", lambda: IMAGE("x", D), InputTypeError, ("str", "torch.Tensor")),
    Bad("69d", lambda: IMAGE(None, D), InputTypeError, ("NoneType",)),
    Bad("69e", lambda: IMAGE(X, 7), InputTypeError, ("condition 'digit'", "int")),
    Bad("70", lambda: IMAGE(X.int(), D), InputTypeError, ("torch.int32", "floating-point")),
    Bad("70b", lambda: IMAGE(X.bool(), D), InputTypeError, ("torch.bool", "floating-point")),
    Bad("70c", lambda: IMAGE(X.to(torch.complex64), D), InputTypeError, ("torch.complex64", "real")),
    Bad("70e", lambda: IMAGE(X, torch.tensor([3, 5])), InputTypeError,
        ("condition 'digit': torch.int64", "class labels with torch.nn.functional.one_hot(digit, 10).float()")),
    Bad("70d", lambda: IMAGE(X, D.long()), InputTypeError, ("one_hot", "condition 'digit'")),
    Bad("71", lambda: IMAGE(X.double(), D), InputTypeError, ("torch.float64", "expected torch.float32", "silently")),
    Bad("71c", lambda: NAMED(torch.zeros(2, 4).double()), InputTypeError, ("Graph 'cinn'", "expected torch.float32")),
    Bad("71d", lambda: cast_on_its_own()(torch.zeros(2, 4)), InputTypeError,
        ("node 'b' (Coupling)", "torch.float64 on cpu", "torch.float32 on cpu", "call .to(...) on the whole graph")),
    Bad("71b", lambda: IMAGE(X, D.half()), InputTypeError, ("condition 'digit'", "torch.float16")),
    Bad("72", lambda: IMAGE(X.to("meta"), D), InputTypeError, ("on meta", "expected cpu")),
    Bad("72b", lambda: IMAGE(X, D.to("meta")), InputTypeError, ("condition 'digit'", "on meta")),
    Bad("74", lambda: IMAGE(sparse_image(), D), InputTypeError, ("sparse", "dense")),
    Bad("74b", lambda: IMAGE(torch.nested.nested_tensor(list(X), layout=torch.jagged), D), InputTypeError,
        ("nested", "dense")),
    Bad("76", finite, NumericsError, ("'quiet'", "NaN or infinite")),
    Bad("77", lambda: logit(-0.1), NumericsError, ("outside the domain of 'logit': min -0.1",)),
    Bad("77b", lambda: logit(1.5), NumericsError, ("outside the domain of 'logit': max 1.5",)),
    Bad("79", lambda: wrong(lambda t: (t, t.sum(1))), ShapeError, ("returned a Tensor", "a tuple of 1")),
    Bad("79b", lambda: wrong(lambda t: ((t, t), t.sum(1))), ShapeError, ("returned 2 values",)),
    Bad("79c", lambda: wrong(lambda t: ((t[:, :3],), t.sum(1))), ShapeError, ("(2, 3)", "declared (B, 4)")),
    Bad("79d", lambda: wrong(lambda t: ((t,), t.sum())), ShapeError, ("log_det", "shape (B,)")),
    Bad("79e", lambda: wrong(lambda t: ((t,), 0.0)), ShapeError, ("log_det: float",)),
    Bad("79f", lambda: wrong(lambda t: ((t,), t.double().sum(1))), ShapeError, ("log_det", "torch.float64")),
)  # fmt: skip

TABLE = (*DECLARING, *BUILDING, *MODULES, *CALLS)


@pytest.mark.parametrize("bad", TABLE, ids=[bad.number for bad in TABLE])
def test_errors_have_three_lines(bad: Bad) -> None:
    with pytest.raises(ig.InvgraphError) as caught:
        bad.mistake()
    told = str(caught.value)
    assert type(caught.value) is bad.error, told
    assert len(told.splitlines()) == 3, told
    for words in bad.words:
        assert words in told, told


def test_the_table_is_long_enough_and_each_number_is_its_own() -> None:
    numbers = [bad.number for bad in TABLE]
    assert len(numbers) == len(set(numbers))
    assert len(numbers) >= 60


@pytest.mark.parametrize(
    ("own", "builtin"),
    [
        (GraphError, ValueError),
        (ArgumentError, TypeError),
        (ShapeError, ValueError),
        (InputTypeError, TypeError),
        (ig.CheckpointError, RuntimeError),
        (NumericsError, ArithmeticError),
        (ig.ContractError, AssertionError),
        (ig.DependencyError, ImportError),
    ],
)
def test_errors_derive_from_the_builtin_that_a_user_expects(own: type, builtin: type) -> None:
    assert issubclass(own, builtin)
    assert issubclass(own, ig.InvgraphError)
    error = own("place", "thing", "advice")
    assert copy.copy(error).args == error.args
    assert str(error) == "place\n  given: thing\n  advice"


def test_a_generator_of_outputs_is_a_tuple() -> None:  # 40
    start = x()
    parts = node(start, ig.Split, {"sizes": (1, 3)})
    graph = ig.Graph(start, (value for value in parts))
    zs, _ = graph(torch.zeros(2, 4))
    assert isinstance(zs, tuple)
    assert len(zs) == 2


def test_a_leaf_that_requires_grad_is_never_changed() -> None:  # 73
    leaf = torch.randn(2, 3, 8, 8, requires_grad=True)
    before, version = leaf.detach().clone(), leaf._version
    z, log_det = IMAGE(leaf, D)
    IMAGE.inverse(z, D)
    (z.sum() + log_det.sum()).backward()
    assert torch.equal(leaf, before)
    assert leaf._version == version


def test_an_empty_batch_gives_empty_results() -> None:  # 75
    z, log_det = IMAGE(X[:0], D[:0])
    assert z.shape == (0, 3, 8, 8)
    assert log_det.shape == (0,)


def test_without_check_finite_nan_passes_through() -> None:  # 76
    z, _ = IMAGE(X + float("nan"), D)
    assert bool(z.isnan().all())


def test_check_finite_lets_finite_numbers_pass() -> None:
    start = x()
    graph = ig.Graph(start, node(start), check_finite=True)
    assert graph(torch.zeros(2, 4))[0].shape == (2, 4)


def test_a_graph_in_a_graph_is_named_by_its_node() -> None:
    start = x()
    inner = named()
    outer = ig.Graph(start, node(start, inner, name="inside"), name="whole")
    with pytest.raises(ShapeError, match="Graph 'whole'"):
        outer(torch.zeros(2, 3))
    with pytest.raises(ShapeError, match=r"node 'inside' \(Graph\)"):
        inner(torch.zeros(2, 3))


def test_the_name_of_a_graph_is_also_that_of_its_runners() -> None:
    with pytest.raises(ShapeError, match="Reversible 'cinn'"):
        ig.reversible(NAMED)(torch.zeros(2, 3))
    start, given = x(), c()
    graph = ig.Graph(start, node(start, ig.Coupling, MLP, conditions=given), given, name="cinn")
    with pytest.raises(ShapeError, match=r"Graph 'cinn'\.bind"):
        graph.bind(torch.zeros(2, 4))
    with pytest.raises(ShapeError, match=r"Graph 'cinn'\.bind"):
        graph.bind(torch.zeros(2, 3))(torch.zeros(7, 3, 4))


def test_a_condition_that_is_a_list_of_labels_is_refused_as_such() -> None:
    with pytest.raises(InputTypeError, match="condition 'digit': list"):
        IMAGE(X, [3, 5])


class Squeezed(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).squeeze()


@pytest.mark.parametrize("backend", [None, "eager"])
def test_features_of_other_shapes_than_declared_are_named(backend: str | None) -> None:
    def build(network: nn.Module) -> ig.Graph:
        x, c = ig.InputNode(2, name="x"), ig.ConditionNode(2, name="c")
        args = {"transform": ig.Affine(clamp=1.0), "subnet": ig.nets.MLP(8)}
        node = ig.Node(x, ig.Coupling, args, conditions=ig.FeatureNode(c, network, name="f"))
        graph = ig.Graph(x, node, c)
        return graph if backend is None else graph.compile(backend=backend)

    graph = build(Squeezed(2, 3))
    assert graph(torch.zeros(4, 2), torch.zeros(4, 2))[0].shape == (4, 2)
    one = torch.zeros(1, 2)
    calls = [lambda: graph(one, one), lambda: graph.inverse(one, one), lambda: graph.bind(one)]
    if backend is None:
        calls += [lambda: ig.reversible(graph)(one, one), lambda: ig.Flow(graph).sample(3, one)]
    for call in calls:
        with pytest.raises(ig.ShapeError, match=r"'f' \(Squeezed\)\n.*of shapes \(3,\)\n.*\(B, 3\).*batch axis"):
            call()
    graph = build(nn.Linear(2, 3))
    graph.layers["f"] = nn.Linear(2, 5)
    with pytest.raises(ig.ShapeError, match=r"'f' \(Linear\)\n.*of shapes \(1, 5\)\n.*declared \(B, 3\)"):
        graph(one, one)


def test_the_number_of_features_is_named() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.count = 2

        def forward(self, x: torch.Tensor) -> Any:
            return (x, x)[: self.count]

    x, c, network = ig.InputNode(2, name="x"), ig.ConditionNode(2, name="c"), Two()
    args = {"transform": ig.Affine(clamp=1.0), "subnet": ig.nets.MLP(8)}
    f = ig.FeatureNode(c, network, name="f")
    graph = ig.Graph(x, ig.Node(x, ig.Coupling, args, conditions=[f[0], f[1]]), c)
    network.count = 1
    with pytest.raises(ig.ShapeError, match=r"of shapes \(3, 2\)\n.*declared \(B, 2\), \(B, 2\)"):
        graph(torch.zeros(3, 2), torch.zeros(3, 2))
