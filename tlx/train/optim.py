"""Optimizers and schedules: optax by name, one learning rate a parameter group."""

import functools
import inspect
import itertools
import math
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import optax

from tlx.plug import closest
from tlx.tree import map_named
from tlx.types import Array, PyTree, Variables

# (step, num_steps, **options) -> factor of the peak learning rate
Schedule = Callable[..., Array]


def _constant(step, num_steps):
  return jnp.ones(())


def _linear(step, num_steps):
  return 1 - step / num_steps


def _cosine(step, num_steps):
  return 0.5 * (1 + jnp.cos(jnp.pi * step / num_steps))


def _staircase(step, num_steps, at=(1 / 3, 2 / 3), factor=0.1):
  """Times `factor` from each of the shares `at` of the steps on."""
  passed = sum(jnp.where(step >= whole_steps(share, num_steps), 1.0, 0.0) for share in at)
  return factor**passed


def _exponential(step, num_steps, least=1e-5):
  """From `least` at the first step to 1 at the last, in equal ratios (Smith 2017's range test)."""
  return least ** (1 - step / jnp.maximum(num_steps - 1, 1))


def _slanted_triangular(step, num_steps, cut_frac=0.1, ratio=32):
  """Howard and Ruder 2018, equation 3: a short linear rise, a long linear fall to 1/ratio."""
  cut = jnp.maximum(whole_steps(cut_frac, num_steps), 1)
  share = jnp.where(step < cut, step / cut, 1 - (step - cut) / (cut * (1 / cut_frac - 1)))
  return (1 + jnp.maximum(share, 0) * (ratio - 1)) / ratio


def whole_steps(share: float, num_steps: Array | int) -> Array:
  """The whole steps in `share` of `num_steps` (< 2^24), as float32.

  floor(0.29 * 100) is 29, which floating point makes 28. The share is the decimal number that was
  written, or the nearest fraction of a denominator up to 46,340: products then fit int32.
  """
  exact = Fraction(repr(float(share))).limit_denominator(46_340)
  steps = jnp.asarray(num_steps).astype(jnp.int32)
  wholes, rest = steps // exact.denominator, steps % exact.denominator
  return (wholes * exact.numerator + rest * exact.numerator // exact.denominator).astype(
    jnp.float32
  )


SCHEDULES: Mapping[str, Schedule] = {
  'constant': _constant,
  'linear': _linear,
  'cosine': _cosine,
  'slanted_triangular': _slanted_triangular,
  'staircase': _staircase,
  'exponential': _exponential,
}


def schedule(
  name: str, warmup: float = 0.0, options: Mapping[str, Any] | None = None
) -> Callable[[Array, Array], Array]:
  """(step, num_steps) -> factor in [0, 1].

  The first `warmup` share of the steps rises linearly, the schedule covers the rest.

  Raises:
    ValueError: an unknown name or option, or a value outside its range.
  """
  if name not in SCHEDULES:
    raise ValueError(
      f'Unknown schedule {name!r}; have {", ".join(SCHEDULES)}.{closest(name, SCHEDULES)}'
    )
  if not 0 <= warmup < 1:
    raise ValueError(f'warmup is the share of a phase in [0, 1), got {warmup}.')
  options = dict(options or {})
  _check_schedule(name, options)

  def factor(step: Array, num_steps: Array) -> Array:
    warmup_steps = whole_steps(warmup, num_steps)
    rest = SCHEDULES[name](jnp.maximum(step - warmup_steps, 0), num_steps - warmup_steps, **options)
    return jnp.where(step < warmup_steps, (step + 1) / jnp.maximum(warmup_steps, 1), rest)

  return factor


def _check_schedule(name: str, options: Mapping[str, Any]) -> None:
  """Raises ValueError for an option that a schedule does not take, or a bad value of one."""
  takes = list(inspect.signature(SCHEDULES[name]).parameters)[2:]
  for option, value in options.items():
    if option not in takes:
      raise ValueError(
        f'Schedule {name!r} takes no option {option!r}; it takes {", ".join(takes) or "none"}.'
      )
    if option == 'at':
      ends = (0.0, *value, 1.0) if isinstance(value, (tuple, list)) else ()
      fits = len(ends) > 2 and all(low < high for low, high in itertools.pairwise(ends))
      wanted = 'rising shares of a phase such as (0.3, 0.6, 0.9)'
    elif option == 'ratio':
      fits, wanted = isinstance(value, (int, float)) and value >= 1, 'a number from 1 on'
    else:
      fits = isinstance(value, (int, float)) and 0 < value < 1
      wanted = 'a number above 0 and below 1'
    if not fits:
      raise ValueError(f'Schedule {name!r}: {option!r} is {wanted}, got {value!r}.')


