"""A multi-scale network with several outputs, split and joined, under the old name of the class."""

import warnings

import torch
from FrEIA import framework as ff
from FrEIA import modules as fm


def subnet_conv(c_in, c_out):
    return torch.nn.Sequential(
        torch.nn.Conv2d(c_in, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, c_out, 3, padding=1)
    )


inp = ff.InputNode(3, 8, 8, name="image")
down = ff.Node(inp, fm.IRevNetDownsampling, {}, name="down")
block = ff.Node(down.out0, fm.RNVPCouplingBlock, {"subnet_constructor": subnet_conv, "clamp": 1.2}, name="block")
split = ff.Node(block, fm.Split, {"section_sizes": [4, 8], "dim": 0}, name="split")
early = ff.Node((split, 1), fm.Flatten, {}, name="flat.early 1")
haar = ff.Node([split.out0], fm.HaarDownsampling, {"order_by_wavelet": True, "rebalance": 0.5}, name="haar")
late = ff.Node(ff.Node(haar, fm.GINCouplingBlock, {"subnet_constructor": subnet_conv}), fm.Flatten, {}, name="flat")
outs = [ff.OutputNode(late, name="out_late"), ff.OutputNode(early.out0, name="out_early")]
gin = late.inputs[0][0]
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    net = ff.ReversibleGraphNet([inp, down, block, split, early, haar, gin, late, *outs], verbose=False)
    # Branches have no fixed order in FrEIA: set the weights by the names of the nodes.
    for name in ("block",):
        for p in net.get_module_by_name(name).parameters():
            p.data = torch.full_like(p, 0.02)
    for p in gin.module.parameters():
        p.data = torch.full_like(p, 0.03)
    x = torch.randn(2, 3, 8, 8)
    (z1, z2), jac = net(x)
    back, jac_back = net([z1, z2], rev=True)
results = [z1, z2, jac, back, jac_back, torch.tensor([*net.get_node_by_name("split").output_dims[1]])]
