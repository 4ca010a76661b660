"""Tune the first k stages and the head (surgical fine-tuning for input shift, Lee et al. 2023)."""

from tlx.freezing import Groups, check_depth, tune_groups
from tlx.tree import Rules


def rules(groups: Groups, k: int) -> Rules:
  """The first k groups of stages and the last, which holds the head, are trained, no others."""
  check_depth(k, groups)
  return tune_groups(groups, [*groups[:k], groups[-1]])
