"""Scripts for FrEIA, rewritten: native where that can be done, with the same numbers in any case."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from freia_scripts import PARAMS, SCRIPTS, run

import invgraph as ig
from invgraph.freia.rewrite.__main__ import main

pytest.importorskip("libcst")

from invgraph.freia.rewrite.script import rewrite

NATIVE = {
    "bounded", "by_name", "checkpoints_by_key", "conditions_per_scale", "double_precision", "inverse_problem",
    "moons_sequence", "moving_average", "multiscale_sequence", "own_all_in_one", "own_coupling", "own_layers",
    "residual_flow", "reverse_kl", "several_ends", "toy_inn", "wrapped_model",
}  # fmt: skip
"""Scripts that become native; the others use what native graphs do not have, and say so."""


@pytest.mark.parametrize("path", PARAMS)
def test_a_rewritten_script_gives_the_same_numbers(path: Path, tmp_path: Path) -> None:
    result = rewrite(path.read_text())
    rewritten = tmp_path / path.name
    rewritten.write_text(result.code)
    assert "import FrEIA" not in result.code
    assert ("ig.Graph(" in result.code) == result.native
    expected, got = run(path, ours=True), run(rewritten, ours=False)
    for theirs, mine in zip(expected["results"], got["results"], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)  # float32, in other kernels


@pytest.mark.slow
def test_scripts_become_native_where_their_networks_allow_it() -> None:
    results = {path.stem: rewrite(path.read_text()) for path in SCRIPTS}
    assert {name for name, result in results.items() if result.native} == NATIVE
    for result in results.values():
        assert result.code.count("# invgraph: ") == result.notes
        assert result.native or result.notes


def rewritten(body: str) -> str:
    head = "import FrEIA.framework as Ff\nimport FrEIA.modules as Fm\n"
    return rewrite(head + body).code


GRAPH = """x, c = Ff.InputNode(1, 4, 4, name="x"), Ff.ConditionNode(3, name="c")
flat = Ff.Node(x, Fm.Flatten, {}, name="a.b")
split = Ff.Node(flat.out0, Fm.Split, {"section_sizes": [4, 12]})
wide = Ff.Node(split, Fm.Reshape, {"output_dims": (1, 2, 2)})
glow = Ff.Node((split, 1), Fm.GLOWCouplingBlock, {"subnet_constructor": f}, c, "glow")
inn = Ff.GraphINN([x, c, flat, split, wide, glow, Ff.OutputNode(glow), Ff.OutputNode(wide)], verbose=False)
"""


def test_nodes_and_calls_are_written_in_the_native_way() -> None:
    code = rewritten(
        GRAPH + "z, j = inn([data], c=[labels])\nx = inn(z, c=labels, rev=True, jac=False)[0]\ninn(z, rev=back)\n"
    )
    for line in (
        "import invgraph as ig",
        "import invgraph.freia.modules as Fm",
        'x, c = ig.InputNode(1, 4, 4, name="x"), ig.ConditionNode(3, name="c")',
        'flat = ig.Node(x, ig.Flatten, name="a_b")',
        'split = ig.Node(flat[0], ig.Split, {"sizes": [4, 12]})',
        'wide = ig.freia.node(split, Fm.Reshape, {"output_dims": (1, 2, 2)})',
        'glow = ig.freia.node(split[1], Fm.GLOWCouplingBlock, {"subnet_constructor": f}, conditions=c, name="glow")',
        "inn = ig.Graph(*ig.freia.sides([x, c, flat, split, wide, glow, glow[0], wide[0]]))",
        "z, j = inn(data, labels)",
        "# invgraph: pass one condition as a tensor, several as a tuple",
        "x = inn.inverse(z, labels)[0]",
        "(inn.inverse if back else inn)(z)",
    ):
        assert line in code.splitlines(), line


def test_chains_become_nodes_and_a_graph() -> None:
    code = rewritten("""class M:
    def __init__(self):
        self.inn = Ff.SequenceINN(*dims)
        for k in range(3):
            self.inn.append(Fm.AllInOneBlock, cond=1, cond_shape=(4,), subnet_constructor=f, **more)
        self.inn.append(Fm.ActNorm)
        self.k = 3

    def forward(self, x, c):
        return self.inn(x, c=c)[0], self.inn(x, c=[None, c])
