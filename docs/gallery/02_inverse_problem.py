"""
A conditional flow for an inverse problem
=========================================

A damped oscillation is measured with noise. Which frequencies and dampings could have produced it? A flow conditioned on
the measured series draws samples from the whole posterior in one pass.
"""

# %%
# The simulator
# -------------
#
# It draws parameters from a uniform prior between ``low`` and ``high``, and returns them with the noisy series that they
# produce.

import matplotlib.pyplot as plt
import torch
from torch import nn

import invgraph as ig

torch.set_num_threads(1)  # more threads do not help networks this small
torch.manual_seed(0)
times = torch.linspace(0, 4, 64)
low, high = torch.tensor([1.0, 0.0]), torch.tensor([3.0, 1.0])


def simulate(count):
    frequency, damping = (low + (high - low) * torch.rand(count, 2)).split(1, dim=1)
    series = torch.exp(-damping * times) * torch.sin(2 * frequency * times)
    series = series + 0.3 * torch.randn(count, len(times))
    return torch.cat([frequency, damping], dim=1), series[:, None]


# %%
# Declare
# -------
#
# A :class:`~invgraph.FeatureNode` contains a network that reads the series and is trained with the flow.
# :class:`~invgraph.Box` maps the bounded parameters to all real numbers, so samples never leave the bounds of the prior.

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
h = ig.Node(parameters, ig.Box, {"low": low, "high": high}, name="box")
for k in range(4):
    h = ig.Node(h, ig.Orthogonal, name=f"rotate_{k}")
    h = ig.Node(h, ig.Coupling, block, conditions=summary, name=f"couple_{k}")
graph = ig.Graph(parameters, h, series)
posterior = ig.Flow(graph)
graph

# %%
# Train on simulations
# --------------------

optimizer = torch.optim.Adam(posterior.parameters(), lr=3e-3)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 300)
for _ in range(300):
    theta, y = simulate(128)
    loss = -posterior.log_prob(theta, y).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
print(f"last batch: {loss.item():.2f} nats")

# %%
# Infer the parameters of one measurement
# ---------------------------------------
#
# ``given`` fixes the condition. The network then reads the series only once, for any number of samples.

truth, observed = simulate(1)
samples = posterior.given(observed[0]).sample((2000,))

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
# If the posterior is right, the rank of the true value among its samples is uniformly distributed. Two hundred
# simulations reveal only large errors; use more for your own work.

theta, y = simulate(200)
draws = posterior.sample(100, y)
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
