"""
A conditional flow for an inverse problem
=========================================

A damped oscillation is measured with noise. Which frequencies and dampings could have made it? A flow that reads the
series answers with samples of the whole posterior, in one pass.
"""

# %%
# The simulator
# -------------
#
# It draws parameters from the prior and returns the noisy series that they give.

import matplotlib.pyplot as plt
import torch
from torch import nn

import invgraph as ig

torch.manual_seed(0)
times = torch.linspace(0, 4, 64)


def simulate(count):
    frequency, damping = 1 + 2 * torch.rand(count, 1), torch.rand(count, 1)
    series = torch.exp(-damping * times) * torch.sin(2 * frequency * times)
    series = series + 0.3 * torch.randn(count, len(times))
    return torch.cat([frequency, damping], dim=1), series[:, None]


# %%
# Declare
# -------
#
# A :class:`~invgraph.FeatureNode` holds a network that reads the series and is trained with the rest. ``Logit`` first
# opens the box in which the prior lies, after a scaling to the unit square, so that samples never leave it.

parameters = ig.InputNode(2, name="parameters")
series = ig.ConditionNode(1, 64, name="series")
network = nn.Sequential(
    nn.Conv1d(1, 16, 5, stride=2),
    nn.ReLU(),
    nn.Conv1d(16, 32, 5, stride=2),
    nn.ReLU(),
    nn.Flatten(),
    nn.Linear(32 * 13, 32),
)
summary = ig.FeatureNode(series, network, name="summary")
block = {"transform": ig.RationalQuadraticSpline(bins=8), "subnet": ig.nets.MLP(64)}
h = ig.Node(parameters, ig.Elementwise, {"transform": ig.Logit()}, name="open")
for k in range(4):
    h = ig.Node(h, ig.Orthogonal, name=f"rotate_{k}")
    h = ig.Node(h, ig.Coupling, block, conditions=summary, name=f"couple_{k}")
graph = ig.Graph(parameters, h, series)
posterior = ig.Flow(graph)
graph


# %%
# The parameters are scaled to the unit square before they enter.

low, high = torch.tensor([1.0, 0.0]), torch.tensor([3.0, 1.0])

# %%
# Train on simulations
# --------------------

optimizer = torch.optim.Adam(posterior.parameters(), lr=3e-3)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 300)
for _ in range(300):
    theta, y = simulate(128)
    loss = -posterior.log_prob((theta - low) / (high - low), y).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
print(f"last batch: {loss.item():.2f} nats")

# %%
# Ask about one measurement
# -------------------------
#
# ``given`` binds the flow to a condition: the network reads the series once, for any number of samples.

truth, observed = simulate(1)
samples = low + (high - low) * posterior.given(observed[0]).sample((2000,))

figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
axes[0].plot(times, observed[0, 0], "k.", label="measured")
for frequency, damping in samples[:40]:
    axes[0].plot(
        times,
        torch.exp(-damping * times) * torch.sin(2 * frequency * times),
        color="tab:blue",
        alpha=0.1,
    )
axes[0].set(xlabel="time", title="measurement, and what 40 samples predict")
axes[1].scatter(*samples.T, s=2, alpha=0.4)
axes[1].plot(*truth[0], "r*", markersize=12)
axes[1].set(
    xlabel="frequency",
    ylabel="damping",
    xlim=(1, 3),
    ylim=(0, 1),
    title="posterior; the star is the truth",
)

# %%
# Is it calibrated?
# -----------------
#
# If the posterior is right, the rank of the true value among its samples is uniform. Two hundred simulations show
# a gross error only; use more for your own work.

theta, y = simulate(200)
draws = low + (high - low) * posterior.sample(100, y)
ranks = (draws < theta).float().mean(0)
print(
    "mean rank, 0.5 if unbiased:",
    [round(value, 2) for value in ranks.mean(0).tolist()],
)
print(
    "inside the central 80 %:   ",
    [
        round(value, 2)
        for value in ((ranks - 0.5).abs() < 0.4).float().mean(0).tolist()
    ],
)
