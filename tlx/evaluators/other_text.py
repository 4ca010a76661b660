"""What a language model that was adapted to one text still makes of another."""

from tlx import datasets
from tlx.evaluators import Finished
from tlx.types import Task

KEPT = ''
COLUMNS = ('other_bits_per_byte', 'forgotten_bits_per_byte')


def check(task: Task, dataset: str, rows: int = 64) -> None:
  """Raises ValueError where it is no language model, or no running text."""
  if task.select[0] != 'bits_per_byte':
    raise ValueError("Evaluator 'other_text' is for language models: tasks language and dialogue.")
  if (kind := datasets.kind(dataset)) != 'document':
    raise ValueError(
      f"Evaluator 'other_text' reads running text such as text:PATH, and {dataset} holds examples "
      f'of kind {kind}.'
    )
  if rows < 1:
    raise ValueError(f"Evaluator 'other_text' wants at least one of rows, got {rows}.")


def evaluate(finished: Finished, dataset: str, rows: int = 64) -> dict[str, float]:
  """Of the first `rows` rows of the test part of `dataset`, such as text:PATH.

  'other_bits_per_byte': of the run, with the tokens and the length of row that it has
  'forgotten_bits_per_byte': how much more that is than of what the run started from; below 0 a
    gain. Not there where the run started at random
  """
  of_run, of_source = finished.on_text(dataset, rows)
  columns = {'other_bits_per_byte': of_run['bits_per_byte']}
  if of_source:
    columns['forgotten_bits_per_byte'] = of_run['bits_per_byte'] - of_source['bits_per_byte']
  return columns
