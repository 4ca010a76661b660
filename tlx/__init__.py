"""tlx, the transfer-learning laboratory; `load_run` and `load_source` use what was trained."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # brings jax, which a config file does not need
  from tlx.study.use import Model


def load_run(workdir: str | os.PathLike, run: str = 'best') -> 'Model':
  """A finished run of a study, by default the one that validation prefers: tlx/study/use.py.

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
