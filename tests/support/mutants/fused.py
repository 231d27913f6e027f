"""Mistakes in the hand-written gradients."""

from __future__ import annotations

from .mutant import CONTRACT, FUSED_AFFINE, FUSED_COUPLING, Mutant

MUTANTS = (
    Mutant("the log-det of the inverse has the forward's sign", "fused/affine.py",
           "div_(scales[0]), log_det.neg_()", "div_(scales[0]), log_det", (CONTRACT, "-k", "Coupling-Affine")),
    Mutant("the shift is added before the scale", "fused/affine.py",
           "y = torch.addcmul(t, x, scales[0], out=out)", "y = torch.mul(x + t, scales[0], out=out)",
           (CONTRACT, "-k", "Coupling-Affine")),
    Mutant("the gradient of the scale forgets the log-det", "fused/affine.py",
           "torch.addcmul(log_det_slope, x_slope, x, out=raw_slope)", "torch.mul(x_slope, x, out=raw_slope)",
           (FUSED_AFFINE,)),
    Mutant("the gradient of the inverse's scale has the forward's sign", "fused/affine.py",
           "torch.addcmul(-log_det_slope, y_slope, y, value=-1, out=raw_slope)",
           "torch.addcmul(log_det_slope, y_slope, y, out=raw_slope)", (FUSED_AFFINE,)),
    Mutant("a gradient is overwritten before the shift has read it", "fused/affine.py",
           "            t_slope.copy_(y_slope)\n            x_slope = torch.mul(y_slope, scale, out=out)",
           "            x_slope = torch.mul(y_slope, scale, out=out)\n            t_slope.copy_(y_slope)",
           (FUSED_COUPLING,)),
    Mutant("a hidden layer's gradient passes where ReLU was zero", "fused/mlp.py",
           "_past_relu(slope @ self.weights[k], read, 0)", "slope @ self.weights[k]", (FUSED_COUPLING,)),
    Mutant("a condition's weights get the data's gradient", "fused/mlp.py",
           "found[k] = turned @ c", "found[k] = turned @ (c + 1)", (FUSED_COUPLING,)),
    Mutant("the second side of a dense coupling is told to have read the part before it changed",
           "fused/affine_coupling.py",
           "read = after[other] if place else before[other]", "read = before[other]", (FUSED_COUPLING,)),
    Mutant("the other part's own gradient is dropped", "fused/affine_coupling.py",
           "torch.addmm(current[other], slope, net.weights[0], out=out[other])",
           "torch.mm(slope, net.weights[0], out=out[other])", (FUSED_COUPLING,)),
    Mutant("a condition gets the gradient of one side alone", "fused/affine_coupling.py",
           "found[k] = more if so_far is None else so_far.add_(more)", "found[k] = more", (FUSED_COUPLING,)),
    Mutant("the part that a one-sided dense coupling leaves is not passed on", "fused/affine_coupling.py",
           "            after[1].copy_(before[1])", "            after[1].zero_()", (FUSED_COUPLING,)),
    Mutant("later derivatives are those of the numbers alone", "fused/dispatch.py",
           "create_graph=again", "create_graph=False", (FUSED_COUPLING,)),
    Mutant("a value gets the gradient of what was made of it too", "fused/dispatch.py",
           "own = [value.view_as(value) for value in values]", "own = list(values)",
           (FUSED_AFFINE,)),
)  # fmt: skip
