"""Mistakes in the subnets."""

from __future__ import annotations

from .mutant import CONTRACT, FINGERPRINT, FUSED_COUPLING, LAYERS, NETS, PATCHES, Mutant

MUTANTS = (
    Mutant("hooks of a subnet's layers are passed by", "nets/feedforward.py",
           "return bool(hooks)", "return False", (FUSED_COUPLING,)),
    Mutant("an MLP forgets all conditions but the last", "nets/feedforward.py",
           "total = torch.addmm(total, c,", "total = torch.addmm(cast(nn.Linear, self.layers[0]).bias, c,", (LAYERS,)),
    Mutant("a convolution forgets its conditions", "nets/feedforward.py",
           "add_share(first(x), shared[0]) if shared else first(x)", "first(x)", (LAYERS,)),
    Mutant("a subnet's activation overwrites what it was given", "nets/feedforward.py",
           "        h: Tensor = _plus_share(x, cast(nn.Linear, first), shared[0]) if shared else first(x)",
           "        x.relu_()\n"
           "        h: Tensor = _plus_share(x, cast(nn.Linear, first), shared[0]) if shared else first(x)",
           (CONTRACT, "-k", "caller and Elementwise")),
    Mutant("the last layer of an MLP is not zero at the start", "nets/feedforward.py",
           ", sizes[1], bias=False) for shape in cond_shapes)\n        for layer in (*self.layers, *self.conditions):\n"
           "            start(cast(nn.Linear, layer), zero=layer is self.layers[-1])",
           ", sizes[1], bias=False) for shape in cond_shapes)\n        for layer in (*self.layers, *self.conditions):\n"
           "            start(cast(nn.Linear, layer), zero=False)", (LAYERS,)),
    Mutant("the last layer of a convolutional subnet is not zero at the start", "nets/feedforward.py",
           "            for shape in cond_shapes\n        )\n        for layer in (*self.layers, *self.conditions):\n"
           "            start(cast(nn.Linear, layer), zero=layer is self.layers[-1])",
           "            for shape in cond_shapes\n        )\n        for layer in (*self.layers, *self.conditions):\n"
           "            start(cast(nn.Linear, layer), zero=False)", (NETS,)),
    Mutant("tokens attend to later ones", "nets/transformer.py",
           ".triu(1)\n", ".triu(2)\n", (PATCHES,)),
    Mutant("the heads of an attention are not in the fingerprint", "nets/transformer.py",
           'return f"heads={self.heads}, causal={self.causal}"', 'return f"causal={self.causal}"', (FINGERPRINT,)),
)  # fmt: skip
