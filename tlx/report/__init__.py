"""Reading a study's folder and writing what it found. Imports no jax: opens fast, on any laptop."""

import io
import sys
from typing import Any

from tlx.report.folder import read, read_metrics

__all__ = ['read', 'read_metrics', 'speak_utf8', 'summary', 'write', 'written']


def speak_utf8() -> None:
  """Lets the terminal have the arrows and minus signs of `summary` whatever the locale."""
  for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):
      stream.reconfigure(encoding='utf-8', errors='backslashreplace')


def write(workdir, test_sampling: bool = False):
  """The path of report.html, having written it, tables/ and figures/ into the study's folder.

  Args:
    test_sampling: also gives intervals that take the test examples as drawn, from the predictions
    of every chosen run.

  Raises:
    ValueError: the folder cannot be read; see `read`.
  """
  # here: matplotlib and scipy take two seconds that `read` does not need
  from tlx.report import page

  return page.write(workdir, test_sampling)


def summary(workdir, test_sampling: bool = False) -> str:
  """What was found and every table, as plain text for a terminal; `test_sampling` as for `write`.

  Raises:
    ValueError: the folder cannot be read; see `read`.
  """
  from tlx.report import folder, tables

  results = folder.load(workdir)
  return _in_words(results, tables.make(results, test_sampling))


def written(workdir, test_sampling: bool = False) -> tuple[str, Any]:
  """(what `summary` says, the path that `write` gives), everything read and computed once.

  Raises:
    ValueError: the folder cannot be read; see `read`.
  """
  from tlx.report import folder, page, tables

  results = folder.load(workdir)
  made = tables.make(results, test_sampling)
  return _in_words(results, made), page.save_all(results, made)


def _in_words(results: Any, made: list) -> str:
  from tlx.report import cautions, findings, formats

  found = ['\n  - '.join([place, *lines]) for place, lines in findings.sentences(results).items()]
  if notes := cautions.notes(results):
    found.append('\n  - '.join(['Data, weights and versions', *notes]))
  verdicts = [table for table in made if table.name.startswith('claims')]
  return '\n\n'.join(
    [
      f'{results.name}: {findings.progress(results)}',
      *map(formats.text, verdicts),
      *found,
      *(formats.text(table) for table in made if table not in verdicts),
    ]
  )
