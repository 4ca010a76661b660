"""tlx, the transfer-learning laboratory; `load_run`, `load_source` and `predict` use what was
trained.
"""

import os
from collections.abc import Mapping, Sequence
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
  model: 'Model', inputs: str | os.PathLike, least: float = 0.5
) -> dict[str, Sequence[Any]]:
  """{'id': ..., what the model answers, a value an example, 'error': '' or why there is none}, for
  a folder of images or a file of texts: pandas.DataFrame(predict(model, 'NEW')).

  Of a detector a value a box of a score of `least` or more: its class, score and x0, y0, x1, y1 in
  pixels of the photograph.

  Raises:
    ValueError: nothing there, bare weights, or examples of another kind than the network takes.
  """
  from tlx import datasets
  from tlx.study import boxes, use

  new = datasets.unlabelled(inputs)
  if boxes.finds(model):
    return boxes.rows(boxes.find(model, new, least), new.ids)
  return use.predict(model, new)
