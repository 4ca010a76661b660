"""Heads that see what one or several stages give, place by place or in the mean."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from tlx.backbones import _layers
from tlx.backbones._boxes import GROUP, Boxes
from tlx.types import Array, PyTree

GATE_TEMPERATURE = 0.1  # of Ladder Side-Tuning


def kept(x: PyTree) -> PyTree:
  """What heads see of an activation: an image [B, H, W, C], tokens with their mask, or a vector."""
  return {'hidden': x['hidden'], 'mask': x['mask']} if isinstance(x, Mapping) else x


def tokens(x: PyTree) -> tuple[Array, Array]:
  """(places [B, T, D] in float32, which of them count [B, T])."""
  if isinstance(x, Mapping):
    return x['hidden'].astype(jnp.float32), x['mask'] != 0
  places = x.reshape(len(x), -1, x.shape[-1]).astype(jnp.float32)
  return places, jnp.ones(places.shape[:2], bool)


def standardised(places: Array) -> Array:
  """Each place with mean 0 and variance 1 over its numbers, as a layer norm without parameters."""
  centred = places - places.mean(-1, keepdims=True)
  return centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + 1e-6)


class Seeing(NamedTuple):
  """How a head sees several stages.

  name: of the stages that keep what is seen, 'block0_<name>'
  of(activation) -> what is seen of a stage
  joined({stage: what is seen}) -> what the head takes
  """

  name: str
  of: Callable[[PyTree], PyTree]
  joined: Callable[[Mapping[str, PyTree]], PyTree]


def beside(seen: Mapping[str, PyTree]) -> PyTree:
  """{'seen': what is seen of each stage}: heads of places take it stage by stage."""
  return {'seen': seen}


def side_by_side(stages: Sequence[str], seen: Mapping[str, Array]) -> Array:
  """[B, sum of D] of vectors [B, D] of some stages, each brought to a root mean square of 1.

  Head2Toe (Evci et al. 2022, arXiv:2201.03529) brings each to length 1; here that times sqrt(D), so
  that learning rates for one stage serve for several. Vectors of zeros stay so.
  """
  scaled = []
  for stage in stages:
    square = jnp.square(seen[stage]).mean(-1, keepdims=True)
    scale = jnp.where(square > 0, jax.lax.rsqrt(jnp.maximum(square, 1e-30)), 0.0)
    scaled.append(seen[stage] * scale)
  return jnp.concatenate(scaled, axis=-1)


class Attentive(nn.Module):
  """Logits [B, K] of places that learned queries attend to, and a linear map of what they find.

  Each of `queries` vectors q attends by softmax(q x / sqrt(D)) to a stage's standardised places x,
  and the sums so weighted are mapped to classes together. That is cross-attention of learned
  queries (Set Transformer, Lee et al. 2019; the attentive probe of V-JEPA, Bardes et al. 2024) with
  the map of the keys taken into the queries and that of the values into the linear map; without
  the paper's MLP. Queries start at 0: at the plain mean.
  """

  num_classes: int
  stages: tuple[str, ...]
  queries: int = 1

  @nn.compact
  def __call__(self, x: PyTree, train: bool) -> Array:
    found = []
    for stage in self.stages:
      places, counts = tokens(x['seen'][stage])
      places = standardised(places)
      shape = (self.queries, places.shape[-1])
      query = self.param(f'query_{stage}', nn.initializers.zeros, shape, jnp.float32)
      scores = jnp.einsum('btd,qd->bqt', places, query) / shape[-1] ** 0.5
      weights = jax.nn.softmax(jnp.where(counts[:, None], scores, -jnp.inf), axis=-1)
      found.append(jnp.einsum('bqt,btd->bqd', weights, places).reshape(len(places), -1))
    return _linear(self, jnp.concatenate(found, axis=-1), self.num_classes)


class Ladder(nn.Module):
  """Logits [B, K] of a narrow network beside the backbone, which takes in what each stage gives.

  Ladder Side-Tuning (Sung et al. 2022, arXiv:2206.06522): at each stage a learned gate g, which
  starts at 1/2, mixes what the narrow network has, h, with the stage's places brought to `size`
  numbers, g down(x) + (1 - g) h, and a block follows. Where the backbone is frozen no gradient
  enters it. Departs from the paper in blocks that are residual MLPs of one place, in starting them
  at random and not from pruned weights, in standardising what comes in, and in averaging over
  places where a stage has fewer.
  """

  num_classes: int
  stages: tuple[str, ...]
  size: int = 64

  @nn.compact
  def __call__(self, x: PyTree, train: bool) -> Array:
    side, before = jnp.zeros(()), None
    for stage in self.stages:
      seen = x['seen'][stage]
      places, counts = tokens(seen)
      down = nn.Dense(self.size, name=f'down_{stage}')(standardised(places))
      if before is not None:
        logit = self.param(f'gate_{stage}', nn.initializers.zeros, (), jnp.float32)
        gate = jax.nn.sigmoid(logit / GATE_TEMPERATURE)
        side = gate * down + (1 - gate) * _as_many(side, before, seen)
      else:
        side = down
      inside = nn.gelu(nn.Dense(self.size, name=f'up_{stage}')(standardised(side)))
      side += nn.Dense(self.size, name=f'out_{stage}')(inside)
      before = seen
    return _linear(self, _mean(standardised(side), counts), self.num_classes)


class Side(nn.Module):
  """Logits [B, K] of what the backbone gives and what a small network beside it adds to that.

  Side-Tuning (Zhang et al. 2020, arXiv:1912.13503): a linear map of R = alpha B + (1 - alpha) S
  with one learned alpha, which starts at 1/2 (equation 1). B is the mean over places of the second
  of two stages, and S, as wide, of a network of `size` that sees the first. Departs from the paper
  in that S takes what a stage gives, not the input itself, is one residual MLP of each place, and
  starts at 0, so at B / 2, not as a copy of the backbone or distilled from it.
  """

  num_classes: int
  stages: tuple[str, ...]
  size: int = 64

  @nn.compact
  def __call__(self, x: PyTree, train: bool) -> Array:
    first, last = (tokens(x['seen'][stage]) for stage in self.stages)
    base, (places, counts) = _mean(*last), first
    side = nn.Dense(self.size, name='down')(standardised(places))
    inside = nn.gelu(nn.Dense(self.size, name='up')(standardised(side)))
    side = _mean(standardised(side + nn.Dense(self.size, name='out')(inside)), counts)
    side = nn.Dense(base.shape[-1], kernel_init=nn.initializers.zeros, name='as_wide')(side)
    alpha = jax.nn.sigmoid(self.param('alpha', nn.initializers.zeros, (), jnp.float32))
    return _linear(self, alpha * base + (1 - alpha) * side, self.num_classes)


def _mean(places: Array, counts: Array) -> Array:
  """[B, D]: the mean of those places [B, T, D] that count."""
  weight = counts.astype(jnp.float32)[..., None]
  return (places * weight).sum(1) / jnp.maximum(weight.sum(1), 1.0)


def _as_many(side: Array, before: PyTree, seen: PyTree) -> Array:
  """[B, T', D] of places [B, T, D] that lie as in `before`: means over cells, as in `seen`."""
  if isinstance(seen, Mapping) or jnp.shape(seen)[:-1] == jnp.shape(before)[:-1]:
    return side
  if jnp.ndim(seen) == 4 and jnp.ndim(before) == 4:
    image = side.reshape(*before.shape[:-1], -1)
    rows, columns = (_layers.shares(before.shape[i], seen.shape[i]) for i in (1, 2))
    means = jnp.einsum('ih,jw,bhwc->bijc', rows, columns, image, precision='highest')
    return means.reshape(len(side), -1, side.shape[-1])
  number = tokens(seen)[1].shape[1]
  return jnp.broadcast_to(side.mean(1, keepdims=True), (len(side), number, side.shape[-1]))


def _linear(module: nn.Module, x: Array, num_classes: int) -> Array:
  """x kernel + bias, with parameters of the module, as `_layers.Head` has them."""
  kernel = module.param(
    'kernel', nn.initializers.lecun_normal(), (x.shape[-1], num_classes), jnp.float32
  )
  return x @ kernel + module.param('bias', nn.initializers.zeros, (num_classes,), jnp.float32)


# What a method's `head_after` may name beside the linear map of means, and the options of each.
KINDS: Mapping[str, Callable[..., nn.Module]] = {
  'attentive': Attentive,
  'ladder': Ladder,
  'side': Side,
  'boxes': Boxes,
}
OPTIONS = {
  'linear': ('grid',),
  'attentive': ('queries',),
  'ladder': ('size',),
  'side': ('size',),
  'boxes': ('size', 'depth'),
}


def check(kind: str, options: Mapping[str, Any]) -> None:
  """Nothing, where there is such a head with these options.

  Raises:
    ValueError: there is none.
  """
  takes = OPTIONS[_layers.choose('kind', kind, tuple(OPTIONS))]
  for option, value in options.items():
    if option not in takes:
      takes_words = ' and '.join(map(repr, takes))
      raise ValueError(f'A head of kind {kind!r} takes the option {takes_words}, got {option!r}.')
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
      raise ValueError(f'{option} of a head is a whole number from 1 on, got {value!r}.')
  if kind == 'boxes' and options.get('size', GROUP) % GROUP:
    raise ValueError(f'size of a head of boxes is a multiple of {GROUP}, got {options["size"]}.')