# Of optax's functions that take a learning rate, those that are no optimizer for minibatches.
REFUSED: Mapping[str, str] = {
  'lbfgs': (
    "searches along lines, with the loss of all examples at each; solver = 'logistic' does that "
    'for a head'
  ),
  'noisy_sgd': 'draws noise of its own, the same in every run',
  'optimistic_adam': 'takes no schedule and is deprecated; optimistic_adam_v2 takes its place',
}
FIXED_RATE = ('rprop', 'sm3')  # take a number and no schedule
MASKS = ('mask', 'weight_decay_mask', 'trust_ratio_mask')
OURS = (
  'learning_rate',
  'weight_decay',
  'weight_decay_rate',
  'key',
  'seed',
  *MASKS,
)  # what is no option in a config
SHARES = (
  'b1',
  'b2',
  'b3',
  'beta',
  'decay',
  'momentum',
  'rho',
)  # of a moving average, where optax's default is below 1
# Parameters that are no matrix of weights, whatever their rank: timm's no_weight_decay, under the
# names that backbones give them.
SPARED = r'(^|/)(class|registers|positions?|relative\w*|bias|scale|layer_scale\d*)(/|$)'


def check(name: str, options: Mapping[str, object], weight_decay: float) -> None:
  """Raises ValueError for an optimizer that optax does not have.

  Also for an option or value it does not take, and for decay it cannot do.
  """
  have = _optimizers()
  if name in REFUSED and name in dir(optax):
    raise ValueError(f'Optimizer {name!r} {REFUSED[name]}. Have {", ".join(have)}.')
  if name not in have:
    raise ValueError(
      f'Unknown optimizer {name!r}; optax has {", ".join(have)}.{closest(name, have)}'
    )
  taken = {option: default for option, default in _arguments(name).items() if option not in OURS}
  for option, value in options.items():
    if option not in taken:
      raise ValueError(
        f'Optimizer {name!r} takes no option {option!r}; it takes {", ".join(taken)}.'
        f'{closest(option, taken)}'
      )
    _check_value(f'Optimizer {name!r}: option {option!r}', option, value, taken[option])
  if not math.isclose(weight_decay, 0) and 'weight_decay' not in _arguments(name) and name != 'sgd':
    raise ValueError(
      f'Optimizer {name!r} has no weight decay, got weight_decay={weight_decay}. Use adamw, lion '
      'or sgd.'
    )
  if options or name not in _PLAIN:
    _try(name, tuple(sorted(options.items())))


_PLAIN = ('adam', 'adamw', 'sgd')  # without options they need no try, which compiles programs


def _check_value(where: str, option: str, value: object, default: object) -> None:
  """Raises ValueError for a value of another kind than optax's default, or outside its range."""
  if isinstance(default, bool):
    if not isinstance(value, bool):
      raise ValueError(f'{where} is True or False, got {value!r}.')
  elif isinstance(value, (int, float)) and not isinstance(value, bool):
    share = option in SHARES and not (isinstance(default, float) and default >= 1)
    if not 0 <= value < (1 if share else math.inf):
      raise ValueError(
        f'{where} is a number {"in [0, 1)" if share else "of at least 0"}, got {value!r}.'
      )
  elif isinstance(default, (int, float)) or not isinstance(value, (str, type(None))):
    raise ValueError(
      f'{where} is {default!r} by default and takes values of its kind, got {value!r}.'
    )


@functools.cache
def _try(name: str, options: tuple[tuple[str, Any], ...]) -> None:
  """Raises ValueError where two updates of a small tree fail or are not finite."""
  params = {'kernel': jnp.full((2, 3), 0.5), 'bias': jnp.full(3, 0.5)}
  labels = jax.tree.map(lambda _: 'train', params)
  try:
    tx = optimizer(
      name, dict(options), labels, {'train': 1.0}, lambda count: 0.1 * 0.5**count, jnp.zeros(())
    )
    state = tx.init(params)
    for _ in range(2):
      updates, state = tx.update(params, state, params)
  except (TypeError, ValueError, ArithmeticError, AttributeError) as error:
    raise ValueError(
      f'Optimizer {name!r} with {dict(options)} makes no update: {str(error)[:300]}'
    ) from None
  if not all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(updates)):
    raise ValueError(f'Optimizer {name!r} with {dict(options)} makes an update that is not finite.')


