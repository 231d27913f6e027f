"""Mistakes in the files that lie in no folder of the package."""

from __future__ import annotations

from .mutant import BAD_INPUT, BOUND_FLOW, CHUNKS, DIAGNOSE, FLOW, Mutant

MUTANTS = (
    Mutant("batches of different sizes are accepted", "core/ports.py",
           "elif value.shape[0] != first.shape[0]:", "elif False:", (BAD_INPUT,)),
    Mutant("the channels of an input are not checked", "core/ports.py",
           "if value.shape[1:] != self.shapes[index] or value.ndim == 0:", "if value.ndim == 0:", (BAD_INPUT,)),
    Mutant("log_prob forgets the log-det", "flow.py",
           "self.latents.log_prob(self.graph._outputs().unpack(\"Flow\", z)) + log_det",
           "self.latents.log_prob(self.graph._outputs().unpack(\"Flow\", z)) + 0 * log_det", (FLOW,)),
    Mutant("the log-det of samples has the forward's sign", "densities/bound_flow.py",
           ", 0, (n, rows)) - log_det", ", 0, (n, rows)) + log_det", (BOUND_FLOW,)),
    Mutant("a point for every condition is taken for one for each", "densities/bound_flow.py",
           "return (*axes[:-1], rows if last == 1 else last)", "return axes", (BOUND_FLOW,)),
    Mutant("each chunk of conditions has the first ones' latents", "densities/chunks.py",
           "value, 0, (n, rows))[:, part]", "value, 0, (n, rows))[:, : part.stop - part.start]", (CHUNKS,)),
    Mutant("the last chunk overwrites the first", "graph/bound.py",
           "result[place * rows : place * rows + part.shape[0]]", "result[: part.shape[0]]", (CHUNKS,)),
    Mutant("the loss keeps the normal's constant", "flow.py",
           "0.5 * self.dims * math.log(2 * math.pi)\n        loss", "0.0\n        loss", (FLOW,)),
    Mutant("denoising takes sigma for its square", "flow.py", "deviation * deviation * g", "deviation * g", (FLOW,)),
    Mutant("the inverse gain is measured at the inputs", "diagnose.py",
           "_largest_gain(inverse, ys, iterations, seed)", "_largest_gain(forward, xs, iterations, seed)", (DIAGNOSE,)),
    Mutant("nodes inside nested graphs count twice in the shares", "diagnose.py",
           'sum(abs(row.log_det) for row in rows if "." not in row.name)', "sum(abs(row.log_det) for row in rows)",
           (DIAGNOSE,)),
)  # fmt: skip