""")
    assert (
        code.splitlines()[2:]
        == """class M:
    def __init__(self):
        inn_x = inn_h = ig.InputNode(*dims, name="x")
        inn_c1 = ig.ConditionNode(4, name="c1")
        for k in range(3):
            # invgraph: **more must hold no cond and no cond_shape: write these out
            inn_h = ig.freia.node(inn_h, Fm.AllInOneBlock, {"subnet_constructor": f, **more}, conditions=inn_c1)
        inn_h = ig.freia.node(inn_h, Fm.ActNorm)
        self.inn = ig.Graph(inn_x, inn_h, inn_c1)
        self.k = 3

    def forward(self, x, c):
        return self.inn(x, c[1])[0], self.inn(x, c)
""".splitlines()
    )


@pytest.mark.parametrize(
    ("line", "note"),
    [("inn(x, intermediate_outputs=True)", "intermediate_outputs"), ("inn.module_list[0]", ".module_list of a network"),
     ("class A(Ff.GraphINN):\n    pass", "a subclass of a network"), ("train(inn)", "is called elsewhere"),
     ("models = [inn]", "a list of networks"), ("other(z, rev=True)", "may be a network"),
     ("for k, p in inn.named_parameters():\n    pass", "keys of a native graph"), ("glow.input_dims", "of a node"),
     ("f = Ff.FeedForwardNode(c, (2,), Net)", "ig.FeatureNode")],
)  # fmt: skip
def test_what_native_graphs_lack_is_marked_and_keeps_freias_classes(line: str, note: str) -> None:
    code = rewritten(GRAPH + line + "\n")
    assert "import invgraph.freia.framework as Ff" in code
    assert "inn = Ff.GraphINN(" in code
    assert any(text.strip().startswith("# invgraph: ") and note in text for text in code.splitlines())


@pytest.mark.parametrize(
    ("line", "note"),
    [("s = Ff.SequenceINN(2, force_tuple_output=True)", "force_tuple_output"),
     ("s = Ff.SequenceINN(2)\ns.append(M, cond=k, cond_shape=(2,))", "number or shape is computed"),
     ("s = Ff.SequenceINN(2)\ns.append(M, cond=0, cond_shape=(2,))\ns.append(M, cond=0, cond_shape=(3,))",
      "two shapes"),
     ("s = Ff.SequenceINN(2)\ndef g():\n    s.append(M)\ns[0]", "a layer or slice"),
     ("def g():\n    s = Ff.SequenceINN(2)\ndef k():\n    s.append(M)", "far from where"),
     ("def g():\n    s = Ff.SequenceINN(2)\ndef k():\n    s = Ff.SequenceINN(3)\n    s.append(M)",
      "a name of its own")],
)  # fmt: skip
def test_chains_that_native_graphs_can_not_be_keep_freias_classes_alone(line: str, note: str) -> None:
    code = rewritten(GRAPH + line + "\n")
    assert "import invgraph.freia.framework as Ff" in code
    assert "s = Ff.SequenceINN(" in code
    assert "inn = ig.Graph(" in code
    assert any(text.strip().startswith("# invgraph: ") and note in text for text in code.splitlines())


@pytest.mark.parametrize(
    ("line", "expected"),
    [("import FrEIA", "import invgraph.freia as FrEIA"),
     ("import FrEIA.modules, os", "import invgraph.freia as FrEIA, os"),
     ("from FrEIA import framework as ff, modules", "from invgraph.freia import framework as ff, modules"),
     ("from FrEIA.modules.base import *", "from invgraph.freia.modules.base import *"), ("import os", "import os")],
)  # fmt: skip
def test_imports_alone_are_rewritten_in_scripts_without_networks(line: str, expected: str) -> None:
    assert rewrite(line + "\n").code == expected + "\n"


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    script, target = SCRIPTS[-1], tmp_path / "native.py"
    assert main([str(script), "-o", str(target)]) == 0
    assert "native graphs; comments '# invgraph:' to look at: 0" in capsys.readouterr().err
    assert main([str(script)]) == 0
    assert capsys.readouterr().out == target.read_text()
    (tmp_path / "broken.py").write_text("x = (\n")
    assert main([str(tmp_path / "broken.py")]) == 1
    assert "not valid Python" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "invgraph.freia.rewrite.script", None)
    monkeypatch.delattr(sys.modules["invgraph.freia.rewrite"], "script")
    assert main([str(script)]) == 1
    assert "pip install libcst" in capsys.readouterr().err


@pytest.mark.slow
def test_the_module_can_be_run() -> None:
    call = [sys.executable, "-m", "invgraph.freia.rewrite", str(SCRIPTS[-1])]
    assert "ig.Graph(" in subprocess.run(call, capture_output=True, text=True, check=True).stdout


def test_sides_of_a_graph_from_a_list() -> None:
    a, b, c = ig.InputNode(2, name="a"), ig.InputNode(2, name="b"), ig.ConditionNode(3, name="c")
    both = ig.Node([a, b], ig.Concat, name="both")
    first, second = ig.Node(both, ig.Split, {"sizes": (1, 3)}, name="split")
    assert ig.freia.sides([b, c, both, first.node, a, second, first]) == ([b[0], a[0]], [second, first], [])
    assert ig.freia.sides([a, ig.Node(a, ig.Permute)])[0] is a[0]
    with pytest.raises(ig.ArgumentError, match="native nodes"):
        ig.freia.sides([a, 3])  # type: ignore[list-item]


FOUR = "import torch\nimport FrEIA.framework as Ff, FrEIA.modules as Fm\nx = Ff.InputNode(4)\n"
NASTY = {
    "several statements on a line": (True, """
