"""What of a plan is in a model when it is saved, by the configurations of its layers."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from keras import regularizers

from penalize.errors import some
from penalize.keras.acting import behind
from penalize.keras.modes import PenalizedVariable, attribute_of
from penalize.keras.parameters import HeldVariable, HoldingLayer


def remark_on_saving(mode: str, targets: Sequence[PenalizedVariable]) -> str:
    """Lines under the plan; empty where a loaded model is penalized as this one is."""
    if mode == "loss":
        saved = {t.name: _is_saved(t.weight) for t in targets}
        found = {
            "not saved with the model": [name for name in saved if not saved[name]],
            "saved with a schedule, which a plan alone follows": [
                t.name for t in targets if saved[t.name] and t.regularizer.scheduled
            ],
        }
    else:
        declared = [t.name for t in targets if any(map(_saved_by, t.weight.owners))]
        found = {"declared on the layer, and so a loss term of the model that is saved": declared}
    return "\n".join(
        f"{what}: {some(names)}; make the plan again after loading"
        for what, names in found.items()
        if names
    )


def _is_saved(weight: HeldVariable) -> bool:
    """Whether the configuration of each layer has what acts on the variable, and nothing else.

    Not every attribute is in it: the one that Keras makes up for a layer without a ``get_config``
    of its own has the arguments of its construction.
    """
    acts = _quietly(regularizers.serialize, behind(weight.variable.regularizer))
    return acts is not None and all(_saved_by(owner) == acts for owner in weight.owners)


def _saved_by(owner: HoldingLayer) -> Any:
    """The configuration of the variable's regularizer in that of its layer; None: it has none."""
    attribute = attribute_of(owner)
    if attribute is None or not owner.saved:
        return None
    found = (_quietly(owner.layer.get_config) or {}).get(attribute)
    return _quietly(_in_full, found) if isinstance(found, str) else found


def _in_full(name: str) -> Any:
    """The configuration that a name such as ``"l2"`` is short for."""
    return regularizers.serialize(regularizers.get(name))


def _quietly(make: Any, *arguments: Any) -> Any:
    """A configuration, or None where there is none: what Keras cannot save, it says when saving."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return make(*arguments)
        except Exception:  # noqa: BLE001 - anybody's get_config
            return None
