"""
Variational inference with a flow
=================================

Here the target density is known up to a constant, and there are no samples of it. The flow is trained on its own
samples: ``rsample_and_log_prob`` returns them together with their log-density in one pass, with gradients.
"""

# %%
# A density with a bend
# ---------------------

import matplotlib.pyplot as plt
import torch

import invgraph as ig

torch.set_num_threads(1)  # more threads do not help networks this small
torch.manual_seed(0)


def log_target(z):
    """Log-density, up to a constant, of a curved ridge."""
    return (
        -0.5 * (z[:, 0] / 1.5) ** 2
        - 0.5 * ((z[:, 1] - z[:, 0] ** 2 / 2 + 1) / 0.4) ** 2
    )


# %%
# The approximation
# -----------------
#
# A flow without conditions. Sampling runs the inverse direction, so choose layers that are fast in it, such as couplings.

x = ig.InputNode(2, name="z")
block = {"transform": ig.Affine(clamp=2.0), "subnet": ig.nets.MLP(32, layers=2)}
h = x
for k in range(6):
    h = ig.Node(h, ig.Permute, {"order": (1, 0)}, name=f"swap_{k}")
    h = ig.Node(h, ig.Coupling, block, name=f"couple_{k}")
flow = ig.Flow(ig.Graph(x, h))

# %%
# Maximize the evidence lower bound
# ---------------------------------
#
# ``given()`` returns the flow as a ``torch.distributions.Distribution``. This flow has no conditions, so it takes no
# arguments.

optimizer = torch.optim.Adam(flow.parameters(), lr=5e-3)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 400)
bounds = []
for _ in range(400):
    draws, log_q = flow.given().rsample_and_log_prob((256,))
    bound = (log_target(draws) - log_q).mean()
    optimizer.zero_grad()
    (-bound).backward()
    torch.nn.utils.clip_grad_norm_(flow.parameters(), 5)
    optimizer.step()
    schedule.step()
    bounds.append(bound.item())

# The constant of this target is known, so we can see how tight the bound is.
constant = torch.log(2 * torch.pi * torch.tensor(1.5 * 0.4))
print(f"log of the normalizing constant {constant:.3f}")
print(f"lower bound {sum(bounds[-50:]) / 50:.3f}")

# %%

across, up = torch.meshgrid(
    torch.linspace(-5, 5, 200), torch.linspace(-3, 9, 200), indexing="xy"
)
grid = torch.stack([across.flatten(), up.flatten()], dim=1)
with torch.no_grad():
    fitted = flow.log_prob(grid).exp()
figure, axes = plt.subplots(1, 3, figsize=(10, 3), layout="constrained")
for axis, title, values in (
    (axes[0], "target", log_target(grid).exp()),
    (axes[1], "flow", fitted),
):
    axis.contourf(
        across.numpy(),
        up.numpy(),
        values.view_as(across).numpy(),
        levels=12,
        cmap="Blues",
    )
    axis.set(title=title)
axes[2].plot(bounds)
axes[2].axhline(constant, color="k", ls="--")
axes[2].set(title="lower bound; dashed: exact", ylim=(-4, 2), xlabel="step")

# %%
# Correct the remaining error
# ---------------------------
#
# With importance weights, expectations under the approximation become exact in the limit of many samples. Their effective
# sample size measures the quality of the approximation.

draws, log_q = flow.given().rsample_and_log_prob((4000,))
weights = torch.softmax((log_target(draws) - log_q).detach(), dim=0)
print(f"effective sample size {1 / weights.square().sum() / 4000:.0%}")
print(f"E[z0^2] = {(weights * draws[:, 0].detach() ** 2).sum():.2f}, exact 2.25")