import FrEIA.framework as Ff; import FrEIA.modules as Fm; import torch; net = Ff.SequenceINN(4)
net.append(Fm.PermuteRandom, seed=1); net.append(Fm.PermuteRandom, seed=2)  # both
results = [net(torch.ones(2, 4))[0]]
"""),
    "a class on few lines": (True, """
from FrEIA.framework import SequenceINN
from FrEIA.modules import PermuteRandom
import torch
class Net(torch.nn.Module):
    def __init__(self): super().__init__(); self.inn = SequenceINN(4); self.inn.append(PermuteRandom, seed=2)
    def forward(self, x): return self.inn(x)
results = [Net()(torch.arange(8.0).reshape(2, 4))[0]]
"""),
    "elif, else, try and match": (True, """
import FrEIA, torch
net = FrEIA.framework.SequenceINN(4)
for k in range(3):
    if k == 0:
        net.append(FrEIA.modules.PermuteRandom, seed=k)
    elif k == 1:
        net.append(FrEIA.modules.PermuteRandom, seed=7)
    else:
        pass
try:
    z = net(torch.arange(8.0).reshape(2, 4))[0]
except RuntimeError:
    raise
else:
    match z.ndim:
        case 2:
            results = [z]
"""),
    "aliases of classes": (True, """
import torch, FrEIA as fr
from FrEIA import framework as F, modules as M
from FrEIA.framework import GraphINN as G, Node as N
x = F.InputNode(4)
h = N(x, M.PermuteRandom, dict(seed=1))
results = [z] if (z := None) else []
net = G([x, h, F.OutputNode(h)])
results += [net(torch.ones(2, 4), rev=True)[0]]
"""),
    "nodes of several outputs in lists": (True, FOUR + """
nodes = [x, Ff.Node(x, Fm.Split, {"section_sizes": [1, 3]})]
nodes.append(Ff.Node(nodes[-1].out1, Fm.Reshape, {"output_dims": (3, 1)}))
nodes.append(Ff.Node(nodes[1], Fm.Reshape, {"output_dims": (1, 1)}))
nodes.append(Ff.Node([nodes[-1], (nodes[2], 0)], Fm.Concat, {}))
nodes.append(Ff.Node(nodes[-1], Fm.Flatten, {}))
net = Ff.GraphINN(nodes + [Ff.OutputNode(nodes[-1])])
results = [net(torch.arange(8.0).reshape(2, 4))[0]]
"""),
    "networks of objects": (True, FOUR + """
