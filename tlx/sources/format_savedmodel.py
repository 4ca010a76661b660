"""TensorFlow SavedModel folders, through tensorflow (extra `tensorflow`): variables alone."""

from pathlib import Path

import numpy as np

from tlx.sources._budget import Budget
from tlx.sources._files import need

_VALUE = '/.ATTRIBUTES/VARIABLE_VALUE'


def matches(path: Path) -> bool:
  return path.is_dir() and (path / 'saved_model.pb').is_file()


def read(path: Path) -> tuple[dict[str, np.ndarray], dict]:
  """({name: array}, {}) of the variables, object paths of TF2 without their
  '/.ATTRIBUTES/VARIABLE_VALUE'.
  """
  tensorflow, budget = need('tensorflow', 'tensorflow'), Budget.of(path)
  reader = tensorflow.train.load_checkpoint(str(path / 'variables' / 'variables'))
  numbers = [
    name
    for name, dtype in sorted(reader.get_variable_to_dtype_map().items())
    if dtype.is_numpy_compatible and dtype != tensorflow.string
  ]
  types, shapes = reader.get_variable_to_dtype_map(), reader.get_variable_to_shape_map()
  for name in numbers:
    budget.step(name)
    budget.array(name, shapes[name], types[name].size)
  return {name.removesuffix(_VALUE): reader.get_tensor(name) for name in numbers}, {}
