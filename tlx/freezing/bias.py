"""Tune biases only, and the head (BitFit, Ben Zaken et al. 2021)."""
from collections.abc import Sequence

from tlx.tree import Rules


def rules(stages: Sequence[str]) -> Rules:
  """Every leaf named 'bias' and the whole head are trained, the rest is frozen."""
  return (f'^{stages[-1]}/', 'train'), ('(^|/)bias$', 'train'), ('.*', 'frozen')
