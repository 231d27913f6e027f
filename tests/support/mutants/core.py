"""Mistakes in what all layers share."""

from __future__ import annotations

from .mutant import BOUND, CONTRACT, DIAGNOSE, INIT, LAYERS, NODES, RESIZE, REVERSIBLE, Mutant

MUTANTS = (
    Mutant("a layer at another size may have other channels", "core/invertible.py",
           "if old[0] != new[0] or len(old) != len(new):", "if len(old) != len(new):", (RESIZE,)),
    Mutant("the original is a part of the layer at another size", "core/resized.py",
           'other.__dict__["_resized_from"] = layer._resized_from or layer',
           "other._resized_from = layer._resized_from or layer", (RESIZE,)),
    Mutant("the second condition is not concatenated to a plain subnet's data", "core/subnet.py",
           "torch.cat((x, *spread), dim=1)", "torch.cat((x, *(s for s in list(spread)[:1] * len(shared))), dim=1)",
           (LAYERS,)),
    Mutant("the inverse of a layer that is held by another is checked and packed like a user's call",
           "core/invertible.py",
           "return layer.inverse(CheckedTensors(xs), given)", "return layer.inverse(xs, given)", (NODES, BOUND)),
    Mutant("what a subnet made of the conditions is handed over in fewer rows than it takes", "core/subnet.py",
           "if not self.broadcasts:", "if False:", (BOUND,)),
    Mutant("Inverse goes forward both ways", "core/wrappers.py",
           "return call_checked(self.module, xs, given, inverse=True)",
           "return call_checked(self.module, xs, given, inverse=False)", (CONTRACT, "-k", "Inverse")),
    Mutant("an inverted layer starts as if it were not inverted", "core/wrappers.py",
           "        self.module._initialize_inverse(xs, cs)", "        self.module._initialize(xs, cs)", (INIT,)),
    Mutant("a diagnosis leaves the graph in evaluation mode", "core/modes.py",
           "            part.training = training\n", "            pass\n", (DIAGNOSE,)),
    Mutant("a parameter of two layers has the gradient of the last one", "core/vjp.py",
           "grad if before is None else before + grad", "grad", (REVERSIBLE,)),
    Mutant("a parameter that a kernel reads has no gradient in a reversible graph", "core/vjp.py",
           "self.add(parameters, found[len(cs) :])", "pass", (REVERSIBLE,)),
    Mutant("the part that a coupling's network reads has no gradient through it", "core/vjp.py",
           "part_grads[1 - side] if read_grad is None else part_grads[1 - side] + read_grad", "part_grads[1 - side]",
           (REVERSIBLE, "-k", "every_layer and Coupling")),
    Mutant("a condition has the gradient of a coupling's last side alone", "core/vjp.py",
           "[add_grads(a, b) for a, b in zip(condition_grads, others[: len(cs)], strict=True)]", "others[: len(cs)]",
           (REVERSIBLE, "-k", "every_layer and Coupling")),
)  # fmt: skip
