"""Values of official code on one drawn example (third_party/tests/scores)."""

import json
import pathlib

import numpy as np
from scipy.special import softmax

GOLDEN = json.loads(
  (pathlib.Path(__file__).parents[2] / 'third_party/tests/scores/golden.json').read_text()
)


def drawn() -> dict[str, np.ndarray]:
  """labels [300], features [300, 20], probs [300, 8]; x [100, 10] and y [100, 7]; after [2, 30]."""
  rng = np.random.RandomState(0)
  labels = rng.randint(0, 5, 300)
  means = rng.randn(5, 20)
  features = 0.7 * means[labels] + rng.randn(300, 20)
  probs = softmax(0.5 * features @ rng.randn(20, 8), axis=1)
  x = rng.randn(100, 10)
  y = x @ rng.randn(10, 7) * 0.5 + rng.randn(100, 7)
  found = {
    'F_sum': features.sum(),
    'P_00': probs[0, 0],
    'X_sum': x.sum(),
    'Y_sum': y.sum(),
  }
  for name, value in found.items():
    np.testing.assert_allclose(value, GOLDEN[name], rtol=1e-12)
  after = np.stack([rng.randn(30), rng.randn(30)])
  return {'labels': labels, 'features': features, 'probs': probs, 'x': x, 'y': y, 'after': after}
