"""Mistakes in reversible graphs."""

from __future__ import annotations

from .mutant import REVERSIBLE, Mutant

MUTANTS = (
    Mutant("a second derivative of a reversible graph is wrong in silence", "reversible/runner.py",
           "if torch.is_grad_enabled():\n            advice = \"second", "if False:\n            advice = \"second",
           (REVERSIBLE,)),
    Mutant("dropout in a reversible graph is run again with other numbers", "reversible/runner.py",
           "if not all(torch.equal(a, b) for a, b in zip(random,",
           "if not all(True for a, b in zip(random,", (REVERSIBLE,)),
    Mutant("backward of a reversible graph runs without the forward's autocast", "reversible/runner.py",
           "with ctx.autocast.again(), FrozenStatistics(runner.graph), torch.no_grad():",
           "with FrozenStatistics(runner.graph), torch.no_grad():", (REVERSIBLE,)),
    Mutant("batch norm counts a batch once more in backward", "reversible/runner.py",
           "with ctx.autocast.again(), FrozenStatistics(runner.graph), torch.no_grad():",
           "with ctx.autocast.again(), torch.no_grad():", (REVERSIBLE,)),
    Mutant("what the anchors kept goes to the steps in the other order", "reversible/runner.py",
           "found[step], kept = kept[: len(step.inputs)], kept[len(step.inputs) :]",
           "found[step], kept = kept[-len(step.inputs) :], kept[: -len(step.inputs)]", (REVERSIBLE,)),
    Mutant("a value that two nodes read has the gradient of the last one", "reversible/backward.py",
           "self.slopes[slot] = added(self.slopes[slot], slope)", "self.slopes[slot] = slope", (REVERSIBLE,)),
    Mutant("the log-det of a node has no gradient in a reversible graph", "reversible/backward.py",
           "for slot in step.outputs), slope_log_det)", "for slot in step.outputs), None)", (REVERSIBLE,)),
    Mutant("the gradient of a conditioning network stops at its conditions", "reversible/backward.py",
           "self._add(step.conditions, found[: len(leaves)])", "pass", (REVERSIBLE,)),
    Mutant("the rebuilt inputs are not compared with the kept ones", "reversible/backward.py",
           "        self._compare(schedule.starts, starts, starts)\n", "", (REVERSIBLE,)),
    Mutant("rounding is carried past an anchor", "reversible/backward.py",
           "self._put(step.inputs, tuple(value.detach() for value in anchored[step]))", "pass", (REVERSIBLE,)),
    Mutant("the guard names the node that loses least", "reversible/backward.py",
           "layer = named[max(steps,", "layer = named[min(steps,", (REVERSIBLE,)),
    Mutant("inner values that a node is conditioned on are not rebuilt for it", "reversible/plan.py",
           "_provide((*step.conditions, *(() if step in early else step.outputs)), known,",
           "_provide(() if step in early else step.outputs, known,", (REVERSIBLE,)),
)  # fmt: skip
