"""Freeze the first k stages and tune those after them (Yosinski et al. 2014)."""

from tlx.freezing import NORM, Groups, check_depth, tune_groups
from tlx.tree import Rules


def rules(groups: Groups, k: int, norms: str = 'train') -> Rules:
  """The first k groups of stages are frozen, the others are trained; k=0 is full fine-tuning.

  Args:
    norms: 'frozen' leaves norms as the source has them in trained groups too, with the statistics
      that they hold, which short training on small batches spoils.
  """
  check_depth(k, groups)
  if norms not in ('train', 'frozen'):
    raise ValueError(f"norms is 'train' or 'frozen', got {norms!r}.")
  kept = ((NORM, 'frozen'),) if norms == 'frozen' else ()
  return (*kept, *tune_groups(groups, groups[k:]))
