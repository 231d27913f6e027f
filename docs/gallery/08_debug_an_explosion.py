"""
Debug a flow that explodes
==========================

The loss falls, falls, and is suddenly NaN; or samples are nonsense although the likelihood is fine. Three tools find
the node that is to blame.
"""

# %%
# A flow with a problem
# ---------------------
#
# The clamp of the scales is far too wide, the learning rate too high, and one column of the data has spikes.

import matplotlib.pyplot as plt
import torch

import invgraph as ig

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
print(f"loss: {exploded[0]:.3g} nats at first, {exploded[-1]:.3g} at last")

# %%
# 1. Where does precision go?
# ---------------------------
#
# ``diagnose`` measures every node on data. Look for large gains: each multiplies the rounding error of what comes before
# it. Couplings whose clamps are saturated want to go further than they may.

batch = data(256)
print(ig.diagnose(flow.graph, batch))

# %%
# 2. Who makes the first NaN?
# ---------------------------
#
# A graph built with ``check_finite=True`` looks after every node. Here the weights of one coupling are spoilt on
# purpose, as an optimizer step with an infinite gradient does it.

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
# Mend it
# -------
#
# In this order: noise on data that has spikes, for a density of discrete values has no bound; a narrower clamp; gradient
# clipping; a smaller learning rate.

torch.manual_seed(1)
mended = build(clamp=1.5)
losses = train(mended, noise=0.1, rate=3e-3, clip=5.0, steps=200)
print(f"loss: {losses[0]:.3g} nats at first, {losses[-1]:.3g} at last")
print(f"largest error of a round trip: {round_trip(mended.graph):.1e}")

plt.figure(figsize=(6, 3), layout="constrained")
plt.plot(exploded, label="as it was")
plt.plot(losses, label="mended")
plt.yscale("symlog")
plt.xlabel("step")
plt.ylabel("negative log-likelihood, nats")
plt.legend()
