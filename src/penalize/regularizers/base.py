"""What every regularizer is: a value, a gradient, a proximal operator, and an algebra."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
import numbers
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Self

from penalize.backends import Array, Backend, is_traced, open_array, undisturbed
from penalize.callsite import asker
from penalize.errors import (
    ConfigError,
    NoGradientError,
    NoKinkError,
    NoProximalOperatorError,
    NoStepError,
    NoStrengthMaxError,
    RegularizerError,
    StepError,
    StrengthError,
    UnitsError,
)
from penalize.keras_names import announce
from penalize.keras_values import values_kept
from penalize.ranges import Search
from penalize.regularizers.kinks import Kinks
from penalize.regularizers.place import Place
from penalize.regularizers.registry import (
    classes_called,
    config_name,
    is_ours,
    is_taken,
    why_not_one,
)
from penalize.steps import Step, bounded

if TYPE_CHECKING:
    from penalize.regularizers.sums import Sum


@dataclass(frozen=True, repr=False)
class Regularizer(ABC):
    """A function Ω of one array. Frozen, comparable, hashable, picklable; holds no array.

    A subclass is a frozen dataclass that gives ``_value``; ``_gradient``, where the framework's own
    differentiation is not to be used; and ``_prox`` where a closed form (or a well-known exact
    algorithm) exists. They receive the weight in float32 or wider and the array functions of its
    framework; the results are cast back here.
    """

    strengths: ClassVar[tuple[str, ...]] = ("strength",)
    """The fields that are strengths: validated at construction; what differs in them alone is one
    penalty to the ledger."""

    factors: ClassVar[tuple[str, ...] | None] = None
    """The fields in which Ω is linear, all together: ``2 * r`` scales them. None: the strengths."""

    weak_convexity: ClassVar[float | None] = None
    """ρ ≥ 0 such that Ω + ½ρ‖·‖² is convex: 0 where Ω is convex; None where it is not known.

    The proximal operator is a function, and continuous, for steps below 1/ρ. Beyond that it jumps:
    it is then one of the global minimisers.
    """

    flattens_out: ClassVar[bool] = False
    """Whether Ω grows ever more slowly with |w| and ``_tangent`` is what it looks like from w."""

    differentiable: ClassVar[bool] = True
    """Whether ∇Ω says anything: not for what is constant where it is finite, or jumps."""

    elementwise: ClassVar[bool] = False
    """Whether Ω is a sum over elements, so that ``prox`` may take an array of steps."""

    prox_follows_l1: ClassVar[bool] = False
    """Whether prox of (this + λ‖·‖₁) is this prox after soft-thresholding, exactly.

    With a step per element too, if ``prox`` takes an array of steps.
    """

    l1_follows_prox: ClassVar[bool] = False
    """Whether prox of (this + λ‖·‖₁) is soft-thresholding after this prox, for one step."""

    on_shards: ClassVar[bool] = False
    """Whether each rank may compute on its own shard of an array that is sharded.

    It may if the functions treat elements one by one and combine them by ``xp.sum``,
    ``xp.segment_sum`` and ``xp.shape`` alone: no ``@``, no ``w.sum()``, no ``w.shape``. Otherwise
    the array is gathered first. Not inherited: a subclass that overrides something says it again.
    """

    no_kinks: ClassVar[str] = 'it is not known how sharp it is at 0. Use mode="gradient"'
    """Why there are no half-space steps, as a clause that says what to do; see :meth:`kinks`."""

    config_names: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """What a field is called in a configuration, where Keras has another word for it."""

    # NumPy scalars must leave ``np.float64(2) * r`` to ``__rmul__``.
    __array_ufunc__: ClassVar[None] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "on_shards" not in cls.__dict__:
            cls.on_shards = False
        if is_ours(cls):
            announce(cls)
        elif is_taken(cls.__name__):
            raise RegularizerError(
                f"the name of the class {cls.__qualname__} is taken by a regularizer of penalize",
                "choose another: a saved configuration knows that one by its bare name",
            )

    def __post_init__(self) -> None:
        for name in self.strengths:
            value = getattr(self, name)
            if not isinstance(value, Search):  # one that is chosen later
                value = check_strength(type(self).__name__, name, value)
                object.__setattr__(self, name, value)

    # --- the function -----------------------------------------------------------------------

    def __call__(self, w: Array) -> Array:
        """Ω(w): a scalar of w's framework, differentiable there, in float32 or wider.

        TensorFlow 1 asks for the penalty of each shard of a partitioned variable. What the shards
        give sums to Ω of the whole, also where Ω is not a sum over elements.

        Raises:
            ArrayError: w is not a floating-point array of a known framework.
            NoGradientError: a layer of Keras, which has it as a regularizer, asks for a loss term,
                and Ω acts by its proximal operator alone.
        """
        w, xp = open_array(w, whole=not self.on_shards)
        by = "" if is_traced(xp) else asker()
        if by.startswith("keras."):
            with values_kept():
                self._check_slot(by)
                return self._penalty(w, xp)
        return self._penalty(w, xp)

    def _check_slot(self, by: str) -> None:
        """Raise a sentence where Keras asks for no loss term, or Ω has none to give."""
        if ".optimizers" in by:
            raise RegularizerError(
                f"{self!r} stands as the constraint of a Keras variable, which would be set to its "
                "penalty",
                "give it as the regularizer, which a plan takes over: "
                'penalize.keras.regularize(model, mode="proximal"); or take a constraint of Keras',
            )
        if not self.differentiable:
            raise NoGradientError(self, "a layer of Keras", _AS_A_LOSS_TERM)

    def _penalty(self, w: Array, xp: Backend) -> Array:
        self._check_steady()
        return self._undisturbed(lambda w: self._value_of_shares(w, xp), w, xp)

    def gradient(self, w: Array) -> Array:
        """∇Ω(w), of w's shape and dtype. At a kink: the subgradient of least norm.

        In PyTorch, call it under ``torch.no_grad()`` unless you mean to differentiate through it.

        Raises:
            NoGradientError: Ω is a constraint, or counts: it acts by its proximal operator alone.
            ArrayError: w is not a floating-point array of a known framework.
        """
        self._check_steady()
        self.check_gradient()
        w, xp = open_array(w, whole=not self.on_shards)
        return self._in_width(lambda r, x: r._gradient(x, xp), w, xp)

    def pull(self, w: Array) -> Array:
        """How hard Ω pulls at each element, ≥ 0: what bounds an adaptive proximal step.

        |∇Ω(w)|; for a penalty that flattens out, the mean slope on the way to 0 instead.
        """
        self._check_steady()
        w, xp = open_array(w, whole=not self.on_shards)
        return self._in_width(lambda r, x: xp.abs(r._pull(x, xp)), w, xp)

    def prox(self, w: Array, step: float | Array) -> Array:
        """argmin_u ½‖u − w‖² + step·Ω(u), of w's shape and dtype. Exact zeros are exact.

        Args:
            w: the array.
            step: a number ≥ 0. Also an array of w's shape, ≥ 0, where Ω is elementwise, a group
                lasso, or a sum of these: argmin_u ½ Σ (u_i − w_i)²/step_i + Ω(u), the proximal
                operator in the metric of an adaptive optimizer (Yun, Lozano and Yang, Adaptive
                proximal gradient methods for structured neural networks, 2021). An element whose
                step is 0 stays as it is.

        Raises:
            NoProximalOperatorError: no closed form or well-known exact algorithm exists.
            StepError: the step is a negative number, not finite, or an array of another shape. The
                values of an array are not looked at: that would wait for the device.
            ArrayError: w is not a floating-point array of a known framework.
        """
        self._check_steady()
        w, xp = open_array(w, whole=not self.on_shards)
        xp.wide(w)  # refuses what it has to before the step is looked at
        opened, per_element = self._open_step(step, w, xp)
        self.check_prox(per_element=per_element)
        return self._in_width(lambda r, x: r._prox(x, opened, xp), w, xp)

    def prox_taken(self, w: Array, step: Step) -> Array:
        """The proximal step behind an optimizer's update, of w's shape and dtype.

        ``prox`` with the step that the optimizer took; where that differs from element to element,
        with the floor under its denominator (:func:`penalize.steps.bounded`).

        Where Ω flattens out, no such floor is right: at a solution the gradient is as small as the
        slope of Ω there, the step is long, and ``prox`` would jump. There it is that of Ω's tangent
        instead, λ_i|u_i| with Ω's slope λ_i at a point v (Zou and Li, One-step sparse estimates in
        nonconcave penalized likelihood models, 2008), as it is −∇f = λ_i that makes a solution.
        v is where the weight was before the update, if it is a solution: from w it is found by the
        tangent at w, and from there once more.

        Args:
            w: the weight after the update.
            step: what the optimizer took, with a denominator of w's shape or none.

        Raises:
            NoProximalOperatorError, StepError, ArrayError: as ``prox``.
        """
        if step.denominator is None:
            return self.prox(w, step.factor)
        self._check_steady()
        w, xp = open_array(w, whole=not self.on_shards)
        factor, denominator = (self._open_step(part, w, xp)[0] for part in step)
        self.check_step(per_element=True)
        taken = Step(factor, denominator)
        return self._in_width(lambda r, x: r._prox_taken(x, taken, xp), w, xp)

    @abstractmethod
    def _value(self, w: Array, xp: Backend) -> Array: ...

    def _undisturbed(self, compute: Callable[[Array], Array], w: Array, xp: Backend) -> Array:
        # What is computed on shards has no products of matrices, nor have its derivatives.
        return undisturbed(compute, w, xp, differentiated=not self.on_shards)

    def _in_width(
        self, compute: Callable[[Regularizer, Array], Array], w: Array, xp: Backend
    ) -> Array:
        """What is computed with w in float32 or wider, and strengths to match, in w's dtype."""

        def found(w: Array) -> Array:
            x = xp.wide(w)
            return xp.like(compute(self._beside(x, xp), x), w)

        return self._undisturbed(found, w, xp)

    def _value_of_shares(self, w: Array, xp: Backend) -> Array:
        if self.elementwise:
            return self._value_of(w, xp)
        (_, first), *others = xp.shares(w)
        value = self._value_of(first, xp)
        for sign, part in others:
            value = value + sign * self._value_of(part, xp)
        return value

    def _value_of(self, w: Array, xp: Backend) -> Array:
        """Ω of the array as it was given, for what depends on how finely its dtype resolves."""
        x = xp.wide(w)
        return self._beside(x, xp)._value(x, xp)

    def _gradient(self, w: Array, xp: Backend) -> Array:
        return xp.gradient(lambda x: self._value(x, xp), w)

    def _pull(self, w: Array, xp: Backend) -> Array:
        return self._gradient(w, xp) if self.differentiable else 0.0 * w

    def _prox(self, w: Array, step: float | Array, xp: Backend) -> Array:
        raise NotImplementedError  # check_prox refuses first, with a sentence

    def _prox_taken(self, w: Array, step: Step, xp: Backend) -> Array:
        u = w
        for _ in range(_TANGENTS if self.flattens_out else 1):
            tangent = self._tangent(u, xp)
            pull = xp.abs(tangent._pull(w, xp))
            u = tangent._prox(w, bounded(step, pull, xp), xp)
        return u

    def _tangent(self, w: Array, xp: Backend) -> Regularizer:
        """Ω itself; where it flattens out, the convex penalty that touches it from above at w."""
        return self

    def check_prox(self, *, per_element: bool = False, where: str = "") -> None:
        """Raise :class:`NoProximalOperatorError` unless ``prox`` is exact here.

        Args:
            per_element: whether the step is an array, as under Adam's diagonal metric.
            where: the parameter's name, for the message.
        """
        reason = self._why_not_prox(per_element)
        if reason:
            raise NoProximalOperatorError(self, reason, where)

    def check_step(self, *, per_element: bool = False, where: str = "") -> None:
        """Raise :class:`NoProximalOperatorError` unless ``prox_taken`` is right here.

        Args:
            per_element: whether the step has a denominator.
            where: the parameter's name, for the message.
        """
        reason = self._why_not_step(per_element)
        if reason:
            raise NoProximalOperatorError(self, reason, where)

    def check_gradient(self, where: str = "") -> None:
        """Raise :class:`NoGradientError` unless ``gradient`` is what acts on a weight.

        Args:
            where: the parameter's name, for the message.
        """
        if not self.differentiable:
            raise NoGradientError(self, where)

    def kinks(self) -> Kinks:
        """The kinks of Ω at zero: what a half-space step needs, beside the gradient.

        Raises:
            NoKinkError: they are not of a known size.
        """
        raise NoKinkError(self, self.no_kinks)

    def check_kinks(self, where: str = "") -> None:
        """Raise :class:`NoKinkError` unless Ω has a kink at zero, of known size.

        Args:
            where: the parameter's name, for the message.
        """
        try:
            none = self.kinks().none
        except NoKinkError as error:
            raise NoKinkError(error.regularizer, error.reason, where) from None
        if none:
            raise NoKinkError(self, _SMOOTH, where)

    def _why_not_prox(self, per_element: bool) -> str:
        """Why ``prox`` is not exact here, as a clause; empty where it is."""
        if type(self)._prox is Regularizer._prox:
            return "no closed form is known"
        if per_element and not self.elementwise:
            return "the step differs from element to element, and it is known for one step alone"
        return ""

    def _why_not_step(self, per_element: bool) -> str:
        return self._why_not_prox(per_element)

    def _open_step(self, step: Any, w: Array, xp: Backend) -> tuple[Any, bool]:
        """The step as ``_prox`` takes it, and whether it is an array with one per element.

        An array comes in the type in which w is computed.
        """
        if isinstance(step, numbers.Real):
            if not (math.isfinite(step) and float(step) >= 0):
                raise StepError(self, f"step={step!r}")
            return step, False
        if not hasattr(step, "shape"):
            raise StepError(self, _of_another_kind(step, w))
        opened, its = open_array(step, whole=not self.on_shards)
        if its.framework != xp.framework:
            raise StepError(self, _of_another_kind(step, w))
        shape, wanted = its.shape(opened), xp.shape(w)
        if shape and shape != wanted:
            raise StepError(self, f"a step of shape {shape} for a w of {wanted}")
        if shape and its != xp:
            raise StepError(self, "a step that is not sharded as w is")
        here, own = open_array(its.wide(opened))  # of what is sharded, the part that is here
        return own.like(here, xp.wide(w)), bool(shape)

    def strength_max(self, gradient: Array) -> Array:
        """The least f at which f·Ω leaves nothing: at which 0 ∈ g + f·∂Ω(0).

        Of a penalty with strength 1 that is its strength. It is the dual norm of the gradient:

        =================  ==========================================
        Ω                  f
        =================  ==========================================
        λ‖w‖₁              max |g| / λ; with an L2 beside it the same
        λ Σ √|g| ‖w_g‖     max over the groups of ‖g_g‖ / (λ√|g|)
        λ Σ σ              σ₁(g) / λ
        =================  ==========================================

        Where the loss is convex, w = 0 minimises loss + f·Ω from there on. Its data has to be
        fitted at w = 0 by all else, such as a bias: :func:`penalize.torch.strength_max` does that.

        Args:
            gradient: g, the gradient of the data loss at w = 0.

        Returns:
            A scalar of g's framework, ≥ 0.

        Raises:
            NoStrengthMaxError: no strength leaves nothing, as of an L2; or none is known.
            ArrayError: g is not a floating-point array of a known framework.

        Source: Friedman, Hastie and Tibshirani, Regularization paths for generalized linear models
        via coordinate descent (2010), section 2.5.
        """
        self._check_steady()
        g, xp = open_array(gradient, whole=True)

        def found(g: Array) -> Array:
            x = xp.wide(g)
            return self._beside(x, xp)._strength_max(x, xp)

        return self._undisturbed(found, g, xp)

    def _strength_max(self, gradient: Array, xp: Backend) -> Array:
        raise NoStrengthMaxError(self)

    # --- where it stands --------------------------------------------------------------------

    def resolve(self, place: Place) -> Self:
        """This regularizer for one parameter: words resolved to axes, and its shape checked."""
        return self

    def by_rows(self, ndim: int) -> tuple[Regularizer, int] | None:
        """Ω as the sum of a penalty on each row, for kernels that treat rows one by one.

        Args:
            ndim: how many axes the array has.

        Returns:
            The same penalty on a matrix of rows, which may be some of the rows only, and how many
            leading axes of the array index them: all where Ω is a sum over elements. None where Ω
            is no such sum, or depends on where in the array a row stands.
        """
        return None

    def by_columns(self, ndim: int) -> tuple[Regularizer, int] | None:
        """The same for columns: the penalty on a matrix with each column as a row, and how many
        trailing axes of the array index them.
        """
        return None

    # --- over time --------------------------------------------------------------------------

    @property
    def scheduled(self) -> bool:
        """Whether a strength follows a schedule, so that Ω is known :meth:`at` a step only."""
        return False

    def at(self, step: Any) -> Regularizer:
        """Ω at a step of training: a number, or an integer array of the framework without axes."""
        return self

    def _check_steady(self) -> None:
        if self.scheduled:
            raise NoStepError(self)

    def scaled(self, factor: Any) -> Self:
        """factor·Ω, where the factor may also be an array without axes, and is not checked."""
        return self._with(**{name: factor * getattr(self, name) for name in self._linear_in()})

    def _beside(self, w: Array, xp: Backend) -> Regularizer:
        """The same penalty; strengths that are arrays, as at a step, in the type of a weight."""
        held = {name: getattr(self, name) for name in self._linear_in()}
        # A compiler knows of a number that varies that it is a float, and not what it has.
        arrays = {
            n: xp.like(x, w)
            for n, x in held.items()
            if type(x) is not float and hasattr(x, "shape")
        }
        return self._with(**arrays) if arrays else self

    def _with(self, **fields: Any) -> Self:
        """A copy with other fields, which are not checked."""
        new = copy.copy(self)
        for name, value in fields.items():
            object.__setattr__(new, name, value)
        return new

    # --- the algebra ------------------------------------------------------------------------

    def __add__(self, other: object) -> Sum:
        if not isinstance(other, Regularizer):
            return NotImplemented
        from penalize.regularizers.sums import Sum

        return Sum((self, other))

    def __mul__(self, factor: object) -> Any:
        """A multiple, for a number ≥ 0; one whose strength follows the steps, for a schedule."""
        if callable(factor) and not isinstance(factor, Regularizer | type):
            from penalize.regularizers.scheduled import Scheduled

            return Scheduled(self, factor)
        if not isinstance(factor, numbers.Real):
            return NotImplemented
        kind = type(self).__name__
        value = check_strength(kind, "factor", factor)
        names = self._linear_in()
        scaled = {n: check_strength(kind, n, value * getattr(self, n)) for n in names}
        return self._with(**scaled)

    __rmul__ = __mul__

    def _linear_in(self) -> tuple[str, ...]:
        return self.strengths if self.factors is None else self.factors

    def __radd__(self, other: object) -> Self:
        if other == 0:  # where ``sum`` starts
            return self
        return NotImplemented

    def unit(self) -> Self:
        """The same penalty at strength one: equal for those that differ in strength only."""
        return self._with(**dict.fromkeys(self.strengths, 1.0))

    def merged(self, other: Regularizer) -> Self | None:
        """The sum with another as one regularizer of this class; None if it is not of that form."""
        names = self._linear_in()
        same = dict.fromkeys(names, 1.0)
        if not names or type(other) is not type(self) or self._with(**same) != other._with(**same):
            return None
        return self._with(**{name: getattr(self, name) + getattr(other, name) for name in names})

    def split(self) -> tuple[float, float, tuple[Regularizer, ...]]:
        """Ω as a·‖w‖₁ + b·‖w‖² + the rest: (a, b, rest)."""
        return 0.0, 0.0, (self,)

    # --- as data ----------------------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as plain data; ``from_config`` reads them back.

        The names are those of the Keras regularizer of the same name, where there is one, so that
        each reads the other's configurations: ``{"l2": 0.01}`` for ``L2(0.01)``.
        """
        names = self.config_names
        return {names.get(f.name, f.name): getattr(self, f.name) for f in dataclasses.fields(self)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The regularizer that :meth:`get_config` described, ours or that of Keras.

        Keras keeps some strengths in float32: what it made of 0.1, say, is read as 0.1 again.

        Raises:
            ConfigError: the names are not those of this class.
            StrengthError: a strength is not a finite number ≥ 0.
        """
        fields = {cls.config_names.get(f.name, f.name): f.name for f in dataclasses.fields(cls)}
        known = {**{name: name for name in fields.values()}, **fields}
        if not isinstance(config, Mapping) or not known.keys() >= config.keys():
            raise ConfigError(cls.__name__, config, f"its names must be among {sorted(fields)}")
        arguments = {known[name]: value for name, value in config.items()}
        for name in arguments.keys() & set(cls.strengths):
            arguments[name] = _as_meant(arguments[name])
        if len(arguments) < len(config):
            raise ConfigError(cls.__name__, config, "it names one argument in two ways")
        try:
            return cls(**arguments)
        except TypeError as error:
            raise ConfigError(cls.__name__, config, str(error)) from None

    def __repr__(self) -> str:
        parts = []
        for position, f in enumerate(dataclasses.fields(self)):
            value = getattr(self, f.name)
            if position == 0 and f.default is dataclasses.MISSING:
                parts.append(repr(value))
            elif value != f.default:
                parts.append(f"{f.name}={value!r}")
        return f"{type(self).__name__}({', '.join(parts)})"


