"""Tune chosen stages, wherever they are, and the head (surgical fine-tuning, Lee et al. 2023)."""

from collections.abc import Sequence

from tlx.freezing import Groups, tune_groups
from tlx.plug import closest
from tlx.tree import Rules


def rules(groups: Groups, stages: Sequence[str]) -> Rules:
  """The stages of these names and the head are trained, no others: not the norm before the head."""
  names = [name for group in groups for name in group]
  if isinstance(stages, str) or not stages:
    raise ValueError(f"surgical wants names of stages such as ('{names[0]}',), got {stages!r}.")
  for name in stages:
    if name not in names:
      raise ValueError(
        f'surgical: no stage {name!r}; have {", ".join(names)}.{closest(name, names)}'
      )
  return tune_groups(groups, [tuple(dict.fromkeys([*stages, names[-1]]))])
