"""Test examples worth looking at: which the best method got wrong and was sure of, which one method
got wrong and another right.
"""

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from tlx.report import boxes, classes, numbers
from tlx.report.folder import Results, in_order, read_predictions, read_records
from tlx.report.tables import arrow, per_class

MOST_SURE, MOST_APART = 12, 6  # that a page shows of each kind
FEW, MANY_PAIRS = 3, 4  # of each kind, of pairs of source and target beyond so many


class Answers(NamedTuple):
  """What the chosen runs of a method at one size said of the test examples.

  answers [N]: the class with the largest mean probability over runs; sure [N]: that probability
  instead [N]: the class with the largest other than the label
  wrong [N]: how many of the `num_runs` runs were wrong
  """

  method: str
  answers: np.ndarray
  sure: np.ndarray
  instead: np.ndarray
  wrong: np.ndarray
  num_runs: int


class Judged(NamedTuple):
  """The method that is best on validation at the largest size, and another one beside it: the
  baseline, or of the baseline the next best; None where there is no other.

  sure: rows that the best got wrong, those of the highest probability first, and how many it got
  wrong
  gained, lost: rows that most runs of one side got right and most of the other wrong (the best
  right in `gained`), those that runs agree on most and then the surest errors first, and how many
  there are
  """

  shots: int
  ids: np.ndarray
  labels: np.ndarray
  best: Answers
  other: Answers | None
  sure: tuple[list[int], int]
  gained: tuple[list[int], int]
  lost: tuple[list[int], int]


def judged(results: Results, source: str, target: str) -> Judged | None:
  """What to look at of a pair; None where answers are not counted right or wrong, where no
  predictions are kept, and of folds, which test other examples each.

  Raises:
    ValueError: a predictions.npz cannot be read, or runs were tested on different examples.
  """
  runs = numbers.tested(results)
  runs = runs[(runs['source'] == source) & (runs['target'] == target)]
  if not len(runs) or not results.metrics[target].counted or runs['fold'].notna().any():
    return None
  largest = in_order(runs['shots'])[-1]
  ranked = numbers.by_validation(results, runs[runs['shots'] == largest])
  found = [(method, numbers.once(group)['id']) for method, group in ranked]
  first = _answers(results, *found[0])
  if first is None:
    return None
  others = [one for one in found[1:] if one[0] == results.baseline] or found[1:2]
  second = _answers(results, *others[0]) if others else None
  (ids, labels, best), other = first, second and second[2]
  if second is not None and not np.array_equal(ids, second[0]):
    raise ValueError(
      f'{best.method} and {second[2].method} were tested on different examples of {target}. Delete '
      'the run folders of one of them and run the study again.'
    )
  few = len(results.pairs) > MANY_PAIRS
  errors = np.flatnonzero(best.answers != labels)
  sure = _first(errors, best.sure, FEW if few else MOST_SURE)
  apart: list[tuple[list[int], int]] = [([], 0), ([], 0)]
  if other is not None:
    for i, (right, wrong) in enumerate(((best, other), (other, best))):
      shares = right.wrong / right.num_runs, wrong.wrong / wrong.num_runs
      rows = np.flatnonzero((shares[0] < 0.5) & (shares[1] > 0.5))
      agreed = shares[1] - shares[0] + 1e-3 * wrong.sure
      apart[i] = _first(rows, agreed, FEW if few else MOST_APART)
  return Judged(largest, ids, labels, best, other, sure, *apart)


