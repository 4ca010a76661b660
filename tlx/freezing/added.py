"""Tune what was added to the network (tlx/peft) and the head; what the source brought is frozen."""

from tlx.freezing import Groups
from tlx.tree import ADDED, Rules


def rules(groups: Groups) -> Rules:
  """The added leaves of every stage and the whole head are trained, the rest is frozen."""
  return (f'^{groups[-1][-1]}/', 'train'), (f'^[^/]+/{ADDED}/', 'train'), ('.*', 'frozen')
