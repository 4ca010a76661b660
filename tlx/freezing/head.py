"""Linear probe: the head alone is trained."""
from collections.abc import Sequence

from tlx.freezing import tune_stages
from tlx.tree import Rules


def rules(stages: Sequence[str]) -> Rules:
  """The last stage is trained, the others are frozen."""
  return tune_stages(stages, stages[-1:])
