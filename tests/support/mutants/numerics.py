"""Mistakes in the numerical helpers."""

from __future__ import annotations

from .mutant import BAD_INPUT, BIJECTIONS, CONTRACT, DIAGNOSE, FUSED_AUTOREGRESSIVE, LAYERS, Mutant

MUTANTS = (
    Mutant("the gradient through the clamp forgets its bound", "fused/affine_gradient.py",
           "value=least * (factor / alpha) ** 2", "value=least * factor**2", (FUSED_AUTOREGRESSIVE,)),
    Mutant("the clamp is dropped", "numerics/soft_clamp.py",
           "clamped = function(s if inner == 1 else s * inner)", "clamped = s + 0", (LAYERS,)),
    Mutant("the clamp's bound is alpha times pi / 2", "numerics/soft_clamp.py",
           "1 / alpha, 2 * alpha / math.pi", "1 / alpha, alpha", (LAYERS,)),
    Mutant("a coupling splits in the middle whatever it was told", "numerics/channels.py",
           "math.floor(channels * number + 1e-9) if isinstance(number, float) else number", "channels // 2", (LAYERS,)),
    Mutant("a part of no channels is allowed", "numerics/channels.py",
           "if not 0 < first < channels:", "if not 0 <= first <= channels:", (BAD_INPUT,)),
    Mutant("a root is found without its implicit derivative", "numerics/root_finding.py",
           "return _newton(function, _newton(function, root, target), target)", "return root",
           (CONTRACT, "-k", "MixtureCDF")),
    Mutant("the second derivative of a root is missing", "numerics/root_finding.py",
           "_newton(function, _newton(function, root, target), target)", "_newton(function, root, target)",
           (BIJECTIONS,)),
    Mutant("the lengths of a power iteration are those of the batch", "numerics/singular_value.py",
           "[part.flatten(1).square().sum(1) for part in vector]",
           "[part.square().sum().expand(len(part)) for part in vector]", (DIAGNOSE,)),
    Mutant("a power iteration ends after its first step", "numerics/singular_value.py",
           "if not bool((found > before * (1 + _CONVERGED)).any()):", "if True:", (DIAGNOSE,)),
    Mutant("a power iteration ends when one sample stands still", "numerics/singular_value.py",
           "(found > before * (1 + _CONVERGED)).any()", "(found > before * (1 + _CONVERGED)).all()", (DIAGNOSE,)),
    Mutant("a difference quotient is one of twice the step", "numerics/singular_value.py",
           "(a - b) / (2 * step)", "(a - b) / step", (DIAGNOSE,)),
)  # fmt: skip
