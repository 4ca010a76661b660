"""Several studies' claims on one page: what each says, what came out at first, and what on seeds
that were kept for confirming.
"""

import pathlib
from collections.abc import Mapping, Sequence

import pandas as pd

from tlx.report import claims, formats, page
from tlx.report.folder import load
from tlx.report.formats import Table

COLUMNS = ('Claim', 'Finding', 'Verdict', 'Found', '95% interval', 'Claimed', 'Over', 'At first')
NOTE = (
  'Verdict, Found, interval and Over are of the seeds and source networks that were kept until the '
  'claims stood, where they have been opened; At first are verdict and estimate on those that the '
  'study was written with. What holds, fails and is undecided: see the report of each study.'
)


def table(folder: pathlib.Path) -> Table:
  """A row a claim of every study in a folder, in the order of their names.

  Raises:
    ValueError: there is none with a claim, or one cannot be read.
  """
  rows, frames = [], []
  for study in sorted(path.parent for path in folder.glob('*/study.json')):
    found = claims.tables(load(study))
    kept = {_stated(row): (row, numbers) for row, numbers in _rows(found, 'claims-confirmed')}
    for first, of_first in _rows(found, 'claims'):
      row, numbers = kept.get(_stated(first), (first, of_first))
      wanted = {name: row[name] for name in COLUMNS if name in row}
      at_first = f'{first["Verdict"]}, {first["Found"]}'
      rows.append({'Finding': study.name, **wanted, 'At first': at_first})
      frames.append(numbers.assign(finding=study.name, confirmed=_stated(first) in kept))
  if not rows:
    raise ValueError(f'No study with claims in {folder}. Wanted {folder}/*/study.json.')
  shown = pd.DataFrame(rows)[list(COLUMNS)]
  return Table('findings', 'Published findings, run again', shown, pd.concat(frames), NOTE)


def _stated(row: Mapping[str, str]) -> tuple[str, ...]:
  """What a claim is known by: its name alone may be that of another, or its threshold newer."""
  return tuple(row[name] for name in ('Claim', 'Of', 'Claimed'))


def _rows(tables: Sequence[Table], name: str) -> list[tuple[dict[str, str], pd.DataFrame]]:
  """(what is shown of each claim, its numbers) of the table of this name, if there is one."""
  found = []
  for table in tables:
    if table.name == name:
      for i, row in enumerate(table.shown.to_dict('records')):
        found.append((row, table.numbers.iloc[[i]]))
  return found


def write(folder: pathlib.Path) -> pathlib.Path:
  """The path of findings.html, written beside findings.md and findings.csv; as `table`, which
  raises.
  """
  made = table(folder)
  (folder / 'findings.md').write_text(formats.markdown(made), encoding='utf-8')
  made.numbers.to_csv(folder / 'findings.csv', index=False)
  path = folder / 'findings.html'
  path.write_text(page.document(made.title, formats.as_html(made)), encoding='utf-8')
  return path
