"""
An image flow with several scales
=================================

A flow for handwritten digits of 8 x 8 pixels. It splits off the details of each image, with a prior that depends on the
remaining part.
"""

# %%
# Data
# ----
#
# MNIST is part of the repository. In training, noise is added to the pixels, because the density of values from a set of
# 256 would be unbounded.

import gzip
from pathlib import Path

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F

import invgraph as ig

torch.set_num_threads(1)  # more threads do not help networks this small
torch.manual_seed(0)
folder = Path("examples/data/mnist")
if not folder.exists():
    folder = Path("..", "..") / folder


def read(name, header):
    with gzip.open(folder / f"t10k-{name}-ubyte.gz") as file:
        return torch.frombuffer(bytearray(file.read()[header:]), dtype=torch.uint8)


pixels = read("images-idx3", 16).view(-1, 1, 28, 28).float() / 255
digits = F.one_hot(read("labels-idx1", 8).long(), 10).float()
images = F.avg_pool2d(F.pad(pixels, (2, 2, 2, 2)), 4)
center, scale = images.mean(), images.std()
images = (images - center) / scale

# %%
# Declare
# -------
#
# A Haar step halves the resolution and separates averages from details, and a split sends the details to the latents. A
# value inside the graph can be a condition, so the prior of the details reads the averages.

image, digit = (
    ig.InputNode(1, 8, 8, name="image"),
    ig.ConditionNode(10, name="digit"),
)
conv = {"transform": ig.Affine(clamp=1.5), "subnet": ig.nets.ConvNet(32)}
dense = {"transform": ig.Affine(clamp=1.5), "subnet": ig.nets.MLP(128)}
h = ig.Node(image, ig.Haar, {"rebalance": 0.5}, name="haar")
for k in range(4):
    h = ig.Node(h, ig.Coupling, conv, conditions=digit, name=f"fine_{k}")
    h = ig.Node(h, ig.Orthogonal, name=f"mix_{k}")
rest, details = ig.Node(h, ig.Split, {"sizes": (2, 2)}, name="split")
details = ig.Node(
    details, ig.Elementwise, conv, conditions=[rest, digit], name="prior"
)
h = ig.Node(rest, ig.Flatten, name="flatten")
for k in range(4):
    h = ig.Node(h, ig.Permute, name=f"permute_{k}")
    h = ig.Node(h, ig.Coupling, dense, conditions=digit, name=f"coarse_{k}")
graph = ig.Graph(image, [details, h], digit)
flow = ig.Flow(graph)
graph

# %%
# Train
# -----

optimizer = torch.optim.Adam(flow.parameters(), lr=3e-3)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 200)
for _ in range(200):
    rows = torch.randint(len(images), (128,))
    x = images[rows] + 0.1 * torch.randn(128, 1, 8, 8)
    loss = -flow.log_prob(x, digits[rows]).mean() / 64
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(flow.parameters(), 10)
    optimizer.step()
    schedule.step()
print(f"last batch: {loss.item():.3f} nats per pixel")

# %%
# One latent code per row, ten digits across
# ------------------------------------------
#
# Under another condition, a latent code keeps its style.

with torch.no_grad():
    codes = [0.8 * torch.randn(4, 1, *shape) for shape in graph.out_shapes]
    codes = [code.expand(4, 10, *code.shape[2:]).flatten(0, 1) for code in codes]
    samples, _ = graph.inverse(tuple(codes), torch.eye(10).repeat(4, 1))
picture = samples.view(4, 10, 8, 8).permute(0, 2, 1, 3).reshape(32, 80).numpy()
plt.figure(figsize=(9, 3.7), layout="constrained")
plt.imshow(picture, cmap="gray_r", vmin=-0.5, vmax=2.5)
plt.axis("off")

# %%
# What does each node cost?
# -------------------------

print(graph.summary(images[:16], digits[:16]))
