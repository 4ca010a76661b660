"""Tune the last k stages, the head among them (k=1 is the linear probe)."""
from collections.abc import Sequence

from tlx.freezing import check_depth, tune_stages
from tlx.tree import Rules


def rules(stages: Sequence[str], k: int) -> Rules:
  """The last k stages are trained, the others are frozen; k counts the head."""
  if k == 0:
    raise ValueError('k=0 would train nothing; k=1 trains the head.')
  check_depth(k - 1, stages)
  return tune_stages(stages, stages[-k:])
