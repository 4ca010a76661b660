"""Tune the last k stages, the head among them."""

from tlx.freezing import Groups, check_depth, tune_groups
from tlx.tree import Rules


def rules(groups: Groups, k: int) -> Rules:
  """The last k groups of stages are trained, the others are frozen; k=1 is the head, with the final
  norm where there is one.
  """
  if k == 0:
    raise ValueError('k=0 would train nothing; k=1 trains the head.')
  check_depth(k, groups, least=1)
  return tune_groups(groups, groups[-k:])
