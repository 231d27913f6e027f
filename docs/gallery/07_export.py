"""
Export a trained flow
=====================

A service that only draws samples or computes densities does not need this library. ``torch.export`` turns one method of
the flow into a program that accepts any batch size.
"""

# %%
# A flow
# ------

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch

import invgraph as ig

torch.set_num_threads(1)  # more threads do not help networks this small
torch.manual_seed(0)
x, c = ig.InputNode(4, name="x"), ig.ConditionNode(2, name="c")
block = {"transform": ig.RationalQuadraticSpline(bins=8), "subnet": ig.nets.MLP(32)}
h = x
for k in range(2):
    h = ig.Node(h, ig.Permute, name=f"permute_{k}")
    h = ig.Node(h, ig.Coupling, block, conditions=c, name=f"couple_{k}")
flow = ig.Flow(ig.Graph(x, h, c)).eval()
ig.testing.randomize(flow.graph, scale=0.5)

# %%
# Two programs
# ------------
#
# ``"log_prob"`` computes log-densities. ``"sample"`` maps latents to data; the caller draws the latents and so controls the
# random numbers.

folder = Path(tempfile.mkdtemp())
for what in ("log_prob", "sample"):
    program = ig.export(flow, what)
    torch.export.save(program, folder / f"{what}.pt2")
    print(
        what,
        f"{(folder / f'{what}.pt2').stat().st_size / 1024:.0f} KiB, inputs:",
        program.graph_signature.user_inputs,
    )

# %%
# Run them without the library
# ----------------------------
#
# The programs contain only operations of torch and the weights. They accept batch sizes other than that of the export.

score = torch.export.load(folder / "log_prob.pt2").module()
draw = torch.export.load(folder / "sample.pt2").module()
conditions = torch.randn(7, 2)
samples = draw(torch.randn(7, 4), conditions)
print("samples", tuple(samples.shape))

difference = (
    (score(samples, conditions) - flow.log_prob(samples, conditions)).abs().max()
)
print(f"largest difference to the flow: {difference.item():.0e}")

# %%
# ``ig.export_onnx`` writes the same programs as ONNX files for other runtimes, and ``ig.export_aoti`` compiles them to a
# package. :doc:`/runners` lists what each of them needs.

# %%
# The exported program maps the same latents under three conditions:

latents = torch.randn(1000, 4)
figure, axes = plt.subplots(1, 3, figsize=(9, 2.8), layout="constrained")
for axis, value in zip(axes, (-2.0, 0.0, 2.0), strict=True):
    moved = draw(latents, torch.tensor([[value, 0.0]]).expand(1000, 2))
    axis.scatter(moved[:, 0].detach(), moved[:, 1].detach(), s=2)
    axis.set(title=f"c = ({value:.0f}, 0)", xlim=(-4, 4), ylim=(-4, 4))
