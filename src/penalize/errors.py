"""Every error and warning: facts in, sentence out.

A message says what was found, where, what was expected, and what to write instead.
"""

from __future__ import annotations

import numbers
import re
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar


class PenalizeError(Exception):
    """Base of every error that penalize raises."""

    ag_pass_through = True  # AutoGraph: not to be raised again as an error of another class
    # Keras would make errors anew of their message, to add what a layer was called with.
    _keras_call_info_injected: ClassVar[bool] = True

    def __reduce__(self) -> tuple[Any, ...]:
        # The constructors take facts, not the sentence; rebuild from the sentence when unpickled.
        return _revive, (type(self), self.args, self.__dict__)


def _revive(cls: type[PenalizeError], args: tuple[Any, ...], state: dict[str, Any]) -> Any:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(state)
    return error


class Refusal(PenalizeError):  # noqa: N818 - a kind of errors
    """A refusal of what was found, which says what to give or to do instead."""

    lead: ClassVar[str] = ""
    """The words before what to give instead."""

    def __init__(self, found: str, instead: str) -> None:
        super().__init__(_sentence(found, f"{self.lead}{instead}"))


class StrengthError(PenalizeError, ValueError):
    """A strength, or a factor of one, is not a finite number ≥ 0."""

    def __init__(self, owner: str, argument: str, value: object) -> None:
        super().__init__(
            f"{owner} got {argument}={value!r} ({type(value).__name__}); expected a finite number "
            f">= 0, a Python or NumPy scalar such as {owner}(1e-4)."
        )


class ScaleError(PenalizeError, ValueError):
    """What TensorFlow 1 refused as the scale of a regularizer: integers, and what is below 0."""

    def __init__(self, argument: str, value: Any) -> None:
        if isinstance(value, numbers.Integral):
            sentence = (
                f"{argument} cannot be an integer: {value!r}; write {float(value)!r}, as "
                "TensorFlow 1 expects."
            )
        else:
            sentence = (
                f"{argument}={value!r} is not a finite number >= 0; write a float such as 1e-4, "
                "or 0.0 to disable the regularizer."
            )
        super().__init__(sentence)


class PenaltyError(Refusal, ValueError):
    """What a regularizer returned is no penalty, or there was nothing to penalize."""

    lead = "expected "


class StepError(PenalizeError, ValueError):
    """The step of a proximal operator is not ≥ 0, or its shape does not fit."""

    def __init__(self, regularizer: object, found: str) -> None:
        super().__init__(
            f"{regularizer!r}.prox got {found}; expected a finite number >= 0, or an array of "
            "the weight's shape."
        )


class RegularizerError(Refusal, TypeError):
    """A regularizer, or a class of them, cannot be made of what was given."""


class ConfigError(PenalizeError, ValueError):
    """A configuration does not describe a regularizer."""

    def __init__(self, owner: str, config: object, reason: str) -> None:
        super().__init__(
            f"{owner}.from_config cannot read {config!r}: {_open(reason)}; expected what "
            f"{owner}.get_config() returns."
        )


class ArrayError(PenalizeError, TypeError):
    """Something is not a floating-point array of a known framework."""

    def __init__(self, found: str, expected: str) -> None:
        super().__init__(_sentence(f"a regularizer was given {found}", f"expected {expected}"))


class GroupsError(PenalizeError, ValueError):
    """The groups of a group penalty do not exist, overlap, or leave something out."""

    def __init__(self, groups: object, reason: str, instead: str, where: str = "") -> None:
        at = f" on {where}" if where else ""
        super().__init__(_sentence(f"groups={groups!r}{at}: {reason}", instead))


class ShapeError(PenalizeError, ValueError):
    """A regularizer is applied to an array of a shape that it has no meaning for."""

    def __init__(
        self, regularizer: object, shape: tuple[int, ...], expected: str, where: str = ""
    ) -> None:
        at = f" {where}" if where else ""
        super().__init__(
            f"{regularizer!r} was given an array{at} of shape {shape}; expected {expected}."
        )


