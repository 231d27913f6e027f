"""The benchmark's own parts: its simulator, its classifier, its table. The tasks come from sbibm."""

import json
import types
from pathlib import Path

import pytest
import sbi_benchmark
import torch


def test_predator_and_prey_follow_their_equations():
    parameters = torch.tensor([[0.6, 0.03, 0.9, 0.02]]).expand(200, 4)
    levels = sbi_benchmark.lotka_volterra(parameters).view(200, 2, 10).log().mean(0).exp()  # less noise
    prey, predators = levels.double()
    assert (prey[0], predators[0]) == (pytest.approx(30, rel=0.03), pytest.approx(1, rel=0.03))
    alpha, beta, gamma, delta = parameters[0].double()
    constant = delta * prey - gamma * prey.log() + beta * predators - alpha * predators.log()
    torch.testing.assert_close(constant, constant[:1].expand(10), atol=0.12, rtol=0)


def test_the_classifier_tells_shifted_samples_as_often_as_theory_says():
    reference = torch.randn(400, 1)
    shifted = torch.randn(400, 1) + 2
    best = torch.distributions.Normal(0.0, 1.0).cdf(torch.tensor(1.0)).item()
    same, other = sbi_benchmark.c2st([(reference, torch.randn(400, 1)), (reference, shifted)])
    assert same == pytest.approx(0.5, abs=0.06)
    assert other == pytest.approx(best, abs=0.04)


def test_the_table_shows_means_over_the_seeds():
    row = {"task": "slcp", "simulations": 1000, "model": "zuko NSF", "test_log_prob": -8.0, "cpu_seconds": 3.0}
    row |= {"parameters": 5, "samples": 10, "observations": 2, "lr": 0.003, "patience": 20, "late_decay": 0.05}
    rows = [{**row, "seed": 2, "c2st": 0.8}, {**row, "seed": 1, "c2st": 0.9}]
    assert "zuko NSF                 1 2       0.850            -8.000      3" in sbi_benchmark.table(rows)
    del rows[0]["c2st"]  # not measured yet: no mean of some seeds
    assert "zuko NSF                 1 2                        -8.000      3" in sbi_benchmark.table(rows)


class Task:
    """One observation at the origin in two dimensions, seen without noise: the posterior is where the prior is."""

    def get_reference_posterior_samples(self, number):
        return torch.zeros(30, 2)


def test_what_is_there_is_not_run_again_unless_settings_differ(tmp_path, monkeypatch, capsys):
    trained, scored = [], []

    def train(problem, simulations, seed, name, args):
        trained.append((simulations, seed, args.observations, args.lr))
        row = {"task": "slcp", "simulations": simulations, "seed": seed, "model": name, "c2st_each": []}
        row |= {**sbi_benchmark.settings(args), "test_log_prob": 0.0, "cpu_seconds": 1.0, "parameters": 5}
        torch.save([torch.full((30, 2), float(k)) for k in range(10)], sbi_benchmark.samples_file(row, args))
        return row

    def c2st(pairs):
        if len(scored) == stop:
            raise KeyboardInterrupt
        scored.append(pairs[0][1][0, 0].item())
        return [0.5 + 0.1 * scored[-1]]

    stop = 3
    monkeypatch.setattr(sbi_benchmark, "train", train)
    monkeypatch.setattr(sbi_benchmark, "c2st", c2st)
    monkeypatch.setattr(sbi_benchmark, "Problem", lambda name: types.SimpleNamespace(task=Task()))
    common = ["--tasks", "slcp", "--models", "zuko NSF", "--seeds", "4", "5", "--out", str(tmp_path)]
    with pytest.raises(KeyboardInterrupt):
        sbi_benchmark.main([*common, "--observations", "2"])
    stop = -1
    sbi_benchmark.main([*common, "--observations", "2"])
    assert scored == [0, 1, 0, 1]  # the second seed went on where it was cut off
    sbi_benchmark.main([*common, "--observations", "3"])
    sbi_benchmark.main([*common, "--observations", "2", "--lr", "0.1"])
    assert trained == [(1000, 4, 2, 0.003), (1000, 5, 2, 0.003), (1000, 4, 3, 0.003), (1000, 5, 3, 0.003),
                       (1000, 4, 2, 0.1), (1000, 5, 2, 0.1)]  # fmt: skip
    capsys.readouterr()
    sbi_benchmark.main([*common, "--observations", "3", "--table"])
    assert capsys.readouterr().out.count("zuko NSF                 4 5 ") == 3  # one for each of the settings
    assert len(scored) == 14
    assert list((tmp_path / "samples").iterdir()) == []


def test_the_page_of_the_documentation_is_that_of_the_results():
    docs = Path(__file__).parents[2] / "docs"
    rows = json.loads((docs / "sbi_benchmark.json").read_text())
    text = (docs / "sbi_benchmark.inc").read_text()
    assert text == sbi_benchmark.page(rows), (
        "run examples/sbi_benchmark.py --table --out ... --page docs/sbi_benchmark.inc"
    )
    groups = {(row["task"], row["simulations"], row["late_decay"]) for row in rows}
    scored = {(row["task"], row["simulations"], row["late_decay"]) for row in rows if "c2st" in row}
    assert text.count("**") == 2 * (len(groups) + len(scored))
