"""Tune the first k stages and the head (surgical fine-tuning for input-level shift, Lee et al. 2023)."""
from collections.abc import Sequence

from tlx.freezing import check_depth, tune_stages
from tlx.tree import Rules


def rules(stages: Sequence[str], k: int) -> Rules:
  """The first k stages and the head are trained, those between are frozen."""
  check_depth(k, stages)
  return tune_stages(stages, [*stages[:-1][:k], stages[-1]])