class NoProximalOperatorError(PenalizeError):
    """A proximal operator without a closed form or well-known exact algorithm was asked for."""

    def __init__(self, regularizer: object, reason: str, where: str = "") -> None:
        at = f" (on {where})" if where else ""
        super().__init__(
            f"{regularizer!r}{at} has no exact proximal operator here: {_open(reason)}. It is "
            'never approximated; use mode="gradient" or plan.penalty() in the loss instead.'
        )


class NoGradientError(PenalizeError, ValueError):
    """A gradient was asked for of what acts by its proximal operator alone."""

    def __init__(
        self,
        regularizer: object,
        where: str = "",
        instead: str = 'Use mode="proximal" instead',
    ) -> None:
        at = f" (on {where})" if where else ""
        super().__init__(
            f"{regularizer!r}{at} has no gradient that could act on a weight: it is constant "
            f"wherever it is finite, or it jumps. {_open(instead)}."
        )


class NoDerivativeError(PenalizeError, NotImplementedError):
    """A derivative was asked for of what is computed where the framework does not see it."""

    def __init__(self) -> None:
        super().__init__(
            "the proximal operators of FusedLasso and Smoothness are computed on the host, and can "
            "be differentiated once, backwards; a second derivative, or one forwards, was asked "
            "for. Differentiate the other parts once more, with this result as a constant."
        )


class NoKinkError(PenalizeError, ValueError):
    """Zeros were asked for of a penalty whose kink at zero is none, or is not of a known size."""

    def __init__(self, regularizer: object, reason: str, where: str = "") -> None:
        self.regularizer, self.reason = regularizer, reason
        at = f" (on {where})" if where else ""
        super().__init__(f"{regularizer!r}{at} has no half-space step: {_open(reason)}.")


class NoStepError(PenalizeError, ValueError):
    """A penalty follows a schedule, and is computed without a step of training."""

    def __init__(self, regularizer: object) -> None:
        super().__init__(
            f"{regularizer!r} follows a schedule, and is asked for without a step of training. Let "
            "a plan apply it, which counts steps (penalty(..., at=step) where the framework "
            "hides them), or write r.at(step)."
        )


class PathError(Refusal, ValueError):
    """A regularization path cannot be made of what was given."""


class ResultsError(PenalizeError, ValueError):
    """A file is no results file, or its results cannot be read, written, or used here."""

    def __init__(self, path: object, found: str, instead: str) -> None:
        super().__init__(f"{path} {_open(found)}, and was left as it is; {_open(instead)}.")


class LostWorkerError(PenalizeError, RuntimeError):
    """The processes that computed a run were killed again and again."""

    def __init__(self, whose: str, said: str) -> None:
        super().__init__(
            f"{whose} gave up a run whose processes were killed again and again ({_open(said)}): "
            "see what killed them, such as a lack of memory, and call it again with fewer jobs or "
            "more memory. What is in a results file or a study is kept, and not done again."
        )


class NoStrengthMaxError(PenalizeError, NotImplementedError):
    """No strength of a penalty is known to leave nothing."""

    def __init__(self, regularizer: object, where: str = "") -> None:
        on = f" on {where}" if where else ""
        super().__init__(
            f"No strength at which {regularizer!r}{on} leaves nothing is known. Give the "
            "strengths, such as strengths=[1e-1, 1e-2, 1e-3], or take L1, L1L2, GroupLasso or "
            "NuclearNorm."
        )


class ScheduleError(Refusal, ValueError):
    """A schedule cannot be made of what was given."""


class UnitsError(Refusal, ValueError):
    """A strength in another library's units cannot be converted, or not with what was given."""


class AnchorError(Refusal, ValueError):
    """An anchor, or what belongs to one, is no array, or does not fit a parameter."""


class SelectorError(PenalizeError, TypeError):
    """A selector was built from something that selects nothing."""

    def __init__(self, found: str, expected: str) -> None:
        super().__init__(f"{_open(found)}; expected {_open(expected)}.")


