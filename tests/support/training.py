"""Small training run with every kind of state that must survive a resume, used by the checkpoint tests."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import invgraph as ig


def make_flow(blocks: int = 3, hidden: int = 8, clamp: float = 1.0) -> ig.Flow:
    """Build a flow for images of 16 pixels, with a feature node, permutations, couplings and an ActNorm."""
    x, digit = ig.InputNode(1, 4, 4, name="image"), ig.ConditionNode(10, name="digit")
    feature = ig.FeatureNode(digit, nn.Linear, {"in_features": 10, "out_features": 4}, name="embedding")
    h = ig.Node(ig.Node(x, ig.Flatten, name="flatten"), ig.ActNorm, name="norm")
    for k in range(blocks):
        h = ig.Node(h, ig.Permute, {"seed": k}, name=f"permute_{k}")
        args = {"transform": ig.Affine(clamp=clamp), "subnet": ig.nets.MLP(hidden=hidden)}
        h = ig.Node(h, ig.Coupling, args, conditions=feature, name=f"coupling_{k}")
    return ig.Flow(ig.Graph(x, h, digit))


class Run:
    """Training run with Adam, a schedule, a gradient scaler, a data cursor, and noise from several generators."""

    def __init__(self, seed: int = 0, **flow: Any) -> None:
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        self.flow = make_flow(**flow)
        data = torch.Generator().manual_seed(99)
        self.images = torch.randn(64, 1, 4, 4, generator=data)
        self.labels = nn.functional.one_hot(torch.randint(10, (64,), generator=data), 10).float()
        self.flow.graph.initialize(self.images, self.labels)
        self.optimizer = torch.optim.Adam(self.flow.parameters(), lr=1e-3)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, 1e-2, total_steps=1000)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=7)
        self.generator = torch.Generator().manual_seed(seed)
        self.cursor = 0

    def step(self) -> float:
        rows = torch.arange(self.cursor, self.cursor + 16) % 64
        noise = torch.randn(16, 1, 4, 4, generator=self.generator) * 0.1 + torch.randn(1) * 0.1
        noise = noise + float(np.random.standard_normal()) * 0.1 + random.gauss(0, 0.1)
        self.optimizer.zero_grad()
        loss = self.flow.loss(self.images[rows] + noise, self.labels[rows])
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()
        self.cursor += 16
        return loss.item()

    def save(self, path: Path) -> None:
        training = {
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "generator": self.generator.get_state(),
            "rng": ig.rng_state(),
            "cursor": self.cursor,
        }
        ig.save(path, self.flow, training=training, metadata={"steps": self.cursor // 16})

    def load(self, path: Path) -> None:
        training = ig.load(path, self.flow).training
        self.optimizer.load_state_dict(training["optimizer"])
        self.schedule.load_state_dict(training["schedule"])
        self.scaler.load_state_dict(training["scaler"])
        self.generator.set_state(training["generator"])
        ig.set_rng_state(training["rng"])
        self.cursor = training["cursor"]

    @property
    def steps(self) -> int:
        return self.cursor // 16

    def digest(self) -> str:
        return digest(self.flow)


def digest(module: nn.Module) -> str:
    """Return the SHA-256 of all parameters and buffers."""
    found = hashlib.sha256()
    for name, value in module.state_dict().items():
        assert isinstance(value, Tensor)
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def write_often(path: Path, writer: int) -> None:
    """Save a flow whose parameters all are the writer's number, again and again."""
    flow = make_flow(hidden=32)
    for parameter in flow.parameters():
        nn.init.constant_(parameter, float(writer))
    for step in range(20):
        ig.save(path, flow, metadata={"writer": writer, "step": step})
