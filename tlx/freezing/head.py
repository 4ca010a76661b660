"""Linear probe: the head alone is trained."""

from tlx.freezing import Groups, tune_groups
from tlx.tree import Rules


def rules(groups: Groups) -> Rules:
  """The last stage is trained, the others are frozen, a norm before it too."""
  return tune_groups(groups, [groups[-1][-1:]])