def _answers(results: Results, method: str, names: Sequence[str]):
  """(ids, labels, Answers) of a method's runs; None where one kept no predictions of classes."""
  total, wrong = np.zeros(()), np.zeros((), int)
  ids = labels = np.zeros(0)
  for i, name in enumerate(names):
    kept = read_predictions(results.workdir, name)
    if kept is None or 'logits' not in kept or kept['logits'].ndim != 2:
      return None
    if i and not np.array_equal(ids, kept['ids']):
      raise ValueError(f'{name} was tested on other examples than the runs before it.')
    ids, labels, logits = kept['ids'], kept['labels'], kept['logits'].astype(np.float64)
    total = total + special.softmax(logits, axis=1)
    wrong = wrong + (logits.argmax(axis=1) != labels)
  mean = total / len(names)
  others = np.where(np.arange(mean.shape[1]) == labels[:, None], -1.0, mean)
  answers, sure = mean.argmax(axis=1), mean.max(axis=1)
  return ids, labels, Answers(method, answers, sure, others.argmax(axis=1), wrong, len(names))


def _first(rows: np.ndarray, sure: np.ndarray, most: int) -> tuple[list[int], int]:
  order = rows[np.argsort(-sure[rows], kind='stable')]
  return order[:most].tolist(), len(rows)


def wanted(results: Results) -> dict[tuple[str, str], list[str]]:
  """{(source, target): the ids of the test examples that the report shows}."""
  found = {}
  for pair in results.pairs:
    looked = judged(results, *pair)
    if looked:
      rows = dict.fromkeys([*looked.sure[0], *looked.gained[0], *looked.lost[0]])
      found[pair] = [str(looked.ids[row]) for row in rows]
    elif ids := boxes.wanted(results, *pair):
      found[pair] = ids
  return found


class Shown(NamedTuple):
  """A table of examples: a text or a picture each, and what is said of it."""

  caption: str
  note: str
  columns: tuple[str, ...]
  rows: list[tuple[Any, ...]]  # (the record or the id, ...)


def tables(results: Results) -> list[Shown]:
  """The examples of every pair, with their records where the study left them."""
  made = []
  for source, target in results.pairs:
    looked = judged(results, source, target)
    if looked:
      records = read_records(results.workdir, source, target)
      made += _of_pair(results, (source, target), looked, records)
  return made


def _of_pair(
  results: Results, pair: tuple[str, str], looked: Judged, records: Mapping[str, Any]
) -> list[Shown]:
  names = classes.class_names(results, *pair)
  place = f'{arrow(*pair)}, {per_class(results, looked.shots, target=pair[1])}'
  best, other = looked.best, looked.other

  def name(number: int) -> str:
    return names[number] if number < len(names) else str(number)

  def record(row: int) -> Any:
    name_of = str(looked.ids[row])
    return Record(name_of, records.get(name_of))

  made, lines = [], list[tuple[Any, ...]]()
  rows, count = looked.sure
  if rows:
    lines = [
      (
        record(row),
        name(looked.labels[row]),
        name(best.answers[row]),
        f'{100 * best.sure[row]:.0f}%',
        f'{best.wrong[row]} of {best.num_runs}',
      )
      for row in rows
    ]
    made.append(
      Shown(
        f'Surest errors of {best.method}, {place}',
        f'{len(rows)} of its {count:,} errors on {len(looked.ids):,} test examples, by the mean '
        'probability of the answer over runs. An error that every run is sure of may be a wrong '
        'label.',
        ('Example', 'Label', 'Taken for', 'Probability', 'Runs wrong'),
        lines,
      )
    )
  for (rows, count), right, wrong in (
    (looked.gained, best, other),
    (looked.lost, other, best),
  ):
    if rows and right and wrong:
      lines = [
        (
          record(row),
          name(looked.labels[row]),
          name(wrong.instead[row]),
          *(f'{one.wrong[row]} of {one.num_runs}' for one in (right, wrong)),
        )
        for row in rows
      ]
      made.append(
        Shown(
          f'Right by {right.method}, wrong by {wrong.method}, {place}',
          f'{len(rows)} of {count:,} test examples that most runs of {right.method} got right and '
          f'most of {wrong.method} wrong: those that runs agree on most.',
          (
            'Example',
            'Label',
            f'{wrong.method} says instead',
            f'Wrong runs of {right.method}',
            f'of {wrong.method}',
          ),
          lines,
        )
      )
  return made


