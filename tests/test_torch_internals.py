"""Each function that uses private names of torch does what it says: a new torch that changes them shows here."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

from invgraph import torch_internals as internals


def two_linears() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))


def nothing(*_: object) -> None:
    return None


def test_is_transformed() -> None:
    seen: list[bool] = []

    def look(x: Tensor) -> Tensor:
        seen.append(internals.is_transformed())
        return x * 1.0

    x = torch.ones(2)
    look(x)
    torch.vmap(look)(x)
    torch.func.grad(lambda x: look(x).sum())(x)
    with forward_ad.dual_level():
        look(x)
    look(x)
    assert seen == [False, True, True, True, False]


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:DeprecationWarning")
def test_is_eager() -> None:
    seen: list[bool] = []

    def look(x: Tensor) -> Tensor:
        seen.append(internals.is_eager())
        return x * 1.0

    x = torch.ones(2)
    look(x)
    torch.vmap(look)(x)
    torch.jit.trace(look, x, check_trace=False)
    assert seen == [True, False, False]
    assert torch.compile(lambda x: x * internals.is_eager(), backend="eager")(x).equal(torch.zeros(2))


def test_is_plain() -> None:
    class Other(Tensor):
        pass

    x = torch.ones(2)
    assert internals.is_plain(x)
    assert internals.is_plain(nn.Parameter(x))
    assert not internals.is_plain(x.as_subclass(Other))
    with torch.autocast("cpu"):
        assert not internals.is_plain(x)
    torch.vmap(lambda row: row * (not internals.is_plain(row)))(x.view(2, 1))


def test_is_batched_grad() -> None:
    seen: list[bool] = []
    x = torch.ones(2, requires_grad=True)
    y = x * 1.0
    y.register_hook(lambda grad: seen.append(internals.is_batched_grad(grad)))
    torch.autograd.grad(y, x, torch.eye(2)[0], retain_graph=True)
    torch.autograd.grad(y, x, torch.eye(2), is_grads_batched=True)
    assert seen == [False, True]


def test_has_data() -> None:
    x, seen = torch.ones(3), []
    with torch._subclasses.FakeTensorMode() as mode:
        fake = mode.from_tensor(x)
    assert [internals.has_data(value) for value in (x, x.to("meta"), fake)] == [True, False, False]

    def look(value: Tensor) -> Tensor:
        seen.append(internals.has_data(value))
        return value.sum()

    torch.func.grad(look)(x)
    torch.vmap(look)(x)
    torch.vmap(torch.func.grad(look))(x)
    assert seen == [True, False, False]


def test_is_view() -> None:
    x = torch.ones(4)
    assert internals.is_view(x[:2])
    assert not internals.is_view(x)
    assert not internals.is_view(x[:2].clone())


def test_tensor_stores() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    found = {
        id(tensor)
        for store in internals.tensor_stores(net.modules())
        for tensor in store.values()
        if tensor is not None
    }
    assert found == {id(tensor) for tensor in (*net.parameters(), *net.buffers())}
    twice = nn.Sequential(net, net)
    assert len(list(internals.tensor_stores(twice.modules()))) == 2 * len(list(twice.modules()))
    part = net[0]._replicate_for_data_parallel()
    part._former_parameters = {"weight": net[0].weight}
    assert [tensor is net[0].weight for store in internals.tensor_stores([part]) for tensor in store.values()] == [True]


def test_floating_tensor() -> None:
    net = two_linears()
    assert any(internals.floating_tensor(net) is parameter for parameter in net.parameters())
    assert internals.floating_tensor(nn.ReLU()) is None
    holder = nn.Module()
    holder.register_buffer("steps", torch.zeros((), dtype=torch.int64))
    holder.register_buffer("scale", torch.ones(()))
    assert internals.floating_tensor(holder) is holder.scale


def test_version() -> None:
    x = torch.ones(2)
    before = internals.version(x)
    x.add_(1)
    assert internals.version(x) == before + 1


def test_has_global_hooks() -> None:
    assert not internals.has_global_hooks()
    for register in ("forward_hook", "forward_pre_hook", "full_backward_hook", "full_backward_pre_hook"):
        handle = getattr(nn.modules.module, f"register_module_{register}")(nothing)
        assert internals.has_global_hooks(), register
        handle.remove()
    assert not internals.has_global_hooks()


REGISTER = ("register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook",
            "register_full_backward_pre_hook")  # fmt: skip


@pytest.mark.parametrize("register", REGISTER)
def test_has_hooks(register: str) -> None:
    layer = nn.Linear(2, 2)
    assert not internals.has_hooks(layer)
    handle = getattr(layer, register)(nothing)
    assert internals.has_hooks(layer)
    handle.remove()
    assert not internals.has_hooks(layer)


@pytest.mark.parametrize("register", REGISTER)
def test_hook_stores(register: str) -> None:
    net = two_linears()
    forward, backward = internals.hook_stores(net)
    assert not any((*forward, *backward))
    handle = getattr(net[2], register)(nothing)
    assert (any(forward), any(backward)) == ("backward" not in register, "backward" in register)
    handle.remove()
    handle = getattr(nn.modules.module, register.replace("register", "register_module"))(nothing)
    assert (any(forward), any(backward)) == ("backward" not in register, "backward" in register)
    handle.remove()


def test_child_store_has_a_child_under_all_of_its_names() -> None:
    layer = nn.Linear(2, 2)
    net = nn.Sequential(layer, nn.Tanh(), layer)
    store = internals.child_store(net)
    assert list(store) == ["0", "1", "2"]
    net[1] = other = nn.ReLU()
    assert store["1"] is other


def changed(how: str, net: nn.Sequential) -> Any:
    """Change the last layer; what undoes a change that outlives the network is returned."""
    layer = net[2]
    if how == "hook":
        layer.register_forward_hook(nothing)
    elif how == "global hook":
        return nn.modules.module.register_module_forward_hook(nothing)
    elif how == "instance":
        layer.forward = layer.forward
    elif how == "class":
        layer.__class__ = type("Other", (nn.Linear,), {"forward": lambda self, x: x})
    elif how == "compiled":
        layer.compile(backend="eager")
    elif how == "parameter":
        layer.weight = nn.Parameter(layer.weight.detach())
    elif how == "part":
        net[2] = nn.Linear(3, 2)
    return None


UNTOUCHED = pytest.mark.parametrize("how", ["hook", "global hook", "instance", "class", "compiled"])


@UNTOUCHED
def test_is_untouched(how: str) -> None:
    net = two_linears()
    assert internals.is_untouched(net[2], nn.Linear.forward)
    handle = changed(how, net)
    assert not internals.is_untouched(net[2], nn.Linear.forward)
    if handle:
        handle.remove()


@pytest.mark.parametrize("how", ["hook", "global hook", "compiled", None])
def test_as_function(how: str | None) -> None:
    net, x = two_linears(), torch.randn(4, 2)
    assert internals.as_function(net[0])(x).equal(net[0](x))
    handle = None if how is None else changed(how, net)
    assert (internals.as_function(net[2]) is net[2]) is (how is not None)
    if handle:
        handle.remove()


def test_as_function_of_a_class_with_calls_of_its_own() -> None:
    class Own(nn.Linear):
        def __call__(self, *args: Any) -> Any:
            return super().__call__(*args) + 1

    net = Own(2, 2)
    assert internals.as_function(net) is net


@UNTOUCHED
def test_own_weights(how: str) -> None:
    net = two_linears()
    own = internals.own_weights(net[2], nn.Linear.forward)
    assert own is not None
    assert own[0] is net[2].weight
    assert own[1] is net[2].bias
    handle = changed(how, net)
    assert internals.own_weights(net[2], nn.Linear.forward) is None
    if handle:
        handle.remove()


def test_own_weights_that_are_no_parameters() -> None:
    """Replicas of data parallel, FSDP and hypernetworks have such."""
    for name in ("weight", "bias"):
        layer = nn.Linear(2, 3)
        value = getattr(layer, name).detach()
        delattr(layer, name)
        setattr(layer, name, value)
        assert internals.own_weights(layer, nn.Linear.forward) is None
    assert internals.own_weights(nn.Linear(2, 3, bias=False), nn.Linear.forward) is not None


def test_has_own_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 3)
    assert internals.has_own_convolution(one)
    one._conv_forward = lambda *arguments: None  # type: ignore[method-assign]
    assert not internals.has_own_convolution(one)
    assert internals.has_own_convolution(other)
    monkeypatch.setattr(nn.Conv2d, "_conv_forward", lambda *arguments: None)
    assert not internals.has_own_convolution(other)


def test_weight_norm_is_told_from_other_parametrizations() -> None:
    by_weight, by_spectrum = (
        norm(nn.Linear(2, 3)).parametrizations.weight[0]
        for norm in (nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm)
    )
    assert type(by_weight) is internals.WEIGHT_NORM
    assert type(by_spectrum) is not internals.WEIGHT_NORM


@pytest.mark.parametrize("how", ["hook", "global hook", "instance", "class", "parameter", "part"])
def test_snapshot(how: str) -> None:
    net = two_linears()
    snapshot = internals.Snapshot(net)
    with torch.no_grad():
        net[0].weight.add_(1)
    assert snapshot.holds()
    handle = changed(how, net)
    assert not snapshot.holds()
    if handle:
        handle.remove()


def test_uncached_weights() -> None:
    net = torch.nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))
    with torch.nn.utils.parametrize.cached():
        kept = net.weight
        with internals.uncached_weights():
            assert net.weight is not kept
        assert net.weight is kept


def test_replace_children() -> None:
    net, other = two_linears(), nn.Tanh()
    copied = copy.copy(net)
    internals.replace_children(copied, {"1": other})
    assert copied[1] is other
    assert copied[0] is net[0]
    assert net[1] is not other


def test_replace_buffers() -> None:
    norm = nn.BatchNorm1d(2)
    copied = copy.copy(norm)
    internals.replace_buffers(copied, {"running_mean": torch.ones(3)})
    assert copied.get_buffer("running_mean").tolist() == [1, 1, 1]
    assert norm.get_buffer("running_mean").tolist() == [0, 0]
    assert copied.running_var is norm.running_var


def test_batch_norms() -> None:
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, nn.InstanceNorm1d)
    net = nn.Sequential(*(kind(2) for kind in kinds), nn.LayerNorm(2))
    assert [type(part) for part in internals.batch_norms(net.modules())] == list(kinds)


def test_compile_calls() -> None:
    layer, calls = nn.Linear(2, 2), list[str]()
    layer.register_forward_hook(lambda *_: calls.append("hook"))

    def wrap(function: Any) -> Any:
        def call(*args: Any) -> Any:
            calls.append("wrapped")
            return function(*args)

        return call

    internals.compile_calls(layer, wrap)
    layer(torch.ones(1, 2))
    assert calls == ["wrapped", "hook"]
    copy.deepcopy(layer)(torch.ones(1, 2))
    assert calls[2:] == ["hook"]


def test_constant_floats() -> None:
    compilations = list[str]()

    def count(graph: Any, inputs: Any) -> Any:
        compilations.append("one")
        return graph

    def times(x: Tensor, factor: float) -> Tensor:
        return x * factor

    run = torch.compile(times, backend=count, fullgraph=True)
    with internals.constant_floats():
        for factor in (1.5, 2.5, 3.5):
            assert torch.equal(run(torch.ones(2), factor), torch.full((2,), factor))
    assert len(compilations) == 3


def test_hook_guards() -> None:
    """After a break in a loop each call of a module is compiled on its own, for all modules of one structure."""
    net = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    seen: list[int] = []
    net[1].register_full_backward_hook(lambda *_: seen.append(1))

    def run(x: Tensor) -> Tensor:
        for layer in net:
            torch._dynamo.graph_break()
            x = layer(x)
        return x

    with internals.hook_guards():
        torch.compile(run, backend="eager")(torch.ones(1, 2, requires_grad=True)).sum().backward()
    assert seen == [1]


def test_inductor_modes() -> None:
    modes = internals.inductor_modes()
    assert "triton.cudagraphs" in modes["reduce-overhead"]
    assert "max-autotune" in modes


def test_compile_region() -> None:
    region = internals.compile_region(lambda x: (x + 1,))
    assert torch.equal(region(torch.ones(2))[0], torch.full((2,), 2.0))
    run = torch.compile(lambda x: region(region(x)[0])[0], backend="aot_eager", fullgraph=True)
    assert torch.equal(run(torch.ones(2)), torch.full((2,), 3.0))


@pytest.mark.slow
# Torch itself does what it warns of.
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
def test_aoti_package(tmp_path: Path) -> None:
    x = torch.randn(3, 2)
    net = two_linears()
    with torch.no_grad():
        program = torch.export.export(net, (x,))
        path = internals.aoti_package(program, str(tmp_path / "net.pt2"))
        torch.testing.assert_close(torch._inductor.aoti_load_package(path)(x), net(x))


def test_exported_module() -> None:
    seen = []

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = two_linears()

        def forward(self, x: Tensor) -> Tensor:
            seen.append(internals.exported_module())
            return self.inner(x)  # type: ignore[no-any-return]

    outer, x = Outer(), torch.randn(3, 2)
    outer(x)
    with torch.no_grad():
        torch.export.export(outer, (x,))
    assert seen[0] is None
    assert isinstance(seen[-1], nn.Module)
    assert dict(seen[-1].named_children()).keys() == {"inner"}


def test_each_function_has_a_test() -> None:
    kinds = [value for value in vars(internals).values() if isinstance(value, (FunctionType, type))]
    own = [value.__name__ for value in kinds if value.__module__ == internals.__name__]
    named = {name.removeprefix("test_") for name, value in globals().items() if isinstance(value, FunctionType)}
    assert {name.lower() for name in (*own, "has_global_hooks")} <= named


def test_packs_saved_tensors() -> None:
    seen: list[bool] = []

    def note(x: Tensor) -> Tensor:
        seen.append(internals.packs_saved_tensors())
        return x.exp()

    note(torch.zeros(1, requires_grad=True))
    checkpoint(note, torch.zeros(1, requires_grad=True), use_reentrant=False)
    with torch.autograd.graph.save_on_cpu():
        note(torch.zeros(1, requires_grad=True))
    assert seen == [False, True, True]


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch uses it for its own derivatives
def test_forward_mode() -> None:
    seen: list[Tensor | None] = []

    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            for enter in (nullcontext, internals.forward_mode):
                with enter(), forward_ad.dual_level():
                    seen.append(forward_ad.unpack_dual(2 * forward_ad.make_dual(x.detach(), torch.ones(1))).tangent)
            return 2 * x

    Doubled.apply(torch.zeros(1, requires_grad=True))
    assert seen == [None, torch.tensor([2.0])]


def test_all_true() -> None:
    def check(x: torch.Tensor) -> torch.Tensor:
        assert internals.all_true(x.isnan().logical_not())
        return x.sum()

    x = torch.ones(3, 2)
    assert internals.all_true(x > 0)
    assert internals.all_true(torch.zeros(0, dtype=torch.bool))
    assert not internals.all_true(x > x.cumsum(0) - 1)
    torch.testing.assert_close(torch.vmap(check)(x), x.sum(1))
    with pytest.raises(AssertionError):
        torch.vmap(check)(x.log().div(x - x))


def test_validates_arguments() -> None:
    for validates in (True, False):
        own = torch.distributions.Uniform(torch.zeros(2), torch.ones(2), validate_args=validates)
        for base in (own, torch.distributions.Independent(own, 1), own.expand((3, 2))):
            assert internals.validates_arguments(base) == validates
            if validates:
                with pytest.raises(ValueError, match="support"):
                    base.log_prob(torch.full((3, 2), 2.0))
            else:
                assert base.log_prob(torch.full((3, 2), 2.0)).isinf().all()


@pytest.mark.parametrize("assign", [False, True])
def test_load_state(assign: bool) -> None:
    """It does what load_state_dict does, with the hooks of every module, and the same refusals."""

    def build(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        layers = nn.ModuleDict({"a": nn.Linear(2, 3), "b": nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1))})
        layers.register_parameter("own", nn.Parameter(torch.randn(2)))
        return layers

    source, ours, theirs = build(0), build(1), build(1)
    state, calls = source.state_dict(), []
    for part in ours.modules():
        part.register_load_state_dict_post_hook(lambda module, keys: calls.append(type(module).__name__))
    internals.load_state(ours, state, strict=True, assign=assign)
    theirs.load_state_dict(state, assign=assign)
    assert calls == ["Linear", "BatchNorm1d", "Linear", "Sequential", "ModuleDict"]
    for name, tensor in ours.state_dict().items():
        assert torch.equal(tensor, theirs.state_dict()[name])
        assert (tensor.data_ptr() == state[name].data_ptr()) == assign
    state["b.new"] = state.pop("a.weight")
    internals.load_state(ours, state, strict=False, assign=assign)
    with pytest.raises(RuntimeError, match=r"missing keys: a\.weight; unexpected keys: b\.new"):
        internals.load_state(ours, state, strict=True, assign=assign)
    state["a.weight"] = torch.zeros(7)
    with pytest.raises(RuntimeError, match=r"size mismatch for a\.weight"):
        internals.load_state(ours, state, strict=False, assign=assign)


def test_load_state_of_a_class_with_its_own_method() -> None:
    class Own(nn.Linear):
        def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
            self.loaded = True
            return super().load_state_dict(*args, **kwargs)

    own = Own(1, 1)
    internals.load_state(own, own.state_dict(), strict=True, assign=False)
    assert own.loaded
