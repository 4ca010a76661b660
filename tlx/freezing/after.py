"""Freeze the first k stages and tune those after them (Yosinski et al. 2014)."""

from tlx.freezing import Groups, check_depth, tune_groups
from tlx.tree import Rules


def rules(groups: Groups, k: int) -> Rules:
  """The first k groups of stages are frozen, the others are trained; k=0 is full fine-tuning."""
  check_depth(k, groups)
  return tune_groups(groups, groups[k:])