class Model(torch.nn.Module):
    def __init__(self, seed):
        super().__init__()
        self.chain = Ff.SequenceINN(4)
        self.chain.append(Fm.AllInOneBlock, cond=1, cond_shape=(2,), subnet_constructor=torch.nn.Linear)
    def forward(self, x, c, rev=False):
        return self.chain(x, c=[None, c], rev=rev)
torch.default_generator.manual_seed(0)
one, two = Model(0), Model(1)
data, c = torch.ones(2, 4), torch.zeros(2, 2)
results = [two(data, c, rev=True)[0], one.chain(data, c=[None, c], rev=True)[0]]
"""),
    "arguments in **": (False, FOUR + """
name = {"name": "h"}
h = Ff.Node(x, Fm.PermuteRandom, {"seed": 1}, **name)
net = Ff.GraphINN([x, h, Ff.OutputNode(h)])
results = [net(torch.ones(2, 4))[0]]
"""),
    "a call in * and **": (False, FOUR + """
h = Ff.Node(x, Fm.PermuteRandom, {"seed": 1})
net = Ff.GraphINN([x, h, Ff.OutputNode(h)])
data = (torch.ones(2, 4),)
results = [net(*data)[0], net(data[0], **{"rev": True})[0]]
"""),
    "outputs listed before their nodes": (True, FOUR + """
s = Ff.Node(x, Fm.Split, {"section_sizes": [2, 2]}, name="s")
a, b = Ff.OutputNode(s.out1, name="a"), Ff.OutputNode(s.out0, name="b")
net = Ff.GraphINN([x, a, b, s])
c = Ff.Node(s.out0, Fm.PermuteRandom, {"seed": 1})
d = Ff.Node(s.out1, Fm.PermuteRandom, {"seed": 2})
oc, od = Ff.OutputNode(c), Ff.OutputNode(d)
other = Ff.GraphINN([od, oc, x, s, c, d])
data = torch.arange(8.0).reshape(2, 4)
results = [*net(data)[0], *other(data)[0], other(other(data)[0], rev=True)[0]]
"""),
    "attributes like those of nodes": (True, FOUR + """
class Sub(torch.nn.Module):
    def __init__(self, i, o):
        super().__init__()
        self.out0, self.out1 = torch.nn.Linear(i, 8), torch.nn.Linear(8, o)
    def forward(self, x):
        return self.out1(torch.relu(self.out0(x)))
torch.default_generator.manual_seed(0)
h = Ff.Node(x, Fm.GLOWCouplingBlock, {"subnet_constructor": Sub})
net = Ff.GraphINN([x, h, Ff.OutputNode(h.out0)])
results = [net(torch.ones(2, 4))[0]]
"""),
    "a condition in **": (False, FOUR + """
torch.default_generator.manual_seed(0)
kw = dict(subnet_constructor=torch.nn.Linear, cond=0, cond_shape=(3,))
net = Ff.SequenceINN(4)
for k in range(2):
    net.append(Fm.AllInOneBlock, **kw)
results = [net(torch.ones(2, 4), c=[torch.ones(2, 3)])[0]]
"""),
    "arguments in ** without a condition": (True, FOUR + """
torch.default_generator.manual_seed(0)
kw = {"subnet_constructor": torch.nn.Linear}
net = Ff.SequenceINN(4)
net.append(Fm.AllInOneBlock, **kw)
results = [net(torch.ones(2, 4))[0]]
"""),
    "a chain with and without a condition": (False, FOUR + """
class Flow(torch.nn.Module):
    def __init__(self, cdim=None):
        super().__init__()
        self.inn = Ff.SequenceINN(4)
        for k in range(2):
            if cdim is None:
                self.inn.append(Fm.AllInOneBlock, subnet_constructor=torch.nn.Linear)
            else:
                self.inn.append(Fm.AllInOneBlock, cond=0, cond_shape=(cdim,), subnet_constructor=torch.nn.Linear)
    def forward(self, x, c=None):
        return self.inn(x, c=c)
