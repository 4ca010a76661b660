"""What the columns of results are called, how they are written and which way is better.

The one place of the report that knows single columns. A column that is not here is shown under its
own name as a plain number, so a new task needs no line of it.
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from tlx.report.formats import number, percent


class Metric(NamedTuple):
  """A column of a result's `val` and `test`.

  direction: +1 where more is better, -1 where less is, 0 where neither.
  share: a fraction in [0, 1], written in percent.
  low: nothing lies below it.
  counted: of K classes it is a count of right answers over a count of examples, which K classes'
    guessing has 1/K of.
  """

  column: str
  words: str
  direction: int = 0
  share: bool = False
  low: float = -math.inf
  counted: bool = False

  @property
  def scale(self) -> float:
    """What its values are multiplied by to be shown."""
    return 100.0 if self.share else 1.0

  @property
  def high(self) -> float:
    """Nothing lies above it."""
    return 1.0 if self.share else math.inf

  @property
  def unit(self) -> str:
    """'%' or ''; right behind a number."""
    return '%' if self.share else ''

  @property
  def points(self) -> str:
    """What follows a difference: ' points' of percent, or ''."""
    return ' points' if self.share else ''

  @property
  def sided(self) -> str:
    """'accuracy in %'; 'squared error, less is better'."""
    less = ', less is better' if self.direction < 0 else ''
    return f'{self.words}{" in %" if self.share else ""}{less}'

  @property
  def scales(self) -> str:
    """A sentence on how it is written, and which way is better where that is not plain."""
    words = self.words[0].upper() + self.words[1:]
    if self.counted:
      return 'Accuracies are in percent of test examples.'
    unit = 'in percent' if self.share else 'a plain number'
    return f'{words} is {unit}{": less is better" if self.direction < 0 else ""}.'

  @property
  def axis(self) -> str:
    """'accuracy (%)', to put before numbers."""
    return f'{self.words} (%)' if self.share else self.words

  def written(self, value: float, signed: bool = False) -> str:
    """A value, or a difference of two, without its unit."""
    return percent(value, signed) if self.share else number(value, signed)

  def half(self, low: float, high: float) -> str:
    """' ± 1.2', half the width of an interval without its unit; '' where there is none."""
    if math.isnan(low):
      return ''
    width = (high - low) / 2
    return f' ± {percent(width) if self.share else number(width, digits=2)}'


def _shares(words: Mapping[str, str]) -> dict[str, Metric]:
  return {name: Metric(name, text, +1, True, 0.0) for name, text in words.items()}


ACCURACY = Metric('accuracy', 'accuracy', +1, True, 0.0, counted=True)
BALANCED = Metric('balanced_accuracy', 'balanced accuracy', +1, True, 0.0)
LOSS = Metric('loss', 'loss', -1, low=0.0)
_KNOWN = {
  metric.column: metric
  for metric in (
    ACCURACY,
    BALANCED,
    LOSS,
    Metric('mse', 'squared error', -1, low=0.0),
    Metric('mae', 'absolute error', -1, low=0.0),
    Metric('r2', 'R²', +1),
    Metric('pearson', 'Pearson correlation', +1),
    Metric('spearman', 'Spearman correlation', +1),
    Metric('ece', 'calibration error', -1, True, 0.0),
    Metric('ece_scaled', 'calibration error after temperature', -1, True, 0.0),
    Metric('nll', 'negative log-likelihood', -1, low=0.0),
    Metric('nll_scaled', 'negative log-likelihood after temperature', -1, low=0.0),
    Metric('temperature', 'temperature', 0, low=0.0),
    Metric('bits_per_byte', 'bits per byte', -1, low=0.0),
    Metric('bits_per_character', 'bits per character', -1, low=0.0),
    Metric('other_bits_per_byte', 'bits per byte of other text', -1, low=0.0),
    Metric('forgotten_bits_per_byte', 'bits per byte of other text forgotten', -1),
    Metric('chrf', 'chrF of answers (0 to 100)', +1, low=0.0),
    Metric('token_perplexity', 'perplexity of its own tokens', -1, low=1.0),
    Metric('ended', 'answers that ended by themselves', 0, True, 0.0),
    Metric('line_distance', 'L2 distance between seeds', 0, low=0.0),
    Metric('forgotten_accuracy', 'source accuracy forgotten', -1, True, -1.0),
  )
} | _shares(
  {
    'macro_f1': 'macro F1',
    'micro_f1': 'micro F1',
    'map': 'mean average precision',
    'f1': 'entity F1',
    'precision': 'precision',
    'recall': 'recall',
    'auroc': 'AUROC',
    'exact_match': 'exact match',
    'rouge_l': 'ROUGE-L of answers, of words of a–z and 0–9 only',
    'knn_accuracy': 'k-NN accuracy',
    'class_mean_accuracy': 'nearest-class-mean accuracy',
    'nearest': 'right nearest within a batch',
    'mrr': 'mean reciprocal rank',
    'back_mrr': 'mean reciprocal rank, back',
    'AP': 'AP (IoU 0.5 to 0.95)',
    'AP50': 'AP at IoU 0.5',
    'AP75': 'AP at IoU 0.75',
    'AP_small': 'AP of objects below 32² pixels',
    'AP_medium': 'AP of objects of 32² to 96² pixels',
    'AP_large': 'AP of objects from 96² pixels on',
    'AR_1': 'recall with 1 box an image',
    'AR_10': 'recall with 10 boxes an image',
    'AR_100': 'recall with 100 boxes an image',
    'AR_small': 'recall of objects below 32² pixels',
    'AR_medium': 'recall of objects of 32² to 96² pixels',
    'AR_large': 'recall of objects from 96² pixels on',
    'VOC_AP50': 'VOC AP at IoU 0.5',
  }
)
_SPELT = {
  'cka': 'CKA',
  'l2': 'L2 distance',
  'auroc': 'AUROC',
  'ood': 'foreign set',
  'jpeg': 'JPEG',
  'mrr': 'MRR',
  'ndcg': 'NDCG',
}
_ENDINGS = (
  '_accuracy',
  '_auroc',
)  # of columns whose names hold an option, such as 'top_5_accuracy'
_AT = re.compile(r'(back_)?(recall|precision|mrr|ndcg)_at_\d+')  # of retrieval, in [0, 1]
_COUNTS = (
  'count',
  'correct',
  'loss',
  'tokens',
  'bytes',
  'entities',
  'queries',
  'prompts',
  'class_loss',
  'box_loss',
  'centre_loss',
)  # no scores

# What earlier versions wrote: columns of classification, and no word on what was selected by.
SELECT = (ACCURACY.column, ACCURACY.direction)
_ALWAYS = (ACCURACY.column, 'loss', 'count', 'correct')
ALWAYS = (
  *(f'val_{name}' for name in _ALWAYS),
  *(f'test_{name}' for name in (*_ALWAYS, BALANCED.column)),
)


def of(column: str, direction: int = 0) -> Metric:
  """The metric of a column; `direction` as the result says it, where it does.

  >>> of('top_5_accuracy').written(0.912), of('words_a_minute', -1).written(81.25)
  ('91.2', '81.2')
  >>> of('recall_at_10').sided, of('nearest', 1).sided
  ('recall at 10 in %', 'right nearest within a batch in %')
  >>> of('accuracy_barrier').sided
  'accuracy barrier between seeds in %, less is better'
  """
  found = _KNOWN.get(column)
  if found is None and column.endswith('_barrier'):
    of_what = of(column.removesuffix('_barrier'))
    found = Metric(column, f'{of_what.words} barrier between seeds', -1, of_what.share, 0.0)
  if found is None:
    words = ' '.join(_SPELT.get(part, part) for part in column.split('_'))
    share = column.endswith(_ENDINGS) or bool(_AT.fullmatch(column))
    found = Metric(column, words, int(share), share, 0.0 if share else -math.inf)
  return found._replace(direction=direction or found.direction)


def selected(result: Mapping[str, Any]) -> tuple[str, int]:
  """(the column that a result was chosen by, +1 or -1)."""
  column, direction = result.get('select') or SELECT
  return str(column), int(direction)


def name(metrics: Iterable[Metric]) -> str:
  """The column of several metrics that are one, else 'scores'."""
  found = one(metrics)
  return found.column if found else 'scores'


def one(metrics: Iterable[Metric]) -> Metric | None:
  """The metric of several, None where they differ."""
  different = set(metrics)
  return different.pop() if len(different) == 1 else None


def others(columns: Iterable[str], main: Metric) -> list[Metric]:
  """The metrics of the columns of a test, without the main one and what it is counted from."""
  shown = [name for name in columns if name not in (main.column, BALANCED.column, *_COUNTS)]
  return [of(name) for name in shown]


def repaired(scores: Mapping[str, Any]) -> dict[str, Any]:
  """The columns of a split, those of classification made exact.

  Earlier versions wrote accuracies as float32 quotients and no counts of correct answers: equal
  counts must be equal, so they are found again, and the accuracy is theirs. An accuracy that is no
  share of `count` keeps its value.
  """
  accuracy, count, correct = (scores.get(name) for name in (ACCURACY.column, 'count', 'correct'))
  if accuracy is None or not count:
    return dict(scores)
  if correct is None and math.isfinite(accuracy):
    near = round(accuracy * count)
    correct = near if abs(accuracy - near / count) < 1e-6 else None
  exact = {ACCURACY.column: correct / count} if correct is not None else {}
  return {**scores, 'correct': correct, **exact}