class RulesError(PenalizeError, TypeError):
    """A rules table is not a mapping (or list of pairs) selector → regularizer or None."""

    def __init__(
        self,
        found: str,
        instead: str,
        expected: str = "rules: a regularizer, or a mapping or list of pairs from selector to "
        "regularizer or None",
    ) -> None:
        super().__init__(f"{_open(found)}; expected {_open(expected)}. {instead}")


class RoleError(PenalizeError, ValueError):
    """``roles=`` is no mapping, or names a role that does not exist."""

    def __init__(self, found: str, known: Iterable[str]) -> None:
        super().__init__(
            f"roles {found}; expected a mapping from selector to one of {', '.join(known)}, "
            'such as roles={of_type(MyNorm): "norm"}.'
        )


class NoMatchError(PenalizeError, LookupError):
    """A selector matches no parameter, or no module."""

    def __init__(
        self, selector: object, declared_at: str, hint: str, what: str = "parameter"
    ) -> None:
        super().__init__(f"{selector!r} (in {declared_at}) matches no {what}. {hint}")


class ConflictError(PenalizeError, ValueError):
    """Two declarations of the same rank disagree on one tied parameter, or one shared module."""

    def __init__(
        self, names: Sequence[str], first: str, second: str, what: str = "tied parameter"
    ) -> None:
        super().__init__(
            f"{' and '.join(map(repr, names))} are one {what}, and two declarations of the "
            f"same rank disagree on it: {first}, {second}. Declare it once, or end the rules with "
            f"one row that names it by every name: named({names[0]!r}) | named({names[-1]!r})."
        )


class ModelError(Refusal, ValueError):
    """A model, or a parameter of it, cannot be planned."""


class ModeError(Refusal, ValueError):
    """A mode does not exist, or cannot act on this regularizer, parameter or optimizer."""


class OptimizerError(Refusal, ValueError):
    """An optimizer does not fit the plan."""


class AppliedTwiceError(PenalizeError, RuntimeError):
    """One penalty would act on one parameter through two doors."""

    def __init__(self, names: Sequence[str], first: str, second: str, instead: str) -> None:
        super().__init__(
            f"The penalty on {some(names)} would be applied twice: by {first}, and by {second}. "
            f"{_open(instead)}."
        )


class LossError(Refusal, TypeError):
    """A loss is not what can be measured or differentiated here."""


class ActivityError(Refusal, RuntimeError):
    """The outputs of a module cannot be penalized, or not where it is called."""


class NotScriptedError(ActivityError, AttributeError):
    """A module whose output is penalized was to be scripted: hooks cannot be."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"the output of {name!r} is penalized by a hook, which TorchScript cannot compile",
            "call plan.remove_activities() before torch.jit.script",
        )


class AuditError(PenalizeError, AssertionError):
    """A declared penalty does not enter exactly once, or something else is wrong beside them."""

    def __init__(self, table: str, declared_is_wrong: bool = True) -> None:
        found = (
            "Declared penalties are not applied exactly once"
            if declared_is_wrong
            else "What regularizes beside the declared penalties has a fault"
        )
        super().__init__(f"{found}:\n{table}")


class ReplacedParameterError(PenalizeError, RuntimeError):
    """A parameter of an attached plan is no longer the one that the optimizer steps."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(
            f"{some(names)}: no longer what the optimizer steps (to_empty, fully_shard and "
            "load_state_dict(assign=True) replace parameters, and param groups may have changed); "
            "detach(), make the optimizer from the model as it is now, and attach again."
        )


class LostAttachmentError(PenalizeError, RuntimeError):
    """An optimizer was attached to when it was copied or saved, and the copy is not."""

    def __init__(self, optimizer: str) -> None:
        super().__init__(
            f"This {optimizer} is a copy of one that a plan was attached to, or was loaded from "
            "its checkpoint. Neither carries hooks, so no penalty would be applied: regularize the "
            "model that it steps, and attach to it. To go on without penalties, take the key "
            "'penalize' out of its param_groups."
        )


