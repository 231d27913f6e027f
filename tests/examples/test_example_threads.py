"""The number of threads that the training loop of the examples chooses, on a machine whose time the tests set."""

import process_group
import pytest
import torch
import trainer
from test_example_trainer import RECIPE, fit, same
from threads import STEPS, Threads, numbers_of_threads

import invgraph as ig


class Machine:
    """Machine on which a step with a number of threads takes the given seconds; it keeps what was said."""

    def __init__(self, **seconds):
        self.seconds = {int(name[1:]): value for name, value in seconds.items()}
        self.now, self.threads, self.said, self.ran = 0.0, max(self.seconds), [], []

    def set_threads(self, number):
        self.threads = number

    def choose(self, candidates=(1, 2), chosen=0):
        return Threads(
            candidates, self.said.append, chosen=chosen, clock=lambda: self.now, set_threads=self.set_threads
        )

    def run(self, threads, steps, seconds=None):
        for _ in range(steps):
            with threads.step():
                self.ran.append(self.threads)
                self.now += self.seconds[self.threads] if seconds is None else seconds


@pytest.mark.parametrize(("most", "numbers"), [(1, (1,)), (2, (1, 2)), (3, (1, 2, 3)), (16, (1, 2, 4, 8, 16))])
def test_powers_of_two_and_the_largest_number_are_tried(most, numbers):
    assert numbers_of_threads(most) == numbers


@pytest.mark.parametrize(("one", "two", "best"), [(0.6, 0.4, 2), (0.4, 0.6, 1)])
def test_the_fastest_number_is_taken_and_said(one, two, best):
    machine = Machine(t1=one, t2=two)
    threads = machine.choose()
    machine.run(threads, 20)
    assert machine.ran == [1] * STEPS + [2] * STEPS + [best] * (20 - 2 * STEPS)
    assert threads.chosen == best
    count = "1 thread" if best == 1 else "2 threads"
    assert machine.said == [f"timed a step: 1 thread {one} s, 2 threads {two} s; training with {count}"]


def test_a_number_that_is_ten_times_slower_gets_one_step():
    machine = Machine(t1=0.43, t2=8.2, t4=0.2)
    machine.run(machine.choose((1, 2, 4)), 10)
    assert machine.ran == [1] * STEPS + [2] + [4] * 6


def test_the_first_step_of_a_number_is_not_counted():
    machine = Machine(t1=0.4, t2=0.3)
    threads = machine.choose()
    machine.run(threads, STEPS)
    machine.run(threads, 1, seconds=2.0)
    machine.run(threads, 4)
    assert machine.threads == 2


def test_a_step_ten_times_slower_starts_the_search_again():
    machine = Machine(t1=0.6, t2=0.4)
    threads = machine.choose()
    machine.run(threads, 2 * STEPS + 5)
    machine.seconds = {1: 0.7, 2: 8.2}
    machine.run(threads, 1 + 2 * STEPS)
    assert machine.said[1] == "a step took 8.20 s instead of 0.40 s: timing the threads again"
    assert machine.said[2].endswith("2 threads 8.2 s; training with 1 thread")
    assert (machine.threads, threads.chosen) == (1, 1)
    before = len(machine.said)
    machine.run(threads, 20, seconds=6.9)  # slower, but not tenfold
    assert len(machine.said) == before


def test_short_steps_never_start_the_search_again():
    machine = Machine(t1=0.001, t2=0.002)
    threads = machine.choose()
    machine.run(threads, 10)
    machine.run(threads, 5, seconds=0.4)
    assert len(machine.said) == 1


def test_a_resumed_run_keeps_its_number_and_still_notices_slow_steps():
    machine = Machine(t1=0.6, t2=0.4)
    threads = machine.choose(chosen=1)
    machine.run(threads, STEPS + 1)
    assert machine.ran == [1] * (STEPS + 1)
    assert machine.said == []
    machine.run(threads, 1, seconds=6.5)
    machine.run(threads, 10)
    assert machine.threads == 2


@pytest.mark.parametrize(("candidates", "chosen", "left_with"), [((), 0, 2), ((), 1, 2), ((1,), 2, 1), ((2,), 0, 2)])
def test_without_a_choice_nothing_is_timed(candidates, chosen, left_with):
    machine = Machine(t1=0.6, t2=0.4)
    machine.run(machine.choose(candidates, chosen), 10)
    assert machine.ran == [left_with] * 10
    assert machine.said == []


def test_training_chooses_says_so_and_goes_on_with_it(tmp_path, monkeypatch, capsys):
    machine = Machine(t1=0.6, t2=0.4)
    monkeypatch.setattr(trainer, "Threads", lambda candidates, say, chosen: Threads(
        candidates, say, chosen=chosen, clock=tick, set_threads=machine.set_threads))  # fmt: skip

    def tick():
        machine.now += machine.seconds[machine.threads]
        return machine.now

    plain, _ = fit(tmp_path / "plain", RECIPE)
    capsys.readouterr()
    monkeypatch.setattr("test_example_trainer.HERE", process_group.Place(torch.device("cpu"), threads=(1, 2)))
    fit(tmp_path / "m", RECIPE, until=8)
    said = "timed a step: 1 thread 0.6 s, 2 threads 0.4 s; training with 2 threads"
    assert said in capsys.readouterr().err
    assert ig.load(tmp_path / "m").training["threads"] == 2
    machine.threads = 1
    resumed, _ = fit(tmp_path / "m", RECIPE, resume=True)
    assert machine.threads == 2
    assert "timed" not in capsys.readouterr().err
    assert same(plain, resumed)


def test_a_run_of_an_earlier_version_can_be_resumed(tmp_path):
    fit(tmp_path / "m", RECIPE, until=5)
    state = ig.load(tmp_path / "m")
    old = {name: value for name, value in state.training.items() if name != "threads"}
    flow, _ = fit(tmp_path / "other", RECIPE, until=5)
    ig.load(tmp_path / "m", flow)
    ig.save(tmp_path / "m", flow, training=old)
    _, history = fit(tmp_path / "m", RECIPE, resume=True)
    assert history.finished


def test_the_place_has_torch_s_numbers_unless_one_is_given(monkeypatch):
    given = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(torch, "set_num_threads", given.append)
    with process_group.place("cpu") as where:
        assert where.threads == (1, 2, 4)
    assert given == []
    with process_group.place("cpu", 3) as where:
        assert where.threads == ()
    assert given == [3]
    with process_group.place("meta") as where:  # as on a GPU
        assert where.threads == ()
