"""
Debug a flow that explodes
==========================

The loss falls for a while and is suddenly NaN, or samples look wrong although the likelihood is good. Three tools find
the node that causes it.
"""

# %%
# A flow with a problem
# ---------------------
#
# The clamp of the scales is far too wide, the learning rate is too high, and one column of the data has spikes.

import matplotlib.pyplot as plt
import torch

import invgraph as ig

torch.set_num_threads(1)  # more threads do not help networks this small
torch.manual_seed(0)


def data(count):
    x = torch.randn(count, 4)
    spikes = torch.rand(count) < 0.02
    x[:, 3] = spikes * 30.0  # zero nearly everywhere: an infinitely likely value
    return x


def build(clamp, **settings):
    x = ig.InputNode(4, name="x")
    block = {"transform": ig.Affine(clamp=clamp), "subnet": ig.nets.MLP(32)}
    h = x
    for k in range(5):
        h = ig.Node(h, ig.Orthogonal, name=f"rotate_{k}")
        h = ig.Node(h, ig.Coupling, block, name=f"couple_{k}")
    return ig.Flow(ig.Graph(x, h, **settings))


def train(flow, rate, noise=0.0, clip=None, steps=150):
    optimizer = torch.optim.Adam(flow.parameters(), lr=rate)
    losses = []
    for _ in range(steps):
        x = data(128)
        loss = -flow.log_prob(x + noise * torch.randn_like(x)).mean()
        optimizer.zero_grad()
        loss.backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(flow.parameters(), clip)
        optimizer.step()
        losses.append(loss.item())
    return losses


torch.manual_seed(1)
flow = build(clamp=20.0)
exploded = train(flow, rate=3e-2, steps=200)
print(f"loss: first {exploded[0]:.3g} nats, last {exploded[-1]:.3g} nats")

# %%
# 1. Where is precision lost?
# ---------------------------
#
# ``diagnose`` measures every node on data. Look for large gains: each multiplies the rounding error of the nodes before
# it. If many clamps of a coupling are saturated, its scales have reached their bounds.

batch = data(256)
print(ig.diagnose(flow.graph, batch))

# %%
# 2. Which node produces the first NaN?
# -------------------------------------
#
# A graph built with ``check_finite=True`` checks the output of every node. Here we set the weights of one coupling to NaN,
# as an optimizer step with an infinite gradient would.

careful = build(clamp=2.0, check_finite=True)
with torch.no_grad():
    next(careful.graph["couple_2"].parameters()).fill_(float("nan"))
try:
    careful.log_prob(data(8))
except ig.NumericsError as error:
    print(error)

# %%
# 3. Is the round trip still exact?
# ---------------------------------


def round_trip(graph):
    with torch.no_grad():
        z, _ = graph(batch)
        return (graph.inverse(z)[0] - batch).abs().max().item()


print(f"largest error of a round trip: {round_trip(flow.graph):.1e}")

# %%
# Fix it
# ------
#
# Try these remedies in this order: noise on data that has spikes, because the density of discrete values is unbounded; a
# narrower clamp; gradient clipping; a smaller learning rate.

torch.manual_seed(1)
mended = build(clamp=1.5)
losses = train(mended, noise=0.1, rate=3e-3, clip=5.0, steps=200)
print(f"loss: first {losses[0]:.3g} nats, last {losses[-1]:.3g} nats")
print(f"largest error of a round trip: {round_trip(mended.graph):.1e}")

plt.figure(figsize=(6, 3), layout="constrained")
plt.plot(exploded, label="before")
plt.plot(losses, label="fixed")
plt.yscale("symlog")
plt.yticks([1, 1e10, 1e20, 1e30])
plt.xlabel("step")
plt.ylabel("negative log-likelihood, nats")
plt.legend()
