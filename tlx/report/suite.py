"""Several studies' claims on one page: what each says, what came out at first, and what on seeds
that were kept for confirming.
"""

import pathlib

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
    kept = [table for table in found if table.name == 'claims-confirmed']
    own = [table for table in found if table.name == 'claims']
    for i, first in enumerate(own[0].shown.to_dict('records') if own else ()):
      row = kept[0].shown.to_dict('records')[i] if kept else first
      at_first = f'{first["Verdict"]}, {first["Found"]}'
      wanted = {name: row[name] for name in COLUMNS if name in row}
      rows.append({'Finding': study.name, **wanted, 'At first': at_first})
      numbers = (kept or own)[0].numbers.iloc[[i]]
      frames.append(numbers.assign(finding=study.name, confirmed=bool(kept)))
  if not rows:
    raise ValueError(f'No study with claims in {folder}. Wanted {folder}/*/study.json.')
  shown = pd.DataFrame(rows)[list(COLUMNS)]
  return Table('findings', 'Published findings, run again', shown, pd.concat(frames), NOTE)


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
