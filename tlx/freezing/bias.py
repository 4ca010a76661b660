"""Tune biases only, and the head (BitFit, Ben Zaken et al. 2021)."""

from tlx.freezing import Groups
from tlx.tree import Rules


def rules(groups: Groups) -> Rules:
  """Every leaf named 'bias' and the whole head are trained, the rest is frozen."""
  return (f'^{groups[-1][-1]}/', 'train'), ('(^|/)bias$', 'train'), ('.*', 'frozen')
