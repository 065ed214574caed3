"""``search``: strengths that are chosen later, and act nowhere before."""

import math
import operator

import numpy as np
import pytest
import torch
from torch import nn

from penalize import L1, L1L2, L2, GroupLasso, RegularizerError, RulesError, kernels, search, warmup
from penalize.ranges import chosen, ranges_in
from penalize.torch import regularize


def test_it_reads_as_it_is_written():
    assert repr(L1(search(1e-6, 1e-2))) == "L1(search(1e-06, 0.01))"
    assert repr(search(0, 1, log=False)) == "search(0.0, 1.0, log=False)"
    assert search(1, 2) == search(1.0, 2.0)
    assert hash(L1(search(1, 2))) == hash(L1(search(1, 2)))


@pytest.mark.parametrize(
    ("low", "high", "log"),
    [(0, 1, True), (1, 1, True), (2, 1, True), (-1, 1, False), (1, math.inf, True), ("1", 2, True)],
)
def test_ends_that_make_no_range_are_refused(low, high, log):
    with pytest.raises(RegularizerError, match=r"The range search\("):
        search(low, high, log=log)


def test_the_ranges_of_a_sum_have_names_and_are_replaced():
    r = L1L2(search(1e-4, 1e-2), 0.5) + GroupLasso(search(1, 2), groups=0) * warmup(5)
    names = [name for name, _ in ranges_in(r, "r")]
    assert names == ["r.terms[0].l1", "r.terms[1].regularizer.strength"]
    values = dict(zip(names, [0.25, 1.5], strict=True))
    found = chosen(r, lambda name, _: values[name], "r")
    assert found == L1L2(0.25, 0.5) + GroupLasso(1.5, groups=0) * warmup(5)
    assert chosen(L2(1.0), lambda *_: 0.0) == L2(1.0)
    assert chosen(None, lambda *_: 0.0) is None


def test_the_numbers_of_a_partition_are_not_looked_through():
    class Untouched(tuple):
        def __iter__(self):
            raise AssertionError("every index of a partition was looked at")

    r = GroupLasso(search(1, 2), groups=[[0, 1], [2]])
    object.__setattr__(r, "groups", Untouched(r.groups))
    assert [name for name, _ in ranges_in(r)] == ["GroupLasso.strength"]


@pytest.mark.parametrize("w", [np.ones(3), torch.ones(3)], ids=["numpy", "torch"])
@pytest.mark.parametrize(
    "use",
    [
        lambda r, w: r(w),
        lambda r, w: r.gradient(w),
        lambda r, w: r.prox(w, 0.1),
        lambda r, w: r * 2,
        lambda r, w: w * r.strength,
        lambda r, w: float(r.strength),
        lambda r, w: operator.lt(r.strength, 1),
    ],
)
@pytest.mark.parametrize("kind", [L1, L2])
def test_computing_with_it_says_that_it_is_not_chosen(kind, use, w):
    with pytest.raises(
        RegularizerError, match=r"The strength search\(1.0, 2.0\) is not chosen yet"
    ):
        use(kind(search(1, 2)), w)


def test_a_plan_refuses_it():
    with pytest.raises(RulesError, match=r"has a strength that is not chosen yet.*tune"):
        regularize(nn.Linear(3, 2), {kernels: L2(1.0) + L1(search(1, 2))})
