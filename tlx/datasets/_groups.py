"""Groups: examples that belong together (frames of a subject, photographs of a plant), of which no
two parts may have one.
"""

import re
from collections.abc import Sequence

from tlx.datasets._types import listing


def check(group: str, names: Sequence[str] = ()) -> None:
  """Raises ValueError where `group` is neither '' nor one of `names` (of columns or features) nor a
  pattern with one capture group.
  """
  if not group or group in names:
    return
  if '(' not in group:
    raise ValueError(
      f'group {group!r} is none of {listing(names, 20) or "(this data set names none)"}, nor a '
      'regular expression '
      r"with one capture group over an example's id, such as 'subject_(\d+)'."
    )
  try:
    num_groups = re.compile(group).groups
  except re.error as error:
    raise ValueError(f'group {group!r} is no regular expression: {error}.') from None
  if num_groups != 1:
    raise ValueError(
      f'group {group!r} has {num_groups} capture groups, wanted one: what is in the parentheses '
      'names the group. Write (?:...) for the others.'
    )


def matched(pattern: str, ids: Sequence[str]) -> tuple[str, ...]:
  """What the capture group of `pattern` finds in each id.

  Raises:
    ValueError: an id that it does not find, or finds empty.
  """
  compiled = re.compile(pattern)
  found = []
  for name in ids:
    match = compiled.search(name)
    found.append((match[1] or '') if match else '')
  if missing := [name for name, group in zip(ids, found) if not group]:
    raise ValueError(
      f'group {pattern!r} finds nothing in {len(missing):,} of {len(ids):,} ids: '
      f'{listing(missing)}. Change it so that every example has a group.'
    )
  return tuple(found)
