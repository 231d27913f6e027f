"""
Training at scale
=================

For deep graphs, long runs and several processes: how to train in constant memory, how to compile, and how to stop a run
and resume it bit for bit.
"""

# %%
# Memory that does not grow with depth
# ------------------------------------
#
# Plain training keeps what every layer needs for its backward pass. ``ig.reversible`` keeps only the inputs,
# conditions and outputs of the graph, and recomputes the rest. Here we count the bytes that are kept, for graphs of
# images with 4 to 32 couplings.

import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch

import invgraph as ig

torch.set_num_threads(1)  # more threads do not help networks this small


def build(depth):
    x = ig.InputNode(4, 16, 16, name="image")
    block = {"transform": ig.Affine(clamp=1.0), "subnet": ig.nets.ConvNet(16)}
    h = x
    for k in range(depth):
        h = ig.Node(h, ig.Orthogonal, name=f"rotate_{k}")
        h = ig.Node(h, ig.Coupling, block, name=f"couple_{k}")
    return ig.Graph(x, h)


def kept(model, x):
    """Count the bytes that one forward pass keeps for the backward pass."""
    storages = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = model(x)  # keeps the tensors alive until it is deleted
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    del outputs
    return sum(size for pointer, size in storages.items() if pointer not in own)


images = torch.randn(16, 4, 16, 16)
depths = [4, 8, 16, 32]
plain, constant = [], []
for depth in depths:
    graph = build(depth)
    plain.append(kept(graph, images) / 2**20)
    constant.append(kept(ig.reversible(graph), images) / 2**20)
    print(
        f"{depth:2d} couplings: {plain[-1]:5.1f} MiB, reversible {constant[-1]:.2f}"
    )

plt.figure(figsize=(5, 3), layout="constrained")
plt.plot(depths, plain, "o-", label="plain")
plt.plot(depths, constant, "o-", label="reversible")
plt.xlabel("couplings")
plt.ylabel("MiB kept for the backward pass")
plt.ylim(bottom=0)
plt.legend()

# %%
# The gradients are the same
# --------------------------
#
# They differ only by rounding, because inputs are recomputed from outputs.

graph = build(8)
ig.testing.randomize(graph, scale=0.1)


def gradient(model):
    z, log_det = model(images)
    loss = (z.square().sum() / 2 - log_det.sum()) / len(images)
    return torch.autograd.grad(loss, list(graph.parameters()))


pairs = zip(gradient(graph), gradient(ig.reversible(graph)), strict=True)
print(
    f"largest difference: {max((a - b).abs().max().item() for a, b in pairs):.1e}"
)

# %%
# Compile both directions
# -----------------------
#
# ``graph.compile()`` compiles the forward and the inverse pass in place, and equal couplings only once. Compilation
# happens in the first call. ``backend="eager"`` only checks that the whole graph can be traced; leave it out for speed.

graph.compile(backend="eager")
with torch.no_grad():
    z, _ = graph(images)
    back, _ = graph.inverse(z)
print(f"round trip of the compiled graph: {(back - images).abs().max().item():.1e}")

# %%
# Two processes, stopped and resumed
# ----------------------------------
#
# ``torchrun`` starts this program in every process. ``DistributedDataParallel`` wraps the flow. Call the wrapper to
# compute the loss, because only then are gradients averaged over the processes. One process saves, and all of them load.
#
# .. literalinclude:: /gallery/at_scale/train.py
#    :language: python
#    :start-at: def batch
#    :end-before: if __name__
#
# The complete program is :download:`train.py </gallery/at_scale/train.py>`. Here it runs in two processes, first for 40
# steps without a break, then for 25 steps and from the checkpoint to step 40:


def torchrun(folder, steps):
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    program = ["--standalone", "at_scale/train.py", folder, str(steps)]
    done = subprocess.run(launch + program, capture_output=True, text=True)
    print(done.stdout.strip() if done.returncode == 0 else done.stderr)


with tempfile.TemporaryDirectory() as whole, tempfile.TemporaryDirectory() as parts:
    torchrun(whole, 40)
    torchrun(parts, 25)
    torchrun(parts, 40)
    files = [Path(folder, "latest.safetensors") for folder in (whole, parts)]
    print("equal files:", files[0].read_bytes() == files[1].read_bytes())

# %%
# Both runs end with the same bytes. This requires that the data depend only on the step and the process, as they do here.
# If they come from torch's global generator, save and restore its state with ``ig.rng_state()`` as well
# (:doc:`/checkpoints`).
