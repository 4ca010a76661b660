"""Tune the scales and biases of normalisation layers, and the head (Frankle et al. 2020)."""

from tlx.freezing import NORM, Groups
from tlx.tree import Rules


def rules(groups: Groups) -> Rules:
  """The leaves of modules whose name holds 'norm' and the whole head are trained, others frozen."""
  return (f'^{groups[-1][-1]}/', 'train'), (NORM, 'train'), ('.*', 'frozen')