class StateError(PenalizeError, ValueError):
    """The saved state of an attachment is not that of this one."""

    def __init__(self, problems: str) -> None:
        super().__init__(
            f"This is not the state of the attachment here: {_open(problems)}. Attach with the "
            "rules and the mode that it was saved with, or leave the state away to go on "
            "differently."
        )


class TrainerError(Refusal, ValueError):
    """A trainer was set up in a way in which its penalties could not be applied exactly once."""


class CompactError(PenalizeError, RuntimeError):
    """A smaller model would not give the same answers, so that there is none."""

    def __init__(self, model: str, difference: str) -> None:
        super().__init__(
            f"The compacted {model} would not answer as the {model} does: {difference}. Nothing is "
            "returned; compact the parts of the model whose layers are its framework's own."
        )


class PenaltyOfPenaltyWarning(UserWarning):
    """A regularizer is given penalties where it expects weights."""


class VariableError(Refusal, ValueError):
    """A variable of TensorFlow 1's vocabulary cannot be made or shared as it was asked for."""

    lead = "expected "


class ScopeError(Refusal, TypeError, RuntimeError):
    """A scope, or an argument, is of a type that means nothing there, or is left out of turn.

    TensorFlow 1 raises a TypeError for the one, and a RuntimeError for the other.
    """

    lead = "expected "


class CheckpointError(PenalizeError, ValueError):
    """A checkpoint cannot be loaded: everything that does not fit, at once."""

    def __init__(self, path: object, problems: Sequence[str]) -> None:
        super().__init__(
            f"The checkpoint {str(path)!r} cannot be loaded, and nothing was: "
            f"{'; '.join(problems)}."
        )


class MissingPackageError(PenalizeError, ImportError):
    """A package that is needed for this is not installed."""

    def __init__(self, package: str, purpose: str, extra: str = "") -> None:
        super().__init__(
            f"{_begun(purpose)} needs {package}, which is not installed here; install it, or "
            f"penalize with its extra [{extra or package}]."
        )


class IgnoredRegularizerWarning(UserWarning):
    """A variable is shared with another regularizer than it was made with."""

    def __init__(self, name: str, old: str, new: str) -> None:
        super().__init__(
            f"Variable {name!r} was made with the regularizer {old}; it is shared here with {new}, "
            "which is ignored, as in TensorFlow 1. Give both the same one, or leave it out here."
        )


class NothingToCutWarning(UserWarning):
    """A model that was to be compacted has no unit that may go."""


class BalanceWarning(UserWarning):
    """A penalty is out of proportion to the loss of the data."""


class RoundedAwayWarning(UserWarning):
    """A penalty is too small beside the rounding of the weights to move them."""


class InterruptedStepWarning(UserWarning):
    """A step raised after a penalty had moved the weights, so that it moved them once too often."""


class NeverAppliedWarning(UserWarning):
    """A plan is alive and its parameters are being stepped, but it is applied nowhere."""


_WORD = re.compile(r"[a-z]+(-[a-z]+)*('s)?(?=[ ,:])")
"""The first word of a sentence, where it is one of English: names keep the case that they have."""


def _begun(text: str) -> str:
    return text[0].upper() + text[1:] if _WORD.match(text) else text


def _open(text: str) -> str:
    """What is to go on: a text without the full stop at its end."""
    return text[:-1] if text.endswith(".") and not text.endswith("..") else text


def _sentence(*parts: str) -> str:
    """One sentence of parts, which may end with a full stop of their own."""
    return f"{_begun('; '.join(map(_open, parts)))}."


def some(names: Iterable[str], limit: int = 4) -> str:
    """``'a', 'b', 'c', 'd' and 17 more``: enough names to find the place, never a flood."""
    listed = list(names)
    text = ", ".join(map(repr, listed[:limit]))
    return text if len(listed) <= limit else f"{text} and {len(listed) - limit} more"
