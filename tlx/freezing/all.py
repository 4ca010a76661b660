"""Full fine-tuning: nothing is frozen."""

from tlx.freezing import Groups
from tlx.tree import Rules


def rules(groups: Groups) -> Rules:
  """One group: every parameter is trained."""
  del groups
  return (('.*', 'train'),)