@functools.cache
def _optimizers() -> list[str]:
  """The names of optax's optimizers that a phase can have."""
  names = [
    name
    for name in dir(optax)
    if name.islower() and not name.startswith(('_', 'scale_by_')) and name not in REFUSED
  ]
  return [
    name for name in names if callable(getattr(optax, name)) and 'learning_rate' in _arguments(name)
  ]


def _arguments(name: str) -> dict[str, object]:
  """The arguments of an optimizer of optax and their defaults."""
  try:
    parameters = inspect.signature(getattr(optax, name)).parameters
  except (TypeError, ValueError):
    return {}
  return {argument: parameter.default for argument, parameter in parameters.items()}


def optimizer(
  name: str,
  options: Mapping[str, object],
  labels: PyTree,
  rates: Mapping[str, float],
  learning_rate: Callable[[Array], Array],
  weight_decay: Array,
  clip_norm: float = 0.0,
) -> optax.GradientTransformation:
  """The transformation of one phase over the trainable leaves.

  Over a whole tree it sets frozen leaves to zero.

  Args:
    labels: the group of every leaf.
    rates: the multiple of `learning_rate` for every group ('frozen' needs none): discriminative
      rates.
    learning_rate: step -> rate; it and `weight_decay` may be traced, so runs that differ in them
      share one program.
    clip_norm: clips the global norm of the trainable gradients; 0 for no clipping.

  Weight decay is as optax's optimizer has it (mostly decoupled), plain L2 for sgd. It reaches
  matrices (kernels, tables of tokens) and spares vectors, class tokens, registers, layer scales and
  embeddings of position (`decays`).
  """
  groups = {
    group: _group(name, options, _scaled(rate, learning_rate), weight_decay)
    for group, rate in rates.items()
  }
  tuned = optax.multi_transform(groups | {'frozen': optax.set_to_zero()}, labels)
  if not clip_norm:
    return tuned
  trainable = jax.tree.map(lambda label: label != 'frozen', labels)
  return optax.chain(optax.masked(optax.clip_by_global_norm(clip_norm), trainable), tuned)


def _scaled(rate: float, learning_rate: Callable[[Array], Array]) -> Callable[[Array], Array]:
  return lambda count: rate * learning_rate(count)


def _group(
  name: str,
  options: Mapping[str, object],
  learning_rate: Callable[[Array], Array],
  weight_decay: Array,
) -> optax.GradientTransformation:
  """The transformation of one group.

  Optimizers that take no schedule are built at rate 1 and their updates scaled: rprop's step sizes
  are multiples of the rate.
  """
  make, has = getattr(optax, name), _arguments(name)
  if name in FIXED_RATE:
    return optax.chain(make(learning_rate=1.0, **options), optax.scale_by_schedule(learning_rate))
  arguments = dict(options, learning_rate=learning_rate)
  if name == 'sgd':
    return optax.chain(optax.add_decayed_weights(weight_decay, decays), optax.sgd(**arguments))
  if 'weight_decay' not in has:
    return make(**arguments)
  mask = next((mask for mask in MASKS[:2] if mask in has), None)
  if mask:
    return make(**arguments, weight_decay=weight_decay, **{mask: decays})
  both = {
    True: make(**arguments, weight_decay=weight_decay),
    False: make(**arguments, weight_decay=0.0),
  }
  return optax.multi_transform(both, decays)


def moved_average(average: Variables, now: Variables, ema: float | Array, step: Array) -> Variables:
  """The exponential moving average of weights and batch statistics after one more step.

  Its decay is min(ema, (1 + n) / (10 + n)) after n steps before: what a phase begins with is soon
  forgotten also where it is short. As tf.train.ExponentialMovingAverage(ema, num_updates=n), which
  EfficientNet trained with; statistics are averaged as there and in timm's ModelEma.
  """
  decay = jnp.minimum(ema, (1.0 + step) / (10.0 + step))
  return jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, average, now)


def ascended(params: PyTree, grads: PyTree, rho: float) -> PyTree:
  """params + rho * grads / |grads|: where SAM takes its gradient (Foret et al. 2021, equation 2).

  The norm is that of all trainable leaves together; a gradient of 0 moves nothing.
  """
  norm = optax.tree.norm(grads)
  scale = rho / jnp.where(norm > 0, norm, 1.0)
  return jax.tree.map(lambda leaf, grad: leaf + scale * grad, params, grads)


def decays(params: PyTree) -> PyTree:
  """True for each leaf that weight decay reaches: matrices, told by rank and by name."""
  return map_named(lambda name, leaf: leaf.ndim > 1 and not re.search(SPARED, name), params)
