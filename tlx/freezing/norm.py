"""Tune the scales and biases of normalisation layers, and the head (Frankle et al. 2020)."""
from collections.abc import Sequence

from tlx.tree import Rules


def rules(stages: Sequence[str]) -> Rules:
  """The leaves of modules whose name holds 'norm' and the whole head are trained, the rest is frozen."""
  return (f'^{stages[-1]}/', 'train'), (r'norm[^/]*/(scale|bias)$', 'train'), ('.*', 'frozen')
