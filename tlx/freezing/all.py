"""Full fine-tuning: nothing is frozen."""
from collections.abc import Sequence

from tlx.tree import Rules


def rules(stages: Sequence[str]) -> Rules:
  """One group: every parameter is trained."""
  del stages
  return (('.*', 'train'),)
