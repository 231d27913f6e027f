"""Mistakes in distributions, training, calibration, and the layers that bounded and standardized data need."""

from __future__ import annotations

from .mutant import Mutant

DISTRIBUTION = "tests/distributions/test_flow_distribution.py"
TRANSFORM = "tests/distributions/test_graph_transform.py"
SUPPORT = "tests/distributions/test_support.py"
TRAINING, CALIBRATION = "tests/inference/test_training.py", "tests/inference/test_calibration.py"
PICTURES, SUMMARY, BOX = "tests/inference/test_pictures.py", "tests/nets/test_summary.py", "tests/layers/test_box.py"
RECIPE = "tests/recipes/test_splines.py"

MUTANTS = (
    Mutant("all elements have the support of the widest", "core/ranges.py",
           'if self.range_kind == "same" and len(moved) == len(ends):', "if False:", (SUPPORT,)),
    Mutant("a flow in a box has all real numbers as its support", "layers/box.py",
           "(torch.stack((self.low, self.high)),) if within is None", "(within,) if within is None", (SUPPORT,)),
    Mutant("what was computed from the conditions is used after the parameters changed", "distributions/conditioned.py",
           "if self._kept is None or self._kept[0] != state or not all(map(torch.equal, self._kept[1], values)):",
           "if self._kept is None:", (DISTRIBUTION,)),
    Mutant("a change through .data is not seen by a density under conditions", "distributions/conditioned.py",
           " or not all(map(torch.equal, self._kept[1], values)):", ":", (DISTRIBUTION, "-k", "until_something")),
    Mutant("a hook that is added later is not called under conditions", "distributions/conditioned.py",
           "calls, hooks, *counts)", "calls, *counts)", (DISTRIBUTION, "-k", "until_something")),
    Mutant("a module that takes another's place is not seen under conditions", "distributions/conditioned.py",
           "[(part, type(part).forward, _settings(part)) for part in parts]",
           "[(type(part).forward, _settings(part)) for part in parts]", (DISTRIBUTION, "-k", "until_something")),
    Mutant("a weight that is no parameter is not looked at under conditions", "distributions/conditioned.py",
           "return (*held, *others, *self.rows)", "return (*held, *self.rows)",
           (DISTRIBUTION, "-k", "until_something")),
    Mutant("dropout is drawn once for all calls under conditions", "distributions/conditioned.py",
           "(state, values, bound) if is_fixed else None", "state, values, bound", (DISTRIBUTION, "-k", "drawn_anew")),
    Mutant("gradients do not reach what is computed from the conditions", "distributions/conditioned.py",
           "self.graph.bind(ports.pack(self.rows), gradients=True)", "self.graph.bind(ports.pack(self.rows))",
           (DISTRIBUTION,)),
    Mutant("a transform returns its last pair after a change", "distributions/graph_transform.py",
           "return not value.is_inference() and state == self._state(x, y)", "return True", (TRANSFORM,)),
    Mutant("the log-det of the inverse is kept with the inverse's sign", "distributions/graph_transform.py",
           "self._last = self._state(x, y), x, y, -log_det", "self._last = self._state(x, y), x, y, log_det",
           (TRANSFORM,)),
    Mutant("training goes on from the averaged parameters", "inference/training.py",
           "            history.best, best = epoch, deepcopy(model.state_dict())\n        averaged.swap()\n",
           "            history.best, best = epoch, deepcopy(model.state_dict())\n", (TRAINING,)),
    Mutant("training leaves the last parameters instead of the best", "inference/training.py",
           "    model.load_state_dict(best)\n    model.eval()\n", "    model.eval()\n", (TRAINING,)),
    Mutant("late decay sets in at the last parameters instead of the best", "inference/training.py",
           "            model.load_state_dict(best)\n            late =", "            late =", (TRAINING,)),
    Mutant("late decay goes on as long as its own loss falls", "inference/training.py",
           "if len(part) > window and gap > 0:", "if False:", (TRAINING,)),
    Mutant("late decay ends where its loss is above the best one", "inference/training.py",
           "gap >= 3 * (min(part[:-window]) - min(part))", "True", (TRAINING,)),
    Mutant("an equal loss counts as better", "inference/training.py",
           "if history.validation.index(min(history.validation)) == epoch:",
           "if history.validation[-1] <= min(history.validation):", (TRAINING,)),
    Mutant("late decay is that of a step, not of an epoch", "inference/training.py",
           "late_decay / (lr * math.ceil(len(train) / batch))", "late_decay / lr", (TRAINING,)),
    Mutant("conditions are shuffled apart from their data", "inference/rows.py",
           "taken = tuple(value[rows.to(value.device)] for value in values)\n            yield",
           "taken = tuple(value[rows.to(value.device)] for value in values)\n            rows = rows.flip(0)\n"
           "            yield",
           (TRAINING,)),
    Mutant("levels count what is less probable than the truth", "inference/calibration.py",
           "(log_prob > of_truth)", "(log_prob < of_truth)", (CALIBRATION,)),
    Mutant("the band is that of equal bins where they are not", "inference/calibration.py",
           "-(-classes // bins) / classes", "1 / bins", (CALIBRATION,)),
    Mutant("few draws bias the coverage", "inference/calibration.py",
           "(self.levels.double() * self.draws + 0.5) / (self.draws + 1)", "self.levels.double()", (CALIBRATION,)),
    Mutant("the band leaves out twice the probability", "inference/calibration.py",
           "tail, classes = (1 - probability) / 2", "tail, classes = 1 - probability", (CALIBRATION,)),
    Mutant("contours hold the shares of the most probable bin", "inference/pictures.py",
           "falling.cumsum(0) / falling.sum()", "falling / falling.sum()", (PICTURES,)),
    Mutant("a box has a density outside", "layers/box.py",
           "outside = (x < self.low) | (x > self.high)", "outside = x < self.low", (BOX,)),
    Mutant("a box forgets its width", "layers/box.py", "-below - above - width.log()", "-below - above", (BOX,)),
    Mutant("one member of a set is read instead of all", "nets/summary.py",
           ".mean(1)\n        count", "[:, 0]\n        count",
           (SUMMARY,)),
    Mutant("the recipe does not standardize", "recipes/splines.py",
           "data is not None:\n        h = Node(h, Standardize", "data is None:\n        h = Node(h, Standardize",
           (RECIPE,)),
    Mutant("the recipe standardizes bounded data by moments of the box", "recipes/splines.py",
           "None if data is None else box((data.to(box.low),))[0][0]", "data", (RECIPE,)),
)  # fmt: skip