torch.default_generator.manual_seed(0)
results = [Flow()(torch.ones(2, 4))[0], Flow(3)(torch.ones(2, 4), [torch.ones(2, 3)])[0]]
"""),
    "the same condition in both branches": (True, FOUR + """
torch.default_generator.manual_seed(0)
net = Ff.SequenceINN(4)
for k in range(2):
    if k:
        net.append(Fm.AllInOneBlock, cond=0, cond_shape=(3,), subnet_constructor=torch.nn.Linear)
    else:
        net.append(Fm.RNVPCouplingBlock, cond=0, cond_shape=(3,), subnet_constructor=torch.nn.Linear)
results = [net(torch.ones(2, 4), c=[torch.ones(2, 3)])[0]]
"""),
    "a condition that nothing reads": (False, FOUR + """
torch.default_generator.manual_seed(0)
c, d = Ff.ConditionNode(2), Ff.ConditionNode(2)
h = Ff.Node(x, Fm.GLOWCouplingBlock, {"subnet_constructor": torch.nn.Linear}, conditions=d)
net = Ff.GraphINN([x, c, d, h, Ff.OutputNode(h)])
results = [net(torch.ones(2, 4), c=[torch.zeros(2, 2), torch.ones(2, 2)])[0]]
"""),
    "dots in the names of f-strings": (True, FOUR + """
nodes = [x]
for k in range(2):
    nodes.append(Ff.Node(nodes[-1], Fm.PermuteRandom, {"seed": k}, name="block." f"{k}.p"))
net = Ff.GraphINN([*nodes, Ff.OutputNode(nodes[-1])])
results = [net(torch.arange(4.0)[None])[0]]
"""),
    "lists and tensors of one name": (True, FOUR + """
torch.default_generator.manual_seed(0)
c = Ff.ConditionNode(3)
h = Ff.Node(x, Fm.GLOWCouplingBlock, {"subnet_constructor": torch.nn.Linear}, conditions=c)
net = Ff.GraphINN([x, c, h, Ff.OutputNode(h)])
def train(x, y):
    c = [y]
    return net(x, c=c)[0]
def sample(z, c):
    return net(z, c=c, rev=True)[0]
y = torch.ones(2, 3)
results = [train(torch.ones(2, 4), y), sample(torch.ones(2, 4), y)]
"""),
    "outputs of names that are bound again": (True, FOUR + """
s = Ff.Node(x, Fm.Split, {"section_sizes": [2, 2]})
h = Ff.Node(s.out0, Fm.PermuteRandom, {"seed": 1})
def end(h):
    return Ff.OutputNode(h)
net = Ff.GraphINN([x, s, h, end(h), end(s.out1)])
results = [*net(torch.arange(8.0).reshape(2, 4))[0]]
"""),
    "attributes like those of nodes in a list": (True, FOUR + """
class Sub(torch.nn.Module):
    def __init__(self, i, o):
        super().__init__()
        self.out0 = torch.nn.Linear(i, o)
    def forward(self, x):
        return self.out0(x)
torch.default_generator.manual_seed(0)
nodes = [x]
for k in range(2):
    nodes.append(Ff.Node(nodes[-1].out0, Fm.GLOWCouplingBlock, {"subnet_constructor": Sub}))
net = Ff.GraphINN(nodes + [Ff.OutputNode(nodes[-1].out0)])
results = [net(torch.ones(2, 4))[0]]
"""),
    "variables that become lists": (True, FOUR + """
torch.default_generator.manual_seed(0)
c = Ff.ConditionNode(3)
h = Ff.Node(x, Fm.GLOWCouplingBlock, {"subnet_constructor": torch.nn.Linear}, conditions=c)
net = Ff.GraphINN([x, c, h, Ff.OutputNode(h)])
class A:
    def loss(self, d, cc):
        return net(d, c=[cc])[0]
class B:
    def loss(self, d, y):
        cc = [y]
        return net(d, c=cc)[0]
def wrap(d, c):
    c = [c]
    return net(d, c=c)[0]
def bare(z):
    z = [z]
    return net(z, c=[y])[0]