_TANGENTS = 3
"""How many tangents there are to a proximal step. Each is nearer to the one at a solution by a
factor of step·ρ; the first alone is off by as much as an update moves a weight."""


def _of_another_kind(step: Any, w: Array) -> str:
    return f"step={step!r} ({type(step).__name__}) for a w that is a {type(w).__name__}"


_SMOOTH = (
    'it has no kink at 0, so that it makes no zeros. Use mode="gradient", or add what has one, '
    "such as L1(1e-4)"
)

_AS_A_LOSS_TERM = (
    'On a weight a plan takes it over: penalize.keras.regularize(model, mode="proximal"). On the '
    "outputs of a layer it cannot act"
)


def described(regularizer: Regularizer) -> dict[str, Any]:
    """A regularizer within a configuration."""
    return {"class_name": config_name(type(regularizer)), "config": regularizer.get_config()}


def read_from(owner: str, config: Any, described: Any) -> Regularizer:
    """The regularizer that :func:`described` wrote.

    Raises:
        ConfigError: it did not write this, or the name in it stands for no class here, or for two.
    """
    try:
        name, inner = described["class_name"], described["config"]
    except (KeyError, TypeError):
        raise ConfigError(
            owner, config, "each regularizer in it needs a class_name and a config"
        ) from None
    found: list[type[Regularizer]] = classes_called(Regularizer, name)
    if len(found) != 1:
        raise ConfigError(owner, config, why_not_one(Regularizer, name, found))
    return found[0].from_config(inner)


