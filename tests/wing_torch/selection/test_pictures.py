"""Pictures of a path, and its page."""

import math
import re
import sys
import xml.etree.ElementTree as ET

import matplotlib
import pytest
import torch
from PIL import Image
from torch import nn
from wing_torch.selection.problems import network, training

from penalize import L1, MissingPackageError
from penalize.torch import path, regularize


def made(model=None, strengths=(0.1, 0.01, 0.001), folds=3, **more):
    fit = training(epochs=3, score=lambda o, t: -(o - t).abs().mean())
    plan = regularize(network() if model is None else model, L1(1.0))
    return path(fit, plan, list(strengths), folds, progress=False, **more)


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_picture_has_the_panels_side_by_side(suffix, tmp_path):
    file = tmp_path / f"path.{suffix}"
    made().plot(file)
    if suffix == "png":
        picture = Image.open(file)
        assert picture.width > 3 * picture.height
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 50  # something is drawn
    else:
        assert file.read_text().count('id="axes_') == 3


def test_few_weights_are_drawn_one_by_one_and_many_by_their_norms(tmp_path):
    few, many = tmp_path / "few.svg", tmp_path / "many.svg"
    made(nn.Linear(6, 1).double()).plot(few)
    torch.manual_seed(0)
    made(nn.Sequential(nn.Linear(6, 9), nn.Linear(9, 1)).double()).plot(many)
    first = re.search(r'<g id="axes_1">.*?<g id="axes_2">', few.read_text(), re.DOTALL)
    second = re.search(r'<g id="axes_1">.*?<g id="axes_2">', many.read_text(), re.DOTALL)
    curves = [len(re.findall(r"stroke-width: 1.4", m.group(0))) for m in (first, second)]
    assert curves[0] == 6
    assert curves[1] in (2, 4)  # and the legend


@pytest.mark.parametrize("name", ["$x^{$", "a$b$c", "_hidden", "a_b^", "<i>&", "\\frac"])
def test_parameters_may_be_named_like_formulas_or_like_what_is_hidden(name, tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential()
    model.add_module(name, nn.Linear(6, 9))
    model.add_module("last", nn.Linear(9, 1))
    found = made(model.double(), folds=2)
    found.plot(tmp_path / "path.png")
    found.html(tmp_path / "path.html")
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        found.plot(tmp_path / "path.svg")
    words = [e.text.strip() for e in ET.parse(tmp_path / "path.svg").iter() if e.text]
    assert f"{name}.weight" in words
    assert "last.weight" in words


def test_a_path_of_a_single_strength_is_drawn(tmp_path):
    made(strengths=[0.1]).plot(tmp_path / "path.png")


def test_the_page_stands_alone(tmp_path):
    found = made()
    found.html(str(tmp_path / "path.html"))
    page = (tmp_path / "path.html").read_text("utf-8")
    assert not re.findall(r'(?:src|href)="(?!#)', page)
    assert "@import" not in page
    assert "url(http" not in page
    assert "<script" not in page
    assert page.count("<figure ") == page.count("<figcaption>") == 3
    assert page.count("<tr") == 1 + len(found.strengths)
    assert page.count('<tr class="chosen">') == len(set(found.chosen.values()))
    assert f"<b>{found.best:.4g}</b>" in page
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))  # the pictures do not take each other's parts
    for used in re.findall(r'(?:href="|url\()#([^")]+)', page):
        assert used in ids
    body = page[page.index("<body>") : page.index("</body>") + len("</body>")]
    ET.fromstring(re.sub(r"&(?!amp;|lt;|gt;|quot;|#)", "&amp;", body))


def test_a_path_without_folds_or_weights_or_anything_finite(tmp_path):
    made(folds=None).html(tmp_path / "no-folds.html")
    assert "no strength is chosen" in (tmp_path / "no-folds.html").read_text("utf-8")
    made(refit=False).html(tmp_path / "no-weights.html")
    made(strengths=[0.1, 0.0]).plot(tmp_path / "zero.png")

    def fit(plan, train, valid):
        plan.attach(torch.optim.SGD(plan.model.parameters()))
        return math.nan

    plan = regularize(network(), L1(1.0))
    found = path(fit, plan, [0.1], [([0], [1]), ([1], [0])], progress=False)
    found.html(tmp_path / "nothing.html")
    page = (tmp_path / "nothing.html").read_text("utf-8")
    assert "3 of 3 runs were not finite" in page
    assert "<td>–</td>" in page


def test_without_matplotlib_it_says_so(monkeypatch, tmp_path):
    found = made()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(
        MissingPackageError, match=r"A picture of a path needs matplotlib.*\[select"
    ):
        found.plot(tmp_path / "path.png")
    with pytest.raises(MissingPackageError):
        found.html(tmp_path / "path.html")
    assert list(tmp_path.iterdir()) == []