d, y = torch.ones(2, 4), torch.ones(2, 3)
yy = [y]
sample = lambda d, yy: net(d, c=yy, rev=True)[0]
results = [A().loss(d, y), B().loss(d, y), wrap(d, y), bare(d), sample(d, y), net(d, c=yy)[0]]
results += [net(d, c=yy)[0] for yy in (y, y + 1)]
"""),
    "conditions that functions hand on": (True, FOUR + """
torch.default_generator.manual_seed(0)
c, e = Ff.ConditionNode(3), Ff.ConditionNode(3)
def block(h, c):
    return Ff.Node(h, Fm.GLOWCouplingBlock, {"subnet_constructor": torch.nn.Linear}, conditions=c)
a = block(x, c)
b = block(a, e)
net = Ff.GraphINN([x, c, e, a, b, Ff.OutputNode(b)])
results = [net(torch.ones(2, 4), c=[torch.ones(2, 3), torch.zeros(2, 3)])[0]]
"""),
    "a condition of all layers of a loop but one": (True, FOUR + """
torch.default_generator.manual_seed(0)
net = Ff.SequenceINN(4)
for k in range(3):
    if k < 2:
        net.append(Fm.AllInOneBlock, cond=0, cond_shape=(3,), subnet_constructor=torch.nn.Linear)
    else:
        net.append(Fm.AllInOneBlock, subnet_constructor=torch.nn.Linear, **{})
results = [net(torch.ones(2, 4), c=[torch.ones(2, 3)])[0]]
"""),
    "a condition that is set in a dict": (False, FOUR + """
torch.default_generator.manual_seed(0)
kw = dict(subnet_constructor=torch.nn.Linear)
kw["cond"], kw["cond_shape"] = 0, (3,)
kw["cond"] = 0
net = Ff.SequenceINN(4)
net.append(Fm.AllInOneBlock, **kw)
results = [net(torch.ones(2, 4), c=[torch.ones(2, 3)])[0]]
"""),
    "functions that build networks in loops": (False, FOUR + """
def make(n):
    nodes = [Ff.InputNode(n, name="in")]
    for k in range(2):
        nodes.append(Ff.Node(nodes[-1].out0, Fm.PermuteRandom, {"seed": k}, name=f"p.{k}"))
    return Ff.GraphINN([*nodes, Ff.OutputNode(nodes[-1])])
nets = {n: make(n) for n in (3, 4)}
results = [nets[3](torch.ones(6, 3))[0], nets[4](torch.ones(6, 4), rev=True)[0]]
"""),
}  # fmt: skip


@pytest.mark.parametrize("name", NASTY)
def test_awkward_scripts_become_native_or_keep_freias_classes(name: str, tmp_path: Path) -> None:
    native, source = NASTY[name]
    result = rewrite(source)
    assert result.native == native
    assert native or "# invgraph:" in result.code
    paths = tmp_path / "before.py", tmp_path / "after.py"
    for path, code in zip(paths, (source, result.code), strict=True):
        path.write_text(code)
    expected, got = run(paths[0], ours=True), run(paths[1], ours=False)
    for theirs, mine in zip(expected["results"], got["results"], strict=True):
        assert torch.equal(mine, theirs)


def test_lists_that_grow_are_not_taken_apart() -> None:
    note = "# invgraph: pass one condition as a tensor, several as a tuple"
    for grown in ("y = []\ny.append(labels)\n", "y = [labels]\ny += more\n", "for y in batches: pass\n"):
        code = rewritten(GRAPH + grown + "z, j = inn(data, c=y)\n")
        assert note in code.splitlines()
        assert "z, j = inn(data, y)" in code.splitlines()
    assert "z, j = inn(data, y[0])" in rewritten(GRAPH + "y = [labels]\nz, j = inn(data, c=y)\n").splitlines()


def test_networks_that_leave_the_file_are_marked() -> None:
    build = "def build():\n    net = Ff.SequenceINN(2)\n    net.append(Fm.ActNorm)\n    return net\n"
    note = "    # invgraph: where others call what build returns: graph(x, c), graph.inverse(z, c)"
    assert note in rewritten(build).splitlines()
    assert note not in rewritten(build + "net = build()\n").splitlines()


def test_calls_of_old_versions_are_named() -> None:
    source = FOUR + "net = Ff.ReversibleGraphNet([x, Ff.OutputNode(x)])\nz = net(x)\nj = net.log_jacobian(x)\n"
    result = rewrite(source)
    assert not result.native
    assert "# invgraph: .log_jacobian(...) is of FrEIA before 0.2" in result.code


def test_a_file_that_is_no_text_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(b"\x80\x02}")
    assert main([str(path)]) == 1
    assert "not text in UTF-8" in capsys.readouterr().err
    assert main([str(tmp_path)]) == 1


MANY = """class M(torch.nn.Module):
    def __init__(self):
        self.inn = self.build()

    def build(self):
        x, c, d = Ff.InputNode(4), Ff.ConditionNode(2), Ff.ConditionNode(2)
        if wide:
            {branch}
        h = Ff.Node(x, Fm.GLOWCouplingBlock, {{"subnet_constructor": f}}, conditions=[c, d])
        return Ff.GraphINN([x, c, d, h, Ff.OutputNode(h)])

