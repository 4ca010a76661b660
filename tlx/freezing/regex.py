"""Freezing by ordered rules of the user's own, as in big_vision."""

import re

from tlx.freezing import Groups
from tlx.tree import Rules


def rules(groups: Groups, rules: Rules) -> Rules:  # the option's name in a config
  """The user's (regex, group) pairs; the first that matches a parameter's name wins."""
  del groups
  if not isinstance(rules, (tuple, list)):
    raise ValueError(
      "Freeze rules are pairs (regex, group) such as (('^head/', 'train'), ('.*', 'frozen')), got "
      f'{rules!r}.'
    )
  for rule in rules:
    is_pair = isinstance(rule, (tuple, list)) and len(rule) == 2
    if not is_pair or not all(isinstance(part, str) for part in rule):
      raise ValueError(
        f"A freeze rule is a pair (regex, group) such as ('^head/', 'train'), got {rule!r}."
      )
    try:
      re.compile(rule[0])
    except re.error as error:
      raise ValueError(
        f'{rule[0]!r} in the freeze rule {tuple(rule)} is no regular expression: {error}.'
      ) from None
  return tuple((pattern, group) for pattern, group in rules)
