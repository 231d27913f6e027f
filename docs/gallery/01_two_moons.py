"""
Two moons, step by step
=======================

A flow moves points layer by layer until they look like draws from a normal distribution. This page trains one and then
watches points pass through its layers.
"""

# %%
# Data
# ----
#
# Points on two interlocked half circles, with a label that says which half circle.

import math

import matplotlib.pyplot as plt
import torch

import invgraph as ig

torch.set_num_threads(1)  # more threads do not help networks this small
torch.manual_seed(0)


def two_moons(count):
    angle = math.pi * torch.rand(count)
    label = torch.randint(2, (count,))
    upper = torch.stack([angle.cos(), angle.sin()], dim=1)
    lower = torch.stack([1 - angle.cos(), 0.5 - angle.sin()], dim=1)
    points = torch.where(label[:, None] == 0, upper, lower)
    points = points + 0.05 * torch.randn(count, 2)
    return points, torch.nn.functional.one_hot(label, 2).float()


# %%
# Declare
# -------
#
# Four blocks. In each, a fixed rotation mixes the two coordinates, and a coupling transforms each coordinate given the
# other and the label.

point, moon = ig.InputNode(2, name="point"), ig.ConditionNode(2, name="moon")
block = {"transform": ig.RationalQuadraticSpline(bins=8), "subnet": ig.nets.MLP(32)}
h = point
for k in range(4):
    h = ig.Node(h, ig.Orthogonal, name=f"rotate_{k}")
    h = ig.Node(h, ig.Coupling, block, conditions=moon, name=f"couple_{k}")
graph = ig.Graph(point, h, moon)
flow = ig.Flow(graph)
graph

# %%
# Train
# -----

optimizer = torch.optim.Adam(flow.parameters(), lr=4e-3)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 250)
for _ in range(250):
    loss = -flow.log_prob(*two_moons(256)).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
print(f"last batch: {loss.item():.3f} nats")

# %%
# Watch the layers
# ----------------
#
# A forward hook records the output of each coupling. The forward pass calls its layers as registered submodules, so
# hooks work as on any other module; the inverse does not run them (:doc:`/habits`).

seen = {}
hooks = [
    graph[f"couple_{k}"].register_forward_hook(
        lambda layer, inputs, output, name=f"after couple_{k}": seen.update(
            {name: output[0][0]}
        )
    )
    for k in range(4)
]
points, moons = two_moons(1500)
with torch.no_grad():
    graph(points, moons)
for hook in hooks:
    hook.remove()

figure, axes = plt.subplots(1, 5, figsize=(11, 2.5), layout="constrained")
for axis, (title, values) in zip(
    axes, {"data": points, **seen}.items(), strict=True
):
    axis.scatter(*values.T, s=2, c=moons[:, 0], cmap="coolwarm")
    axis.set(title=title, xticks=[], yticks=[], aspect="equal")

# %%
# Both moons end in the same normal distribution. The label already says which moon it is, so the latents need not.
#
# Samples and density
# -------------------

samples = flow.sample(750, torch.eye(2))
across, up = torch.meshgrid(
    torch.linspace(-1.5, 2.5, 160), torch.linspace(-1, 1.5, 100), indexing="xy"
)
grid = torch.stack([across.flatten(), up.flatten()], dim=1)
with torch.no_grad():
    density = (
        sum(
            flow.log_prob(grid, row.expand(len(grid), 2)).exp()
            for row in torch.eye(2)
        )
        / 2
    )

figure, axes = plt.subplots(
    1, 2, figsize=(8, 2.6), layout="constrained", sharex=True, sharey=True
)
for k, color in enumerate(("tab:blue", "tab:red")):
    axes[0].scatter(*samples[:, k].T, s=2, color=color)
axes[1].imshow(
    density.view_as(across).numpy(),
    origin="lower",
    extent=(-1.5, 2.5, -1, 1.5),
    cmap="Greys",
)
for axis, title in zip(axes, ("samples", "density"), strict=True):
    axis.set(title=title, aspect="equal")
