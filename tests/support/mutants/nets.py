"""Mistakes in the subnets."""

from __future__ import annotations

from .mutant import CONTRACT, FINGERPRINT, KNOWN_SHAPE, LAYERS, NETS, PATCHES, RESIDUAL, Mutant

MUTANTS = (
    Mutant("a subnet forgets all conditions but the last", "nets/entry.py",
           "total = part if total is None else total + part", "total = part", (LAYERS,)),
    Mutant("a convolution forgets its conditions", "nets/feedforward.py",
           "        return sum_of_conditions(self.conditions, cs, self.rank + 1)",
           "        return ()", (LAYERS,)),
    Mutant("a condition of another size is taken for one that fits", "nets/entry.py",
           " if all(one in (shape, shape[:1]) for one in added) else None", "", (KNOWN_SHAPE,)),
    Mutant("a network with a hook is not tried", "nets/feedforward.py",
           "if not is_untouched(self, Subnet.forward):", "if False:", (KNOWN_SHAPE,)),
    Mutant("a residual network with a hook is not tried", "nets/residual.py",
           "(is_untouched(self, Subnet.forward) and is_untouched(self.blocks, nn.Sequential.forward))",
           "is_untouched(self.blocks, nn.Sequential.forward)", (KNOWN_SHAPE,)),
    Mutant("a residual block with a hook is not tried", "nets/residual.py",
           "not is_untouched(block, ResidualBlock.forward) or ", "", (KNOWN_SHAPE,)),
    Mutant("a subnet's activation overwrites what it was given", "nets/feedforward.py",
           "    h = add_conditions(before, before(x), given)",
           "    x.relu_()\n    h = add_conditions(before, before(x), given)",
           (CONTRACT, "-k", "caller and Elementwise")),
    Mutant("the last layer of an MLP is not zero at the start", "nets/feedforward.py",
           ", sizes[1], bias=False) for shape in cond_shapes)\n        for layer in (*self.layers, *self.conditions):\n"
           "            initialize(cast(nn.Linear, layer), zero=layer is self.layers[-1])",
           ", sizes[1], bias=False) for shape in cond_shapes)\n        for layer in (*self.layers, *self.conditions):\n"
           "            initialize(cast(nn.Linear, layer), zero=False)", (LAYERS,)),
    Mutant("the last layer of a convolutional subnet is not zero at the start", "nets/feedforward.py",
           "            for shape in cond_shapes\n        )\n        for layer in (*self.layers, *self.conditions):\n"
           "            initialize(cast(nn.Linear, layer), zero=layer is self.layers[-1])",
           "            for shape in cond_shapes\n        )\n        for layer in (*self.layers, *self.conditions):\n"
           "            initialize(cast(nn.Linear, layer), zero=False)", (NETS,)),
    Mutant("tokens attend to later ones", "nets/transformer.py",
           ".triu(1)\n", ".triu(2)\n", (PATCHES,)),
    Mutant("the heads of an attention are not in the fingerprint", "nets/transformer.py",
           'return f"heads={self.heads}, causal={self.causal}"', 'return f"causal={self.causal}"', (FINGERPRINT,)),
    Mutant("the squares of huge weights overflow", "nets/contraction.py",
           "m = torch.where(largest > 0, m / torch.where(largest > 0, largest, 1.0), 1.0)",
           "m, largest = torch.where(largest > 0, m, 1.0), largest > 0", (RESIDUAL,)),
    Mutant("the norm of a zero matrix has no second derivative", "nets/contraction.py",
           "m = torch.where(largest > 0, m / torch.where(largest > 0, largest, 1.0), 1.0)",
           "m = m / torch.where(largest > 0, largest, 1.0)", (RESIDUAL,)),
)  # fmt: skip
