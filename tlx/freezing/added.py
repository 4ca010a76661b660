"""Tune what was added to the network (tlx/peft) and the head; what the source brought is frozen."""

from tlx.freezing import Groups
from tlx.tree import ADDED, FIXED, Rules


def rules(groups: Groups) -> Rules:
  """The added leaves of every stage and the whole head are trained, the rest is frozen.

  So are added leaves that a method keeps as they start, such as the projections of VeRA.
  """
  added = f'^[^/]+/{ADDED}/(?!(.*/)?{FIXED}/)'
  return (f'^{groups[-1][-1]}/', 'train'), (added, 'train'), ('.*', 'frozen')
