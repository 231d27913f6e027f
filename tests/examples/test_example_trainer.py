"""The training loop that the examples share, on a flow of six numbers."""

import math
import os
import signal

import process_group
import progress
import pytest
import torch
import trainer
from batches import Order, mix_seed
from recipe import Recipe

import invgraph as ig

HERE = process_group.Place(torch.device("cpu"))


def toy(seed=0):
    """A flow of six numbers given one of three classes."""
    torch.manual_seed(seed)
    x, c = ig.InputNode(6, name="x"), ig.ConditionNode(3, name="c")
    h = ig.Node(x, ig.Coupling, {"transform": ig.Affine(), "subnet": ig.nets.MLP(hidden=8)}, conditions=c, name="first")
    h = ig.Node(ig.Node(h, ig.Permute, {"seed": 1}, name="permute"), ig.Coupling,
                {"transform": ig.Affine(), "subnet": ig.nets.MLP(hidden=8)}, conditions=c, name="second")  # fmt: skip
    return ig.Flow(ig.Graph(x, h, c))


VALUES = torch.randn(100, 6, generator=torch.Generator().manual_seed(5)) * torch.arange(1.0, 7.0)


CLASSES = torch.eye(3)[torch.arange(100) % 3]


def toy_draw(rows):
    return VALUES[rows] + 0.1 * torch.randn(len(rows), 6), CLASSES[rows]


def toy_loss(model, x, c):
    return -model(x, c).mean() / 6


def fit(path, recipe, *, flow=None, **options):
    flow = toy() if flow is None else flow
    history = trainer.train(flow, toy_loss, toy_draw, 100, recipe, where=HERE, checkpoint=path, **options)
    return flow, history


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


RECIPE = Recipe(steps=10, batch=16, rate=1e-2, warmup=2, average=0.9)


class TestTraining:
    def test_twenty_steps_lower_the_loss(self, tmp_path):
        _, history = fit(tmp_path / "m", Recipe(steps=20, batch=32, rate=2e-2))
        assert history.finished
        assert history.step == list(range(1, 21))
        assert history.loss[-1] < history.loss[0] - 0.5

    @pytest.mark.parametrize("average", [0.0, 0.9])
    @pytest.mark.parametrize("stop", [1, 5, 7, 9])
    def test_a_resumed_run_is_bit_for_bit_the_whole_one(self, tmp_path, average, stop):
        recipe = Recipe(steps=10, batch=16, rate=1e-2, warmup=2, average=average)
        whole, history = fit(tmp_path / "whole", recipe)
        torch.manual_seed(99)
        _, first = fit(tmp_path / "parts", recipe, until=stop)
        torch.manual_seed(7)
        resumed, rest = fit(tmp_path / "parts", recipe, flow=toy(seed=3), resume=True)
        assert same(whole, resumed)
        assert not first.finished
        assert rest.finished
        assert (rest.step, rest.loss, rest.rate) == (history.step, history.loss, history.rate)
        assert ig.load(tmp_path / "whole").training["step"] == 10

    def test_losses_before_a_stop_are_in_the_next_record(self, tmp_path):
        recipe = Recipe(steps=40, batch=16)  # a record every second step
        _, whole = fit(tmp_path / "whole", recipe)
        fit(tmp_path / "parts", recipe, until=7)
        _, rest = fit(tmp_path / "parts", recipe, resume=True)
        assert rest.loss == whole.loss

    def test_saving_in_between_changes_nothing(self, tmp_path, monkeypatch):
        whole, _ = fit(tmp_path / "whole", RECIPE)
        monkeypatch.setattr(trainer, "SAVE_SECONDS", 0)
        often, _ = fit(tmp_path / "often", RECIPE)
        assert same(whole, often)

    def test_the_checkpoint_holds_the_weights_to_use(self, tmp_path):
        trained, _ = fit(tmp_path / "m", RECIPE, metadata={"some": "thing"})
        loaded = toy(seed=4)
        assert ig.load(tmp_path / "m", loaded).metadata == {"some": "thing"}
        assert same(trained, loaded)

    def test_averaged_weights_are_not_the_last_ones(self, tmp_path):
        averaged, _ = fit(tmp_path / "a", RECIPE)
        last, _ = fit(tmp_path / "b", Recipe(steps=10, batch=16, rate=1e-2, warmup=2))
        assert not same(averaged, last)

    def test_another_seed_is_another_run(self, tmp_path):
        a, _ = fit(tmp_path / "a", RECIPE, seed=0)
        b, _ = fit(tmp_path / "b", RECIPE, seed=1)
        assert not same(a, b)

    def test_resuming_with_other_settings_is_refused(self, tmp_path):
        fit(tmp_path / "m", RECIPE, until=5)
        other = Recipe(steps=12, batch=16, rate=1e-2, warmup=2, average=0.9)
        with pytest.raises(ValueError, match="steps 10 -> 12, seed 0 -> 1"):
            fit(tmp_path / "m", other, resume=True, seed=1)

    def test_resuming_what_was_saved_without_training_state_is_refused(self, tmp_path):
        ig.save(tmp_path / "m", toy())
        with pytest.raises(ValueError, match="no training state"):
            fit(tmp_path / "m", RECIPE, resume=True)

    def test_a_loss_that_is_not_finite_stops_the_run(self, tmp_path):
        def lost(model, x, c):
            return toy_loss(model, x, c) * math.nan

        with pytest.raises(RuntimeError, match=r"became nan before step 1: .*nothing was saved"):
            trainer.train(toy(), lost, toy_draw, 100, RECIPE, where=HERE, checkpoint=tmp_path / "m")
        assert not (tmp_path / "m").exists()

    def test_weights_that_are_not_finite_are_not_saved(self, tmp_path):
        fit(tmp_path / "m", RECIPE, until=5)
        before = (tmp_path / "m").read_bytes()

        def spoiled(model, x, c):  # the loss is finite, its gradient is not
            return toy_loss(model, x, c) + (0 * next(model.parameters()).sum()).sqrt()

        with pytest.raises(
            process_group.DivergedError, match=r"weights became .* before step 6: .*m holds an earlier state"
        ):
            trainer.train(toy(), spoiled, toy_draw, 100, RECIPE, where=HERE, checkpoint=tmp_path / "m",
                          resume=True, until=6)  # fmt: skip
        assert (tmp_path / "m").read_bytes() == before

    def test_a_batch_that_is_given_later_is_begun_before_the_step_that_precedes_it(self, tmp_path):
        events = []

        def later(rows):
            batch = toy_draw(rows)
            events.append("begun")

            def given():
                events.append("given")
                return batch

            return given

        def noisy(model, x, c):
            events.append("trained")
            return toy_loss(model, x + torch.rand_like(x), c)

        runs = []
        for name, draw in (("now", toy_draw), ("later", later)):
            flow, events[:] = toy(), []
            trainer.train(flow, noisy, draw, 100, RECIPE, where=HERE, checkpoint=tmp_path / name)
            runs.append(flow)
        assert events[:8] == ["begun", "begun", "given", "trained", "begun", "given", "trained", "begun"]
        assert events[-4:] == ["given", "trained", "given", "trained"]
        assert events.count("begun") == 10
        assert same(*runs)

    def test_a_batch_larger_than_the_data_is_refused(self, tmp_path):
        with pytest.raises(ValueError, match="batch of 101"):
            fit(tmp_path / "m", Recipe(steps=1, batch=101))

    def test_each_epoch_shows_each_row_once(self):
        order = Order(100, 20, seed=0)
        epochs = [torch.cat([order.of_step(5 * epoch + step) for step in range(5)]) for epoch in range(2)]
        assert all(sorted(epoch.tolist()) == list(range(100)) for epoch in epochs)
        assert epochs[0].tolist() != epochs[1].tolist()
        assert Order(100, 20, seed=0).of_step(7).tolist() == order.of_step(7).tolist()

    def test_rates(self):
        cosine = Recipe(steps=110, batch=1, rate=1.0, warmup=10)
        assert [cosine.rate_at(step) for step in (0, 9, 10, 60)] == pytest.approx([0.1, 1, 1, 0.5])
        assert cosine.rate_at(109) < 1e-3
        drops = Recipe(steps=60, batch=1, rate=1.0, schedule="drops")
        assert [drops.rate_at(step) for step in (0, 19, 20, 39, 40, 59)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])

    def test_autocast_trains_in_half_precision(self, tmp_path):
        flow, recipe, seen = toy(), Recipe(steps=5, batch=16, autocast=True), set()

        def loss(model, x, c):
            seen.add(torch.is_autocast_enabled("cpu"))
            return toy_loss(model, x, c)

        history = trainer.train(flow, loss, toy_draw, 100, recipe, where=HERE, checkpoint=tmp_path / "m")
        assert history.finished
        assert seen == {True}
        assert all(weight.dtype == torch.float32 for weight in flow.parameters())


