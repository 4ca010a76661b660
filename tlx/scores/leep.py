"""LEEP: log expected empirical prediction (Nguyen et al. 2020)."""

from tlx.scores import checked, log_leep

NEEDS = ('probs',)


def score(labels, probs) -> float:
  """The mean log likelihood of the labels under sum_z p(y | z) p(z | x), equations 1 and 2.

  At most 0, which a source reaches that tells each label; -log C where it tells nothing.
  """
  return log_leep(*checked(labels, probs))
