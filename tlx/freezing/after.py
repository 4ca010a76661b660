"""Freeze the first k stages and tune those after them (Yosinski et al. 2014)."""
from collections.abc import Sequence

from tlx.freezing import check_depth, tune_stages
from tlx.tree import Rules


def rules(stages: Sequence[str], k: int) -> Rules:
  """The first k stages are frozen, the others are trained; k=0 is full fine-tuning."""
  check_depth(k, stages)
  return tune_stages(stages, stages[k:])