class Elementwise(Regularizer):
    """A sum over elements: separable, and its prox takes one step per element."""

    elementwise = True

    def by_rows(self, ndim: int) -> tuple[Regularizer, int] | None:
        return (self, ndim) if self.on_shards else None

    def by_columns(self, ndim: int) -> tuple[Regularizer, int] | None:
        return self.by_rows(ndim)


def _as_meant(value: Any) -> Any:
    """The decimal of up to six digits that float32 made this of; other values as they are."""
    if not isinstance(value, float) or not math.isfinite(value):
        return value
    decimal = float(f"{value:.6g}")
    try:
        (narrow,) = struct.unpack("f", struct.pack("f", decimal))
    except OverflowError:
        return value
    return decimal if narrow == value else value


def check_above(owner: Regularizer, argument: str, value: object, bound: float) -> float:
    """A finite float above a bound. Raises :class:`RegularizerError` otherwise."""
    expected = f"a finite number > {bound:g}"
    return check_number(
        type(owner).__name__, argument, value, lambda x: bound < x < math.inf, expected
    )


def check_strength(owner: str, argument: str, value: object) -> float:
    """A finite float ≥ 0. Raises :class:`StrengthError` otherwise."""
    number = as_number(value)
    if not 0 <= number < math.inf:  # which a compiler follows, of a number that varies, too
        raise StrengthError(owner, argument, value)
    return number


def check_unit(owner: str, argument: str, value: object, low: float, high: float) -> float:
    """A finite number from low, itself excluded where high is infinite, to high, included.

    Raises :class:`UnitsError` otherwise.
    """
    number = as_number(value)
    is_open = high == math.inf
    if not (low < number < high if is_open else low <= number <= high):
        expected = f"a finite number > {low:g}" if is_open else f"one from {low:g} to {high:g}"
        raise UnitsError(f"{owner} got {argument}={value!r}", f"expected {expected}")
    return number


def as_number(value: object) -> float:
    """A real number as a float without a sign of zero; NaN for anything else."""
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            return float(value) + 0.0  # no −0.0
    return math.nan


def check_number(
    owner: str, argument: str, value: object, holds: Callable[[float], bool], expected: str
) -> float:
    """A float for which something holds. Raises :class:`RegularizerError` otherwise."""
    number = as_number(value)
    if not holds(number):
        raise RegularizerError(f"{owner} got {argument}={value!r}", f"expected {expected}")
    return number
