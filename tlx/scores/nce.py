"""Negative conditional entropy of the target's labels given the source's (Tran et al. 2019)."""

import numpy as np

from tlx.scores import checked

NEEDS = ('probs',)


def score(labels, probs) -> float:
  """-H(Y | Z) = sum_yz p(y, z) log p(y | z) in nats, with z the source's most probable class.

  In [-log C, 0]; 0 where z tells y. Official PARC code adds 1e-5 to the joint, which is left out.
  """
  labels, probs = checked(labels, probs)
  joint = np.zeros((labels.max() + 1, probs.shape[1]))
  np.add.at(joint, (labels, probs.argmax(1)), 1 / len(labels))
  given = joint / np.maximum(joint.sum(0), 1e-300)
  return float((joint[joint > 0] * np.log(given[joint > 0])).sum())
