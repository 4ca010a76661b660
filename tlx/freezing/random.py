"""Tune k stages drawn at random and the head: the control for a choice of stages."""

import numpy as np

from tlx.freezing import Groups, check_depth, tune_groups
from tlx.tree import Rules


def rules(groups: Groups, k: int, seed: int = 0) -> Rules:
  """k of the groups of stages before the last, each as likely, and the last are trained.

  The draw is numpy's default generator's of that seed: the same for every run of a cohort.
  """
  check_depth(k, groups)
  if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
    raise ValueError(f'random wants a seed that is a whole number from 0 on, got seed={seed!r}.')
  drawn = np.random.default_rng(seed).permutation(len(groups) - 1)[:k]
  return tune_groups(groups, [*(groups[i] for i in sorted(drawn)), groups[-1]])
