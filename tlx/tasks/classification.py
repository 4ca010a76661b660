"""Single-label classification."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.special

from tlx.types import Array, Batch, PyTree, Task

COLUMNS = ('accuracy', 'loss', 'count', 'correct', 'balanced_accuracy')


@functools.cache
def task(
  num_classes: int,
  label_smoothing: float = 0.0,
  class_weights: tuple[float, ...] | str = (),
  focal: float = 0.0,
) -> Task:
  """Softmax cross-entropy in nats over logits [B, K]; targets are class numbers [B].

  Columns: 'accuracy', by which settings are chosen, 'loss', 'count', 'correct'; of kept logits also
  'balanced_accuracy' and 'recall', a list with a number a class, NaN where it has no example.
  `label_smoothing` (Szegedy et al. 2016) mixes the targets of training with the uniform
  distribution; columns are not smoothed.

  Where classes are unequal, in what is minimised alone: `class_weights`, a number a class, weigh
  the examples of each in the mean, as torch's CrossEntropyLoss(weight) (with label_smoothing the
  whole example is weighed here, not each class's share of it); with 'balanced' they are those of
  scikit-learn, of each run's own training examples. `focal` is gamma of the focal
  loss over softmax, -(1 - p)^gamma log p of the right class's p (Lin et al. 2017, equation 4, for
  several classes); torchvision's sigmoid_focal_loss judges each class by itself, and is another.

  Raises:
    ValueError: label_smoothing outside [0, 1), class_weights that are neither 'balanced' nor a
      number above 0 a class, a negative focal, or focal with label_smoothing.
  """
  if not 0 <= label_smoothing < 1:
    raise ValueError(f'label_smoothing is a share in [0, 1), got {label_smoothing}.')
  balanced = class_weights == 'balanced'
  _check_unequal(num_classes, () if balanced else class_weights, focal, label_smoothing)

  def terms(logits: Array, batch: Batch) -> dict[str, tuple[Array, Array]]:
    wanted = jax.nn.one_hot(batch.targets, logits.shape[-1], dtype=logits.dtype)
    smoothed = optax.smooth_labels(wanted, label_smoothing)
    correct = (jnp.argmax(logits, -1) == batch.targets).astype(jnp.float32)
    loss = optax.softmax_cross_entropy(logits, smoothed)
    if focal:
      # The bound is for gamma below 1, whose gradient is not finite where p = 1.
      loss *= jnp.maximum(-jnp.expm1(-loss), 1e-12) ** focal
    weight = batch.mask
    if class_weights and not balanced:
      weight = weight * jnp.asarray(class_weights, jnp.float32)[batch.targets]
    return {
      'loss': (loss, weight),
      'cross_entropy': (optax.softmax_cross_entropy(logits, wanted), batch.mask),
      'correct': (correct, batch.mask),
    }

  return Task(
    head=num_classes,
    targets=_labels,
    terms=terms,
    keep=_logits,
    scores=_scores,
    select=('accuracy', +1),
    solvers=() if class_weights or focal else ('logistic', 'ridge'),
    balanced=balanced,
  )


def _check_unequal(
  num_classes: int, class_weights: tuple[float, ...] | str, focal: float, label_smoothing: float
) -> None:
  """Raises ValueError for what `task` does not take of class_weights and focal."""
  if not _is_amount(focal):
    raise ValueError(f'focal is gamma of the focal loss, a number of at least 0, got {focal!r}.')
  if focal and label_smoothing:
    raise ValueError('focal goes by the right class alone. Set label_smoothing = 0 or focal = 0.')
  given = class_weights if isinstance(class_weights, tuple) else (None,)
  if given and (len(given) != num_classes or not all(_is_amount(one) and one for one in given)):
    raise ValueError(
      f"class_weights are 'balanced' or {num_classes} numbers above 0, one a class in the order of "
      f'their names, got {class_weights!r}.'
    )


def _is_amount(value: Any) -> bool:
  """Whether this is a finite number of at least 0."""
  number = isinstance(value, int | float) and not isinstance(value, bool)
  return number and 0 <= value < float('inf')


def answers(kept: Mapping[str, np.ndarray], class_names: Sequence[str]) -> dict[str, Sequence[Any]]:
  """{'class': the names, 'probability': theirs, 'p(NAME)': that of each class}, a number a row."""
  probabilities = scipy.special.softmax(kept['logits'].astype(np.float64), -1)
  best = probabilities.argmax(-1)
  columns: dict[str, Sequence[Any]] = {
    'class': [class_names[number] for number in best],
    'probability': probabilities.max(-1),
  }
  return columns | {f'p({name})': of_class for name, of_class in zip(class_names, probabilities.T)}


def averaged(kept: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
  """What is kept of several runs, as of one: logits of the mean of their probabilities."""
  logs = [scipy.special.log_softmax(one['logits'].astype(np.float64), -1) for one in kept]
  return {'logits': scipy.special.logsumexp(logs, 0) - np.log(len(logs))}


def _labels(inputs: PyTree, labels: np.ndarray) -> np.ndarray:
  if np.ndim(labels) != 1 or not np.issubdtype(np.asarray(labels).dtype, np.integer):
    raise ValueError(
      f'classification wants a class number for each example, got {np.asarray(labels).dtype} '
      f"{np.shape(labels)[1:]} of each. Use the task 'regression' for numbers, 'multi_label' for "
      'several labels an example.'
    )
  return labels


def _logits(outputs: Array) -> dict[str, Array]:
  return {'logits': outputs}


def _scores(
  sums: Mapping[str, tuple[float, float]],
  kept: Mapping[str, np.ndarray] | None = None,
  labels: np.ndarray | None = None,
) -> dict[str, Any]:
  correct, count = sums['correct']
  loss, _ = sums['cross_entropy']
  columns = {
    'accuracy': correct / count,
    'loss': loss / count,
    'count': int(count),
    'correct': int(correct),
  }
  if kept is None or labels is None:
    return columns
  return columns | _by_class(kept['logits'], labels)


def _by_class(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
  """The recall of each class and their mean over the classes that have examples."""
  right = logits.argmax(-1) == labels
  recall = []
  for number in range(logits.shape[-1]):
    of_class = right[labels == number]
    recall.append(float(of_class.mean()) if len(of_class) else np.nan)
  return {'balanced_accuracy': float(np.nanmean(recall)), 'recall': recall}
