"""Reading a study's folder and writing what it found. Imports no jax: opens on any laptop, and fast."""
from tlx.report.folder import read

__all__ = ['read', 'summary', 'write']


def write(workdir):
  """The path of report.html, having written it and the files in tables/ and figures/ into the folder of the study.

  Raises:
    ValueError: the folder cannot be read; see `read`.
  """
  from tlx.report import page  # here: matplotlib and scipy take two seconds that `read` does not need
  return page.write(workdir)


def summary(workdir) -> str:
  """What was found and every table, as plain text for a terminal.

  Raises:
    ValueError: the folder cannot be read; see `read`.
  """
  from tlx.report import findings, folder, formats, tables
  results = folder.load(workdir)
  found = ['\n  - '.join([place, *lines]) for place, lines in findings.sentences(results).items()]
  return '\n\n'.join([f'{results.name}: {findings.progress(results)}', *found, *map(formats.text, tables.make(results))])
