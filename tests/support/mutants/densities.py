"""Mistakes in samples and densities of a flow."""

from __future__ import annotations

from .mutant import CHUNKS, FLOW, FLOW_SAMPLES, LATENTS, Mutant

MUTANTS = (
    Mutant("the temperature is squared", "densities/latents.py",
           "[z * temperature for z in drawn]", "[z * temperature**2 for z in drawn]", (FLOW,)),
    Mutant("the normal's constant is left out of the density", "densities/latents.py",
           "return -0.5 * square - 0.5 * self.dims * math.log(2 * math.pi)", "return -0.5 * square", (FLOW,)),
    Mutant("the density of the first output stands for all", "densities/latents.py",
           "else torch.stack(squares).sum(0)", "else squares[0]", (LATENTS,)),
    Mutant("bases of several outputs count once", "densities/latents.py",
           "return torch.stack(parts).sum(0)", "return parts[0]", (FLOW,)),
    Mutant("latents are drawn in single precision", "densities/latents.py",
           "torch.randn(count, *shape, generator=generator, dtype=like.dtype, device=like.device)",
           "torch.randn(count, *shape, generator=generator).to(like)", (FLOW,)),
    Mutant("the generator of latents is not used", "densities/latents.py",
           "torch.randn(count, *shape, generator=generator, dtype", "torch.randn(count, *shape, dtype", (FLOW,)),
    Mutant("a base is cooled towards zero instead of its mean", "densities/bases.py",
           "return mean + temperature * (z - mean)", "return temperature * z", (FLOW,)),
    Mutant("the density of samples has the log-det of the other direction", "densities/bound_flow.py",
           "return x, torch.unflatten(log_prob, 0, (n, rows)) - log_det",
           "return x, torch.unflatten(log_prob, 0, (n, rows)) + log_det", (FLOW_SAMPLES, FLOW)),
    Mutant("samples of several conditions are mixed up", "densities/bound_flow.py",
           "tuple([torch.unflatten(part, 0, (n, rows)) for part in z])",
           "tuple([torch.unflatten(part, 0, (rows, n)).transpose(0, 1) for part in z])", (FLOW_SAMPLES, FLOW)),
    Mutant("a flow in half precision gives log-densities", "arguments.py",
           "if log_prob.dtype in (torch.float16, torch.bfloat16):", "if False:", (FLOW_SAMPLES, FLOW)),
    Mutant("some conditions at a time get the latents of others", "densities/chunks.py",
           "torch.unflatten(value, 0, (n, rows))[:, part].flatten(0, 1)",
           "torch.unflatten(value, 0, (n, rows)).roll(-1, 1)[:, part].flatten(0, 1)", (CHUNKS,)),
    Mutant("the weight of the prior is halved", "flow.py",
           "loss = loss + tau * torch.stack(", "loss = loss + 0.5 * tau * torch.stack(", (FLOW,)),
    Mutant("frozen parameters are in the prior", "flow.py",
           "[parameter for parameter in self.parameters() if parameter.requires_grad] if tau",
           "[parameter for parameter in self.parameters()] if tau", (FLOW,)),
)  # fmt: skip