class Record(NamedTuple):
  """A test example: its id, and a text, a pair of texts, {'png' or 'jpeg': base64}, or None where
  the study left nothing of it.
  """

  id: str
  content: Any


def picture(record: Record) -> str:
  """A data URI of a picture, '' of what is none.

  Raises:
    ValueError: it is not base64.
  """
  if not isinstance(record.content, Mapping):
    return ''
  for kind in ('png', 'jpeg'):
    if kind in record.content:
      data = str(record.content[kind])
      base64.b64decode(data, validate=True)
      return f'data:image/{kind};base64,{data}'
  return ''


def pictures(results: Results) -> list[Shown]:
  """Test images with objects and boxes, of every pair of which the study left images: a table of
  the worst and one of the best.
  """
  made = []
  for pair in results.pairs:
    looked = boxes.judged(results, *pair)
    if not looked:
      continue
    place = f'{arrow(*pair)}, {per_class(results, looked.shots, target=pair[1])}'
    note = (
      f'By F1 at an IoU of 0.5, of {len(looked.ids):,} test images; first seed. Left the objects, '
      'dashed where they were missed; right the boxes, with scores in %, dashed where they are '
      f'wrong. Boxes of a score of {100 * looked.score:.0f}% and more, where F1 over all test '
      'images is best.'
    )
    columns = ('Objects and boxes', 'Objects', 'Boxes', 'F1 in %')
    for rows, which in ((looked.worst, 'Worst'), (looked.best, 'Best')):
      if lines := _pictured(results, pair, looked, rows):
        made.append(Shown(f'{which} images of {looked.method}, {place}', note, columns, lines))
  return made


def _pictured(
  results: Results, pair: tuple[str, str], looked: boxes.Judged, rows: Sequence[int]
) -> list[tuple[Any, ...]]:
  """A line an image that the study left: its picture, its objects and boxes, F1."""
  records, names = read_records(results.workdir, *pair), classes.class_names(results, *pair)
  lines: list[tuple[Any, ...]] = []
  for row in rows:
    name = str(looked.ids[row])
    if isinstance(content := records.get(name), Mapping):
      counts = [
        int((of.images == looked.images[row]).sum())
        for of in (looked.boxes.objects, looked.boxes.found)
      ]
      picture = Record(name, boxes.drawn(looked, row, content, names))
      lines.append((picture, *counts, f'{100 * looked.f1[row]:.0f}'))
  return lines


def dialogues(results: Results) -> list[Shown]:
  """What methods answered to the same prompts, side by side, a table a prompt: at the largest size,
  of each method the first seed that was tested.
  """
  runs, made = numbers.tested(results), []
  for source, target in results.pairs:
    part = runs[(runs['source'] == source) & (runs['target'] == target)]
    largest = in_order(part['shots'])[-1] if len(part) else 0
    said: dict[str, dict[str, tuple[str, float]]] = {}
    asked: dict[str, tuple[str, str]] = {}
    for (_, _, method, _), group in numbers.groups(part[part['shots'] == largest], results):
      name = group.sort_values('seed', kind='stable')['id'].iloc[0]
      for one in (results.found[name]['test'] or {}).get('answers') or []:
        key, prompt, reference, text, score = one
        asked.setdefault(key, (prompt, reference))
        said.setdefault(key, {})[method] = text, math.nan if score is None else score
    for number, (key, (prompt, reference)) in enumerate(asked.items(), 1):
      lines: list[tuple[Any, ...]] = [('Reference', reference, '')]
      for method, (text, score) in said[key].items():
        lines.append((method, text or '(nothing)', f'{100 * score:.1f}'))
      made.append(
        Shown(
          f'Prompt {number} of {arrow(source, target)}, '
          f'{per_class(results, largest, target=target)} ({key})',
          prompt,
          ('Who', 'Answer', 'ROUGE-L'),
          lines,
        )
      )
  return made
