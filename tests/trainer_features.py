"""What is tested in which trainer: the table of docs/trainers.md. Run as a program, it prints it.

``integrations/test_features.py`` fails if a test that is named here is gone, or skipped.
"""

from __future__ import annotations

import sys
from typing import NamedTuple


class Shown(NamedTuple):
    """One thing, and the test that shows it: ``file::function``, below ``tests/``."""

    what: str
    test: str
    verdict: str = "tested"


COLUMNS = ("modes", "accumulation", "precision", "resume", "ranks", "logging")

LINES = {
    "Lightning": (
        "from penalize.integrations.lightning import PenalizeCallback",
        'callback = PenalizeCallback(rules, mode="proximal")',
        "Trainer(callbacks=[callback]",
    ),
    "transformers": (
        "from penalize.integrations.transformers import PenalizeCallback",
        'callback = PenalizeCallback(rules, mode="proximal")',
        "train_dataset=rows, callbacks=[callback])",
    ),
    "accelerate": (
        "from penalize.integrations.accelerate import prepare",
        "from penalize.torch import regularize",
        "plan = regularize(model,",
        'prepare(plan, accelerator, optimizer, mode="proximal")',
    ),
    "skorch": (
        "from penalize.integrations.skorch import PenalizeCallback",
        "callbacks=[PenalizeCallback(",
    ),
    "ignite": (
        "from penalize.integrations.ignite import PenalizeCallback",
        "penalties = PenalizeCallback(",
        "penalties.attach(trainer, model, optimizer)",
        '"penalties": penalties}',
    ),
    "Keras": (
        "from penalize.integrations.keras import PenalizeCallback",
        "penalties = PenalizeCallback(",
        "callbacks=[penalties]",
    ),
}
"""The lines of each example on the page that are there for penalize, beside the rules."""

THREE = "gradient, decoupled, proximal"

