"""Freezing by ordered rules of the user's own, as in big_vision."""
from collections.abc import Sequence

from tlx.tree import Rules


def rules(stages: Sequence[str], rules: Rules) -> Rules:  # the option's name in a config
  """The user's (regex, group) pairs; the first that matches a parameter's name wins."""
  del stages
  for rule in rules:
    if not isinstance(rule, (tuple, list)) or len(rule) != 2 or not all(isinstance(part, str) for part in rule):
      raise ValueError(f"A freeze rule is a pair (regex, group) such as ('^head/', 'train'), got {rule!r}.")
  return tuple((pattern, group) for pattern, group in rules)
