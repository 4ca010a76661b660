"""Single-label classification."""
import jax
import jax.numpy as jnp
import optax

from tlx.types import Array, Batch, Task


def task(label_smoothing: float = 0.0) -> Task:
  """Softmax cross-entropy in nats over logits [B, K]; targets are class numbers [B] or probabilities [B, K].

  `label_smoothing` (Szegedy et al. 2016) mixes the training targets with the uniform distribution; `sums` are not smoothed.

  Raises:
    ValueError: label_smoothing outside [0, 1).
  """
  if not 0 <= label_smoothing < 1:
    raise ValueError(f'label_smoothing is a share in [0, 1), got {label_smoothing}.')

  def probabilities(logits: Array, targets: Array) -> Array:
    return targets if targets.ndim == logits.ndim else jax.nn.one_hot(targets, logits.shape[-1], dtype=logits.dtype)

  def loss(logits: Array, batch: Batch) -> Array:
    wanted = optax.smooth_labels(probabilities(logits, batch.targets), label_smoothing)
    losses = optax.softmax_cross_entropy(logits, wanted)
    return jnp.sum(losses * batch.mask) / jnp.maximum(jnp.sum(batch.mask), 1.0)

  def sums(logits: Array, batch: Batch) -> dict[str, Array]:
    losses = optax.softmax_cross_entropy(logits, probabilities(logits, batch.targets))
    correct = (jnp.argmax(logits, -1) == batch.targets).astype(jnp.float32)
    return {'loss': jnp.sum(losses * batch.mask), 'correct': jnp.sum(correct * batch.mask), 'count': jnp.sum(batch.mask)}

  return Task(loss, sums)
