"""How well the probability of each class ranks its examples before the others."""

import numpy as np

from tlx.evaluators import Finished, _scores

KEPT = 'logits'
COLUMNS = ('auroc',)


def evaluate(finished: Finished) -> dict[str, float]:
  """'auroc': the mean over classes of the area under the ROC curve of one against the rest.

  Of softmax probabilities, as scikit-learn's roc_auc_score with multi_class='ovr' and
  average='macro'. Classes without a test example, or with all of them, have no curve and are left
  out; NaN where none has one.
  """
  found = _scores.probabilities(finished.predict('test')['logits'])
  labels = finished.data('test').targets
  areas = [_scores.auroc(found[:, i], labels == i) for i in range(found.shape[-1])]
  known = [area for area in areas if not np.isnan(area)]
  return {'auroc': float(np.mean(known)) if known else float('nan')}
