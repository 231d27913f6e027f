"""One planted mistake, and the test files that the tables name."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[3]
"""The checkout."""

CONTRACT = "tests/core/test_contract.py"
FUSED_AFFINE, FUSED_COUPLING = "tests/fused/test_affine.py", "tests/fused/test_affine_coupling.py"
FUSED_AUTOREGRESSIVE = "tests/fused/test_affine_autoregressive.py"
FUSED_BLOCK, FUSED_CHANNEL = "tests/fused/test_affine_block.py", "tests/fused/test_channel_affine.py"
FUSED_CHANNELS = "tests/fused/test_plu.py"
FUSED_CHANNELS_LAST = "tests/fused/test_channels_last.py"
FUSED_JOINT = "tests/fused/test_joint_linear.py"
FUSED_SEQUENCE, FUSED_SPLINE = "tests/fused/test_sequence.py", "tests/fused/test_rational_quadratic.py"
FUSED_CONVOLUTION, SWITCH = "tests/fused/test_convolution.py", "tests/fused/test_switch.py"
ADAPTERS, TORCH_INTERNALS = "tests/habits/test_adapters.py", "tests/test_torch_internals.py"
SPLINES, BIJECTIONS = "tests/transforms/test_splines.py", "tests/transforms/test_bijections.py"
CIRCULAR_SHIFT = "tests/transforms/test_circular_shift.py"
NETS, KNOWN_SHAPE = "tests/nets/test_nets.py", "tests/core/test_known_shape.py"
LAYERS, LINEAR, ALL_IN_ONE = (f"tests/layers/test_{name}.py" for name in ("layers", "linear_layers", "all_in_one"))
AUTOREGRESSIVE, PATCHES = "tests/layers/test_autoregressive.py", "tests/layers/test_patch_autoregressive.py"
COUPLING = "tests/layers/test_coupling.py"
STALE_VALUES, DERIVED = "tests/layers/test_stale_values.py", "tests/core/test_derived_weights.py"
SUPPORT = "tests/densities/test_support.py"
RESIDUAL, MIXTURE = "tests/layers/test_residual.py", "tests/layers/test_gaussian_mixture.py"
CONTINUOUS = "tests/layers/test_continuous_flow.py"
NODES, BAD_INPUT, BOUND = (f"tests/graph/test_{name}.py" for name in ("nodes", "bad_input", "bound"))
COMPILE, SEEDS, RESIZE, TRACE = (f"tests/graph/test_{name}.py" for name in ("compile", "seeds", "resize", "trace"))
TIED, PATCHED = "tests/graph/test_tied.py", "tests/graph/test_patched_layers.py"
RANDOM_GRAPHS = "tests/graph/test_random_graphs.py"
REVERSIBLE = "tests/reversible/test_reversible.py"
BOUND_FLOW, CHUNKS = "tests/densities/test_bound_flow.py", "tests/densities/test_chunks.py"
CHECKPOINT, DAMAGE, ATOMIC_FILE, RNG_STATE, STATE = (
    f"tests/checkpoint/test_{name}.py"
    for name in ("checkpoint", "checkpoint_damage", "atomic_file", "rng_state", "state")
)
FINGERPRINT, META = "tests/checkpoint/test_fingerprint.py", "tests/core/test_meta_device.py"
TENSOR_FILE, BOX = "tests/checkpoint/test_tensor_file.py", "tests/layers/test_box.py"
EXPORT = "tests/test_export.py"
LAB, METRICS, UPSAMPLING, PHOTO_RESUME, PHOTO_MODELS = (
    f"tests/examples/test_example_colorization_{name}.py"
    for name in ("lab", "metrics", "upsampling", "resume", "models")
)
TRAINER, HABITS = "tests/examples/test_example_trainer.py", "tests/habits/test_habits.py"
DEQUANTIZE = "tests/layers/test_dequantize.py"
FLOW_SAMPLES, CHUNKS = "tests/densities/test_bound_flow.py", "tests/densities/test_chunks.py"
LATENTS = "tests/densities/test_latents.py"
RANDOM_COMPILED = "tests/reversible/test_reversible_graphs.py"
FLOW, FAULTS, DIAGNOSE, INIT = (f"tests/test_{name}.py" for name in ("flow", "faults", "diagnose", "init"))


class Mutant(NamedTuple):
    """A mistake: the text that it replaces in a file of the package, and pytest's arguments for the tests to run.

    A file of the examples has ``examples/`` before its path.
    """

    label: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    @property
    def path(self) -> str:
        """The file's path in the checkout."""
        return self.file if self.file.startswith("examples/") else f"invgraph/{self.file}"

    def problems(self) -> list[str]:
        """Reasons why the mistake can't be planted or tested as the table says; none if all is well."""
        path = ROOT / self.path
        found = [f"{test} does not exist" for test in self.tests if test.endswith(".py") and not (ROOT / test).exists()]
        if not path.exists():
            return [*found, f"{self.path} does not exist"]
        count = path.read_text().count(self.old)
        return found if count == 1 else [*found, f"its text occurs {count} times in the file, not once"]

    def plant(self, folder: Path) -> None:
        """Make the mistake in this copy of the checkout."""
        path = folder / self.path
        path.write_text(path.read_text().replace(self.old, self.new))
