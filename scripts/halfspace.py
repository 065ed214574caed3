"""Measure half-space steps, and write docs/halfspace.md with its pictures: ``make halfspace``.

Nothing here is asserted: the tests have what must hold. It takes about half an hour on one core.
What each part measures is in ``halfspace_lasso``, ``halfspace_groups`` and ``halfspace_networks``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

import torch
from documents import DOCS, read, with_part
from halfspace_groups import groups, regression, softmax
from halfspace_lasso import late, mini_batches
from halfspace_networks import large, small

PAGE = DOCS / "halfspace.md"


def parts(steps: int, group_steps: int, seeds: int) -> dict[str, Callable[[], str]]:
    """What is measured, by its marks in the page."""
    return {
        "diabetes": lambda: mini_batches("diabetes", steps),
        "cancer": lambda: mini_batches("breast cancer", steps),
        "late": late,
        "digits": lambda: groups(softmax(), group_steps, seeds),
        "outputs-64": lambda: groups(regression(64, 1.0), group_steps, seeds),
        "outputs-768": lambda: groups(regression(768, 3.0), group_steps, seeds),
        "network": small,
        "letters": large,
    }


def main(arguments: Sequence[str]) -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", help="those that are measured anew; all without")
    parser.add_argument("--steps", type=int, default=6000, help="of single coefficients")
    parser.add_argument("--group-steps", type=int, default=2500)
    parser.add_argument("--group-seeds", type=int, default=3)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    known = parts(given.steps, given.group_steps, given.group_seeds)
    for name in given.parts or known:
        text = known[name]()
        PAGE.write_text(with_part(read(PAGE), name, text), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