model = M()
z = model.inn(x, {c})[0]
"""


@pytest.mark.parametrize(
    ("branch", "c", "expected"),
    [("pass", "c=net(y)", 0), ("pass", "net(y)", 0), ("c = Ff.ConditionNode(9)", "c=net(y)", 1),
     ("c = Ff.ConditionNode(9)", "net(y)", 1), ("pass", "[u, v]", 0)],
)  # fmt: skip
def test_conditions_are_marked_where_their_number_is_not_known(branch: str, c: str, expected: int) -> None:
    code = rewritten(MANY.format(branch=branch, c=c))
    assert "ig.Graph(" in code
    assert code.count("# invgraph: pass one condition as a tensor") == expected


@pytest.mark.parametrize(
    ("after", "expected"),
    [("", False), ("import numpy as np\nnoise = np.random.randn(3)\n", True),
     ("import numpy as np\nnoise = np.random.default_rng(0).standard_normal(3)\nnp.random.seed(3)\n", False),
     ("s = Ff.SequenceINN(4)\ns.append(Fm.AllInOneBlock, subnet_constructor=f)\n", True),
     ("s = Ff.SequenceINN(4)\ns.append(Fm.PermuteRandom)\ns.module_list\n", True)],
)  # fmt: skip
def test_draws_after_seeded_permutations_are_marked(after: str, expected: bool) -> None:
    body = """x = Ff.InputNode(4)
for k in range(2):
    h = Ff.Node(x, Fm.PermuteRandom, {"seed": k})
inn = Ff.GraphINN([x, h, Ff.OutputNode(h)])
"""
    assert ("# invgraph: FrEIA reseeds numpy" in rewritten(body + after)) == expected


def test_each_kind_of_network_becomes_native_by_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chain = "s = Ff.SequenceINN(4)\ns.append(Fm.ActNorm)\nz = s(x)[0]\n"
    code = rewritten(GRAPH + "inn.module_list\n" + chain)
    for line in (
        "import invgraph as ig",
        "import invgraph.freia.framework as Ff",
        'x, c = Ff.InputNode(1, 4, 4, name="x"), Ff.ConditionNode(3, name="c")',
        "s_h = ig.freia.node(s_h, Fm.ActNorm)",
        "s = ig.Graph(s_x, s_h)",
        "z = s(x)[0]",
    ):
        assert line in code.splitlines(), line
    path = tmp_path / "script.py"
    path.write_text("import FrEIA.framework as Ff, FrEIA.modules as Fm\n" + GRAPH + "inn.module_list\n" + chain)
    assert main([str(path)]) == 0
    assert "native graphs and FrEIA's classes from invgraph.freia; comments" in capsys.readouterr().err


def test_checkpoints_of_objects_that_hold_networks_are_marked() -> None:
    code = rewritten(MANY.format(branch="pass", c="c") + "model.load_state_dict(state)\nother.load_state_dict(state)\n")
    assert code.count("have other keys for model.inn: ") == 1
