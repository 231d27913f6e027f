"""
Anomaly detection on feature maps
=================================

Normal textures have likely features, and defects have unlikely ones. A flow over the feature maps of a small network
gives a score for each image and a map of the places where the image is unlikely.
"""

# %%
# Textures, some with a scratch
# -----------------------------

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import nn

import invgraph as ig

torch.set_num_threads(1)  # more threads do not help networks this small
torch.manual_seed(0)


def textures(count, scratched=False):
    """Stripes of random phase with noise; a scratch is a short bright line."""
    phase = 6.28 * torch.rand(count, 1, 1)
    rows, columns = torch.meshgrid(
        torch.arange(32.0), torch.arange(32.0), indexing="ij"
    )
    images = torch.sin(0.8 * rows + 0.4 * columns + phase) + 0.2 * torch.randn(
        count, 32, 32
    )
    if scratched:
        for image in images:
            row, column = torch.randint(4, 20, (2,)).tolist()
            image[range(row, row + 9), range(column, column + 9)] += 1.5
    return images[:, None]


# %%
# Feature maps
# ------------
#
# In practice, these come from a pretrained network. Here a random network is enough, because the flow learns which of its
# features are normal.

extractor = nn.Sequential(
    nn.Conv2d(1, 16, 5, stride=2, padding=2),
    nn.Tanh(),
    nn.Conv2d(16, 16, 3, stride=2, padding=1),
)
extractor.requires_grad_(False)

# %%
# A flow over feature maps of 16 channels
# ---------------------------------------

maps = ig.InputNode(16, 8, 8, name="features")
conv = {"transform": ig.Affine(clamp=1.9), "subnet": ig.nets.ConvNet(32)}
h = ig.Node(maps, ig.ActNorm, name="normalize")
for k in range(4):
    h = ig.Node(h, ig.Orthogonal, name=f"mix_{k}")
    h = ig.Node(h, ig.Coupling, conv, name=f"couple_{k}")
graph = ig.Graph(maps, h)
graph.initialize(extractor(textures(256)))
flow = ig.Flow(graph)

optimizer = torch.optim.Adam(flow.parameters(), lr=2e-3)
for _ in range(120):
    loss = -flow.log_prob(extractor(textures(32))).mean() / 1024
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(flow.parameters(), 10)
    optimizer.step()

# %%
# Scores
# ------
#
# The squared latents, averaged over channels, show where the image is unlikely. Their maximum is the score of the image.

good, bad = textures(200), textures(200, scratched=True)
with torch.no_grad():
    heat = [graph(extractor(images))[0].square().mean(1) for images in (good, bad)]
scores = [values.flatten(1).max(1).values for values in heat]
better = (scores[1][:, None] > scores[0]).float().mean()
print(f"area under the ROC curve: {better:.3f}")

figure, axes = plt.subplots(2, 5, figsize=(9, 3.7), layout="constrained")
for k in range(5):
    axes[0, k].imshow(bad[k, 0].numpy(), cmap="gray")
    smooth = F.interpolate(heat[1][k][None, None], size=32, mode="bilinear")[0, 0]
    axes[1, k].imshow(
        smooth.numpy(), cmap="magma", vmin=0, vmax=float(heat[1].max()) * 0.7
    )
for axis in axes.flat:
    axis.axis("off")
