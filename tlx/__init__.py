"""tlx, the transfer-learning laboratory; `load_run`, `load_source` and `predict` use what was
trained.
"""

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # brings jax, which a config file does not need
  from tlx.study.use import Model


def load_run(workdir: str | os.PathLike, run: str = 'best') -> 'Model':
  """A finished run of a study, by default the one that validation prefers, or what the folder of an
  artefact holds: tlx/study/use.py.

  Raises:
    ValueError: no such run, a damaged one, or runs that cannot be compared.
  """
  from tlx.study import use

  return use.load_run(workdir, run)


def load_source(
  backbone: str | Mapping[str, Any],
  weights: str,
  fields: Mapping[str, Any] | None = None,
  form: str = '',
) -> 'Model':
  """Bare weights: tlx/study/use.py.

  Raises:
    ValueError: an unknown backbone, or weights that cannot be had or do not fit it.
  """
  from tlx.study import use

  return use.load_source(backbone, weights, fields, form)


def predict(
  model: 'Model',
  inputs: str | os.PathLike | Iterable[str],
  least: float = 0.5,
  text: str | Sequence[str] = (),
) -> dict[str, Sequence[Any]]:
  """{'id': ..., what the model answers, a value an example, 'error': '' or why there is none}, for
  a folder of images, a file of texts, or texts: pandas.DataFrame(predict(model, 'NEW')). What is
  guessed of a file is a warning.

  Of a detector a value a box of a score of `least` or more: its class, score and x0, y0, x1, y1 in
  pixels of the photograph.

  Args:
    text: the columns of a table that the text is made of.

  Raises:
    ValueError: nothing there, no such column, bare weights, or examples of another kind than the
      network takes.
  """
  from tlx import datasets
  from tlx.study import boxes, spreadsheet, use

  if isinstance(inputs, (str, os.PathLike)):
    new = spreadsheet.unlabelled(inputs, [text] if isinstance(text, str) else text)
  else:
    new = datasets.of_texts(inputs)
  for note in new.notes:
    warnings.warn(note, stacklevel=2)
  if boxes.finds(model):
    return boxes.rows(boxes.find(model, new, least), new.ids)
  return use.predict(model, new)
