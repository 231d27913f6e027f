"""A colorizer on another device than its photographs: measuring and drawing mix no devices."""

import bedrooms_cinn
import pytest
import torch
from colorization.colorizer import Colorizer
from colorization.commands import Example, main
from colorization.photos import open_folder
from colorization.pictures import Gallery
from colorization.table import HeldOut, evaluate
from PIL import Image
from test_example_colorization_models import colorizer
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

BEDROOMS = Example("bedrooms", "", bedrooms_cinn.PRESETS, bedrooms_cinn.build)


class Elsewhere(TorchFunctionMode):
    """The meta device as a GPU: it does not mix with the CPU, and what is copied from it is zeros."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        if func in (Tensor.to, Tensor.cpu):
            fetched = func is Tensor.cpu or torch.device("cpu") in (*args[1:], *kwargs.values())
            return torch.zeros(args[0].shape) if fetched and args[0].is_meta else func(*args, **kwargs)
        if func is torch.randn and "generator" in kwargs:
            generator = kwargs.pop("generator")
            assert generator is None or torch.device(kwargs.get("device", "cpu")) == generator.device
        devices = {value.device for value in tensors if value.ndim}
        assert len(devices) < 2, f"{func.__name__} of tensors on {devices}"
        return func(*args, **kwargs)


class FarGenerator(torch.Generator):
    """Says that it draws on the far device."""

    device = torch.device("meta")


@pytest.fixture
def folder(tmp_path):
    """Four test photographs, and one each to train and validate on."""
    for number in range(6):
        path = tmp_path / "photos" / ("train" if number == 4 else "val" if number == 5 else "test") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = torch.randint(256, (4, 4, 3), dtype=torch.uint8).numpy()
        Image.fromarray(coarse).resize((40, 40), Image.Resampling.BICUBIC).save(path)
    return open_folder(tmp_path / "photos", cache=tmp_path / "cache")


@pytest.fixture
def far(monkeypatch):
    """Makes a colorizer on the far device."""
    monkeypatch.setattr(Colorizer, "generator", lambda self, seed: FarGenerator())
    monkeypatch.setattr("colorization.pictures.SHOWN", 24)
    return lambda kind: colorizer("bedrooms", kind).eval().to("meta")


KINDS = [
    "cinn",
    *(
        pytest.param(kind, marks=pytest.mark.slow)
        for kind in ("unconditional", "raw", "cnn", "cvae", "cgan", "colorgan")
    ),
]


@pytest.mark.parametrize("kind", KINDS)
def test_the_table_is_measured_where_the_photographs_are(folder, far, kind):
    model, held_out = far(kind), HeldOut(folder, "test", 16, None)
    with Elsewhere():
        row = evaluate(kind, model, held_out, n=2)
        assert evaluate("truth", model, held_out)["rmse_1"].value == 0
        assert evaluate("gray", model, held_out)["rmse_1"].value > 0
    assert row["rmse_8"].value > 0


@pytest.mark.slow
def test_every_picture_is_drawn_where_the_photographs_are(folder, far, tmp_path):
    gallery, ablation = Gallery(far("cinn"), folder, "test", 16), far("raw")
    others = {kind: far(kind) for kind in ("cvae", "cnn")}
    with Elsewhere():
        assert len(gallery.write(tmp_path / "pictures", ablation, others)) == 7


@pytest.mark.gpu
def test_table_and_pictures_of_a_model_on_a_gpu(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("colorization.commands.find_viewer", lambda *paths: None)
    monkeypatch.setattr("colorization.pictures.SHOWN", 24)
    common = ["--device", "cuda", "--data", "photos", "--out", "run"]
    assert main(BEDROOMS, ["train", *common, "--preset", "tiny", "--steps", "2", "--kinds", "cinn", "cvae"]) == 0
    assert main(BEDROOMS, ["table", *common]) == 0
    assert main(BEDROOMS, ["pictures", *common]) == 0
    assert len(list((tmp_path / "run" / "pictures").glob("*.png"))) == 5
