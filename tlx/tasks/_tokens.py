"""What the tasks of language models share: tokens predicted from those before them."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tlx.tasks import _vocabulary
from tlx.types import Array, Batch, PyTree

_TARGETS = ('next', 'bytes', 'characters')
COLUMNS = ('bits_per_byte', 'bits_per_character', 'loss', 'token_perplexity', 'tokens', 'bytes')
EACH = ('text', 'bytes', 'characters')  # kept of each example: bits per byte of any part of them


def targets(inputs: Mapping[str, np.ndarray], labels: np.ndarray) -> dict[str, np.ndarray]:
  """What is to be predicted, as the form stores it beside what is read (inputs/_targets.py)."""
  del labels
  return {name: inputs[name] for name in _TARGETS}


def terms(outputs: PyTree, batch: Batch) -> dict[str, tuple[Array, Array]]:
  """Values and weights [B, T]: the 'loss' in nats of every token to predict; of those that cover
  text the 'text' in nats, its 'bytes' and 'characters'.

  Outputs are logits [B, T, V], or {'features' [B, T, D], 'kernel' [V, D]} of which they are the
  product: then they exist in chunks of the vocabulary alone.
  """
  wanted, sizes = batch.targets['next'], batch.targets['bytes']
  weight = (wanted >= 0) * batch.mask[:, None]
  of_text = (sizes >= 0) * weight
  nats = _nats(outputs, jnp.maximum(wanted, 0))
  return {
    'loss': (nats, weight),
    'text': (nats, of_text),
    'bytes': (sizes.astype(jnp.float32), of_text),
    'characters': (batch.targets['characters'].astype(jnp.float32), of_text),
  }


def _nats(outputs: PyTree, wanted: Array) -> Array:
  """-log softmax(logits)[wanted], [B, T] in nats."""
  if isinstance(outputs, Mapping):
    return _vocabulary.nll(outputs['features'], outputs['kernel'], wanted)
  logits = outputs.astype(jnp.float32)
  chosen = jnp.take_along_axis(logits, wanted[..., None], axis=-1)[..., 0]
  return jax.nn.logsumexp(logits, axis=-1) - chosen


def keep(outputs: PyTree) -> dict[str, Array]:
  """Nothing: the outputs of every example are too many."""
  del outputs
  return {}


def scores(
  sums: Mapping[str, tuple[float, float]],
  kept: Mapping[str, np.ndarray] | None = None,
  targets: PyTree = None,
) -> dict[str, Any]:
  """Ratios of sums over all texts, never means of ratios.

  bits_per_byte, bits_per_character: of the tokens that cover text, per byte of UTF-8 and character
    of the original text that they cover; models of any tokenizer compare by these
  loss: nats a token, special ones too; token_perplexity: its exponential. Both are of this
    tokenizer's tokens, and compare with models of the same tokenizer alone
  tokens, bytes: how many are predicted
  """
  del kept, targets
  nats, num_tokens = sums['loss']
  bits = sums['text'][0] / np.log(2)
  num_bytes, num_characters = sums['bytes'][0], sums['characters'][0]
  return {
    'bits_per_byte': float(bits / num_bytes) if num_bytes else np.nan,
    'bits_per_character': float(bits / num_characters) if num_characters else np.nan,
    'loss': nats / num_tokens,
    'token_perplexity': float(np.exp(min(nats / num_tokens, 700.0))),
    'tokens': int(num_tokens),
    'bytes': int(num_bytes),
  }