def adamw_by_hand(recipe):
    """Weights and averaged weights after the recipe's steps on the toy, by the formulas of AdamW."""
    flow = toy().double()
    weights = list(flow.parameters())
    first, second, averages = ([torch.zeros_like(w) for w in weights] for _ in range(3))
    averages = [w.detach().clone() for w in weights]
    order, norms = Order(100, recipe.batch, 0), []
    for step in range(recipe.steps):
        torch.manual_seed(mix_seed(0, step, 0))
        grads = torch.autograd.grad(double_loss(flow, *toy_draw(order.of_step(step))), weights)
        norms.append(torch.cat([grad.flatten() for grad in grads]).norm().item())
        factor = min(1.0, recipe.clip / (norms[-1] + 1e-6))
        rate, t = recipe.rate_at(step), step + 1
        with torch.no_grad():
            for w, grad, m, v, average in zip(weights, grads, first, second, averages, strict=True):
                grad = grad * factor
                m += 0.1 * (grad - m)
                v += (1 - recipe.beta2) * (grad.square() - v)
                w *= 1 - rate * recipe.weight_decay
                w -= rate * (m / (1 - 0.9**t)) / ((v / (1 - recipe.beta2**t)).sqrt() + 1e-8)
                average += max(1 - recipe.average, 10 / (10 + t)) * (w - average)
    return weights, averages, norms


def double_loss(model, x, c):
    return toy_loss(model, x.double(), c.double())


@pytest.mark.parametrize("average", [0.0, 0.8])
@pytest.mark.parametrize("clip", [0.5, 10.0])
def test_a_run_is_adamw_with_the_recipe_s_numbers(tmp_path, clip, average):
    recipe = Recipe(steps=40, batch=16, rate=2e-2, warmup=5, beta2=0.95, weight_decay=0.3, clip=clip, average=average)
    flow = toy().double()
    trainer.train(flow, double_loss, toy_draw, 100, recipe, where=HERE, checkpoint=tmp_path / "m")
    weights, averages, norms = adamw_by_hand(recipe)
    if clip < 1:
        assert min(norms) < clip < max(norms)  # some steps are clipped, others are not
    for found, expected in zip(flow.parameters(), averages if average else weights, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)


def test_one_ctrl_c_that_arrives_twice_stops_after_the_step(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.Stop(HERE.device) as stop:
        assert not stop.asked()
        os.kill(os.getpid(), signal.SIGINT)
        now[0] = 0.1
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.asked()
        now[0] = 3.0
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
