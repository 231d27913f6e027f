"""Mistakes in the transforms."""

from __future__ import annotations

from .mutant import BIJECTIONS, CONTRACT, SPLINES, Mutant

MUTANTS = (
    Mutant("the sum of a log-det includes the batch", "numerics/reductions.py",
           "terms.flatten(1).sum(1)", "terms.sum().expand(terms.shape[0])", (CONTRACT, "-k", "Coupling-Affine")),
    Mutant("a log-det is summed over the channels only", "numerics/reductions.py",
           "terms.flatten(1).sum(1)", "terms.sum(1).flatten(1)[:, 0] if terms.ndim > 2 else terms.sum(1)",
           (CONTRACT, "-k", "Coupling-Affine")),
    Mutant("a log-det is accumulated in float32", "numerics/reductions.py",
           "terms.flatten(1).sum(1)", "terms.flatten(1).float().sum(1).to(terms.dtype)",
           (CONTRACT, "-k", "Coupling-Affine")),
    Mutant("the mean is not taken off the log scales", "transforms/volume_preserving.py",
           "s - s.mean(dim=tuple(range(1, s.ndim)), keepdim=True)", "s", (CONTRACT, "-k", "VolumePreserving")),
    Mutant("the mean of the log scales includes the batch", "transforms/volume_preserving.py",
           "dim=tuple(range(1, s.ndim))", "dim=tuple(range(s.ndim))", (CONTRACT, "-k", "VolumePreserving")),
    Mutant("the inverse of a shift is the shift", "transforms/additive.py",
           "y - params[:, 0]", "y + params[:, 0]", (CONTRACT, "-k", "Additive")),
    Mutant("a knot belongs to the bin on its left", "transforms/spline.py",
           "(x.unsqueeze(1) >= knots[:, 1:-1])", "(x.unsqueeze(1) > knots[:, 1:-1])", (SPLINES,)),
    Mutant("the least size of a bin is not taken off the rest", "transforms/spline.py",
           "least + (1 - least * raw.shape[1]) * torch.softmax", "least + torch.softmax", (SPLINES,)),
    Mutant("the last knot is the sum of the bins, as it was rounded", "transforms/spline.py",
           "return torch.cat((-last, inner, last), dim=1)",
           "return torch.cat((-last, inner, (sizes.cumsum(1) * (2 * half) - half)[:, -1:]), dim=1)", (SPLINES,)),
    Mutant("the tails of a spline keep the slope of its middle", "transforms/spline.py",
           "per_sample(torch.where(inside, log_slope, 0.0))", "per_sample(log_slope)", (SPLINES,)),
    Mutant("the log scale is missing in a mixture's density", "transforms/mixture_cdf.py",
           "torch.logsumexp(shares - self.log_scales, dim=dim)", "torch.logsumexp(shares, dim=dim)",
           (CONTRACT, "-k", "MixtureCDF")),
    Mutant("the quotient of a mixture's slope divides by the large side first", "transforms/mixture_cdf.py",
           "(log_cdf > log_rest).unsqueeze(dim)", "(log_cdf < log_rest).unsqueeze(dim)", (BIJECTIONS,)),
    Mutant("the bracket of a mixture's inverse is one component's", "transforms/mixture_cdf.py",
           "return roots.amin(1), roots.amax(1)", "return roots[:, 0], roots[:, 0]", (CONTRACT, "-k", "MixtureCDF")),
    Mutant("the slope of a Bernstein polynomial forgets the degree", "transforms/bernstein.py",
           "torch.log(slope.squeeze(dim) * degree)", "torch.log(slope.squeeze(dim))", (CONTRACT, "-k", "Bernstein")),
    Mutant("the ends of a Bernstein polynomial have a slope of their own", "transforms/bernstein.py",
           "end = torch.full_like(steps[:, :1], 1 / self.degree)",
           "end = torch.full_like(steps[:, :1], 1.1 / self.degree)", (BIJECTIONS,)),
)  # fmt: skip
