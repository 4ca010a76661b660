"""Optimizers and schedules: optax by name, one learning rate a parameter group."""
import inspect
import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax

from tlx.plug import closest
from tlx.types import Array, PyTree

Schedule = Callable[[Array, Array], Array]  # (step, num_steps) -> factor of the peak learning rate


def _cosine(step, num_steps):
  return 0.5 * (1 + jnp.cos(jnp.pi * step / num_steps))


def _slanted_triangular(step, num_steps, cut_frac=0.1, ratio=32):
  """Howard and Ruder 2018, equation 3: a short linear rise, a long linear fall, never below 1/ratio."""
  cut = jnp.maximum(jnp.floor(num_steps * cut_frac), 1)
  share = jnp.where(step < cut, step / cut, 1 - (step - cut) / (cut * (1 / cut_frac - 1)))
  return (1 + jnp.maximum(share, 0) * (ratio - 1)) / ratio


SCHEDULES: Mapping[str, Schedule] = {
    'constant': lambda step, num_steps: jnp.ones(()),
    'linear': lambda step, num_steps: 1 - step / num_steps,
    'cosine': _cosine,
    'slanted_triangular': _slanted_triangular,
}


def schedule(name: str, warmup: float = 0.0) -> Schedule:
  """(step, num_steps) -> factor in [0, 1]; the first `warmup` share of the steps rises linearly, the schedule covers the rest.

  Raises:
    ValueError: an unknown name, or a warm-up outside [0, 1).
  """
  if name not in SCHEDULES:
    raise ValueError(f'Unknown schedule {name!r}; have {", ".join(SCHEDULES)}.{closest(name, SCHEDULES)}')
  if not 0 <= warmup < 1:
    raise ValueError(f'warmup is the share of a phase in [0, 1), got {warmup}.')

  def factor(step: Array, num_steps: Array) -> Array:
    warmup_steps = jnp.floor(warmup * num_steps)
    rest = SCHEDULES[name](jnp.maximum(step - warmup_steps, 0), num_steps - warmup_steps)
    return jnp.where(step < warmup_steps, (step + 1) / jnp.maximum(warmup_steps, 1), rest)

  return factor


def check(name: str, options: Mapping[str, object], weight_decay: float) -> None:
  """Raises ValueError for an optimizer that optax does not have, an option it does not take, or decay it cannot do."""
  if name.startswith('_') or not callable(getattr(optax, name, None)) or 'learning_rate' not in _arguments(name):
    have = [n for n in dir(optax) if n.islower() and callable(getattr(optax, n)) and 'learning_rate' in _arguments(n)]
    raise ValueError(f'Unknown optimizer {name!r}; optax has {", ".join(have)}.{closest(name, have)}')
  taken = [n for n in _arguments(name) if n not in ('learning_rate', 'weight_decay', 'mask')]
  for option in options:
    if option not in taken:
      raise ValueError(f'Optimizer {name!r} takes no option {option!r}; it takes {", ".join(taken)}.{closest(option, taken)}')
  if not math.isclose(weight_decay, 0) and 'weight_decay' not in _arguments(name) and name != 'sgd':
    raise ValueError(f'Optimizer {name!r} has no weight decay, got weight_decay={weight_decay}. Use adamw, lion or sgd.')


def _arguments(name: str) -> tuple[str, ...]:
  try:
    return tuple(inspect.signature(getattr(optax, name)).parameters)
  except (TypeError, ValueError):
    return ()


def optimizer(name: str, options: Mapping[str, object], labels: PyTree, rates: Mapping[str, float],
              learning_rate: Callable[[Array], Array], weight_decay: Array, clip_norm: float = 0.0) -> optax.GradientTransformation:
  """The transformation of one phase over the trainable leaves (over a whole tree it sets frozen leaves to zero).

  Args:
    labels: the group of every leaf.
    rates: the multiple of `learning_rate` for every group ('frozen' needs none): discriminative rates.
    learning_rate: step -> rate; it and `weight_decay` may be traced, so runs that differ in them share one program.
    clip_norm: clips the global norm of the trainable gradients; 0 for no clipping.

  Weight decay is decoupled where optax's optimizer has it, plain L2 for sgd, and spares vectors (biases, norm scales).
  """
  def group(rate: float) -> optax.GradientTransformation:
    arguments = dict(options, learning_rate=lambda count: rate * learning_rate(count))
    if 'weight_decay' in _arguments(name):
      return getattr(optax, name)(**arguments, weight_decay=weight_decay, mask=_matrices)
    if name == 'sgd':
      return optax.chain(optax.add_decayed_weights(weight_decay, _matrices), optax.sgd(**arguments))
    return getattr(optax, name)(**arguments)

  groups = {name: group(rate) for name, rate in rates.items()} | {'frozen': optax.set_to_zero()}
  tuned = optax.multi_transform(groups, labels)
  if not clip_norm:
    return tuned
  trainable = jax.tree.map(lambda label: label != 'frozen', labels)
  return optax.chain(optax.masked(optax.clip_by_global_norm(clip_norm), trainable), tuned)


def _matrices(params: PyTree) -> PyTree:
  return jax.tree.map(lambda leaf: leaf.ndim > 1, params)
