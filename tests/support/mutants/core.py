"""Mistakes in what all layers share."""

from __future__ import annotations

from .mutant import CONTRACT, DIAGNOSE, INIT, LAYERS, Mutant

MUTANTS = (
    Mutant("the second condition is not concatenated to a plain subnet's data", "core/subnet.py",
           "torch.cat((x, *spread), dim=1)", "torch.cat((x, *(s for s in list(spread)[:1] * len(shared))), dim=1)",
           (LAYERS,)),
    Mutant("tuples of a layer that is held by another are nested once more", "core/invertible.py",
           "(outputs if isinstance(outputs, tuple) else (outputs,)), log_det", "(outputs,), log_det",
           (CONTRACT, "-k", "Inverse")),
    Mutant("Inverse goes forward both ways", "core/invertible.py",
           "return flat_call(self.module.inverse, self._inputs(), self._conditions(), xs, cs)",
           "return flat_call(self.module, self._outputs(), self._conditions(), xs, cs)", (CONTRACT, "-k", "Inverse")),
    Mutant("an inverted layer starts as if it were not inverted", "core/invertible.py",
           "        self.module._initialize_inverse(xs, cs)", "        self.module._initialize(xs, cs)", (INIT,)),
    Mutant("a diagnosis leaves the graph in evaluation mode", "core/modes.py",
           "            part.training = training\n", "            pass\n", (DIAGNOSE,)),
)  # fmt: skip
