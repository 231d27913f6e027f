"""Mistakes in checkpoints."""

from __future__ import annotations

from .mutant import CHECKPOINT, DAMAGE, FINGERPRINT, Mutant

MUTANTS = (
    Mutant("a refused random state stays half set", "checkpoint/rng_state.py",
           "        _set(before)\n", "", (CHECKPOINT, "-k", "random_states")),
    Mutant("the state of numpy's generator is not put back", "checkpoint/rng_state.py",
           '    np.random.set_state(state["numpy"])\n', "", (CHECKPOINT, "-k", "random_states")),
    Mutant("the state of Python's generator is not put back", "checkpoint/rng_state.py",
           '    random.setstate(state["python"])\n', "", (CHECKPOINT, "-k", "random_states")),
    Mutant("missing random states are left as they are", "checkpoint/rng_state.py",
           "[name for name in _NAMES if name not in state]", "[]", (CHECKPOINT, "-k", "random_states")),
    Mutant("the digest of a checkpoint is not compared", "checkpoint/checkpoint.py",
           "if found.hexdigest().encode() != digest:", "if len(found.hexdigest()) != len(digest):", (DAMAGE,)),
    Mutant("the bytes before the digest are not in it", "checkpoint/checkpoint.py",
           "found = hashlib.sha256(content[:start])", "found = hashlib.sha256(b\"\")", (CHECKPOINT,)),
    Mutant("a graph that refuses a checkpoint stays half loaded", "checkpoint/loading.py",
           "        graph.load_state_dict(before, assign=assign)\n", "", (CHECKPOINT,)),
    Mutant("a checkpoint ignores the layers where the tensors agree", "checkpoint/loading.py",
           "if layers or tensors:", "if tensors:", (CHECKPOINT,)),
    Mutant("tuples of training state come back as lists", "checkpoint/state.py",
           'else "Size" if isinstance(value, torch.Size) else "tuple"', 'else "list"', (CHECKPOINT,)),
    Mutant("keys of training state become strings", "checkpoint/state.py",
           "name = encode(key, tensors,", "name = encode(str(key), tensors,", (CHECKPOINT,)),
    Mutant("the wiring is not in the fingerprint", "checkpoint/fingerprint.py",
           'f"{line} of {reads[path]}" if path in reads else line', "line", (CHECKPOINT,)),
    Mutant("the arguments of a layer are not in the fingerprint", "checkpoint/fingerprint.py",
           "return f\"{type(module).__name__}({' '.join(module.extra_repr().split())})\"",
           'return f"{type(module).__name__}()"', (FINGERPRINT,)),
    Mutant("a checkpoint is written over the old one", "checkpoint/atomic_file.py",
           'temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}.tmp")', "temporary = path", (DAMAGE,)),
    Mutant("an interrupted save leaves its temporary file", "checkpoint/atomic_file.py",
           "except BaseException:", "except ZeroDivisionError:", (DAMAGE,)),
    Mutant("the leftovers of a writer at work are swept", "checkpoint/atomic_file.py",
           "_STALE_SECONDS = 3600", "_STALE_SECONDS = -3600", (CHECKPOINT,)),
    Mutant("a named pipe is written over", "checkpoint/atomic_file.py",
           "if not stat.S_ISREG(mode):", "if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):", (CHECKPOINT, DAMAGE)),
)  # fmt: skip