FEATURES: dict[str, dict[str, tuple[Shown, ...]]] = {
    "Lightning": {
        "modes": (
            Shown(THREE, "test_lightning.py::test_ten_steps_of_accumulated_and_clipped_gradients"),
            Shown("halfspace", "test_features.py::test_ten_steps_of_the_half_space_rule"),
        ),
        "accumulation": (
            Shown("", "test_lightning.py::test_ten_steps_of_accumulated_and_clipped_gradients"),
        ),
        "precision": (Shown("bf16, fp16", "test_lightning.py::test_mixed_precision"),),
        "resume": (
            Shown(
                "",
                "test_lightning_trainings.py::"
                "test_a_training_that_was_ended_goes_on_as_if_it_had_not_been",
            ),
            Shown(
                "of other penalties",
                "test_lightning_trainings.py::test_checkpoints_of_other_penalties_are_refused",
                "refused",
            ),
        ),
        "ranks": (
            Shown("DDP, FSDP2", "test_on_ranks.py::test_lightning"),
            Shown("DeepSpeed", "test_lightning_trainings.py::test_deepspeed_is_refused", "refused"),
        ),
        "logging": (
            Shown(
                "",
                "test_lightning.py::"
                "test_the_log_has_the_numbers_of_the_plan_when_the_trainer_writes",
            ),
        ),
    },
    "transformers": {
        "modes": (
            Shown(
                THREE, "test_transformers.py::test_ten_steps_of_accumulated_and_clipped_gradients"
            ),
            Shown("halfspace", "test_features.py::test_ten_steps_of_the_half_space_rule"),
        ),
        "accumulation": (
            Shown("", "test_transformers.py::test_ten_steps_of_accumulated_and_clipped_gradients"),
        ),
        "precision": (Shown("bf16", "test_transformers.py::test_bfloat16"),),
        "resume": (
            Shown(
                "",
                "test_transformers.py::test_a_training_that_was_ended_goes_on_as_if_it_had_not_been",
            ),
            Shown(
                "of other penalties",
                "test_transformers.py::test_checkpoints_of_other_penalties_are_refused",
                "refused",
            ),
        ),
        "ranks": (
            Shown("DDP", "test_on_ranks.py::test_transformers"),
            Shown(
                "DeepSpeed",
                "test_transformers.py::test_optimizers_that_step_by_themselves_are_refused",
                "refused",
            ),
        ),
        "logging": (Shown("", "test_transformers.py::test_the_log_has_the_numbers_of_the_plan"),),
    },
    "accelerate": {
        "modes": (
            Shown(THREE, "test_accelerate.py::test_ten_steps_of_accumulated_and_clipped_gradients"),
            Shown("halfspace", "test_features.py::test_ten_steps_of_the_half_space_rule"),
        ),
        "accumulation": (
            Shown("", "test_accelerate.py::test_ten_steps_of_accumulated_and_clipped_gradients"),
        ),
        "precision": (Shown("fp16", "test_accelerate.py::test_a_scaler_that_skips_steps"),),
        "resume": (
            Shown(
                "",
                "test_accelerate.py::test_a_training_that_was_ended_goes_on_as_if_it_had_not_been",
            ),
            Shown(
                "of other penalties",
                "test_accelerate.py::test_a_training_that_was_ended_goes_on_as_if_it_had_not_been",
                "refused",
            ),
        ),
        "ranks": (
            Shown("DDP", "test_on_ranks.py::test_accelerate"),
            Shown(
                "DeepSpeed",
                "test_accelerate.py::test_twice_and_what_steps_by_itself_are_refused",
                "refused",
            ),
        ),
        "logging": (Shown("", "test_features.py::test_what_accelerate_logs"),),
    },
    "skorch": {
        "modes": (
            Shown(THREE, "test_skorch.py::test_ten_steps_of_clipped_gradients"),
            Shown("halfspace", "test_features.py::test_ten_steps_of_the_half_space_rule"),
        ),
        "accumulation": (Shown("", "test_features.py::test_accumulation_in_skorch"),),
        "precision": (),
        "resume": (
            Shown("", "test_skorch.py::test_a_checkpoint_goes_on"),
            Shown(
                "of other penalties", "test_skorch.py::test_a_checkpoint_of_other_rules", "refused"
            ),
        ),
        "ranks": (),
        "logging": (Shown("", "test_skorch.py::test_what_is_in_the_history"),),
    },
    "ignite": {
        "modes": (
            Shown(THREE, "test_ignite.py::test_ten_steps_of_accumulated_and_clipped_gradients"),
            Shown("halfspace", "test_features.py::test_ten_steps_of_the_half_space_rule"),
        ),
        "accumulation": (
            Shown("", "test_ignite.py::test_ten_steps_of_accumulated_and_clipped_gradients"),
        ),
        "precision": (),
        "resume": (
            Shown("", "test_ignite.py::test_a_checkpoint_goes_on"),
            Shown(
                "of other penalties", "test_ignite.py::test_a_checkpoint_of_other_rules", "refused"
            ),
        ),
        "ranks": (),
        "logging": (Shown("", "test_ignite.py::test_what_is_in_the_metrics"),),
    },
    "Keras": {
        "modes": (
            Shown("loss", "callback.py::check_steps_are_those_by_hand"),
            Shown("proximal", "callback.py::check_a_run_that_was_stopped_goes_on"),
            Shown("halfspace", "callback.py::check_halfspace_within_fit"),
        ),
        "accumulation": (
            Shown("loss", "callback.py::check_accumulated_gradients"),
            Shown("proximal", "callback.py::check_accumulated_gradients", "refused"),
        ),
        "precision": (Shown("fp16", "callback.py::check_a_scaled_loss_of_half_precision"),),
        "resume": (
            Shown("", "callback.py::check_a_run_that_was_stopped_goes_on"),
            Shown("beside other rules", "logged.py::check_what_is_refused", "refused"),
        ),
        "ranks": (),
        "logging": (Shown("", "callback.py::check_steps_are_those_by_hand"),),
    },
}


def cell(shown: tuple[Shown, ...]) -> str:
    """What stands in the table: what is tested, what is refused, or that neither is."""
    parts = []
    for verdict in ("tested", "refused"):
        found = [each for each in shown if each.verdict == verdict]
        what = ", ".join(each.what for each in found if each.what)
        parts += [f"{verdict}: {what}" if what else verdict] if found else []
    return "; ".join(parts) or "not there"


def table() -> str:
    """The table in Markdown."""
    rows = [["trainer", "lines", *COLUMNS], ["---"] * (2 + len(COLUMNS))]
    for trainer, features in FEATURES.items():
        name = f"[{trainer}](#{trainer.lower()})"
        rows.append(
            [name, str(len(LINES[trainer])), *(cell(features[column]) for column in COLUMNS)]
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")
