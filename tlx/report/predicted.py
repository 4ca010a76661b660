"""What a run says of new examples, as a page: one file that opens anywhere."""

import html
from collections.abc import Mapping
from typing import Any

import pandas as pd

from tlx.report import gallery
from tlx.report.examples import Record, Shown
from tlx.report.formats import percent
from tlx.report.page import document, section

MOST = 200  # examples of a page; a table holds all


def rows_shown(found: pd.DataFrame) -> list[int]:
  """The rows of the examples that a page shows: of those with probabilities the least sure first,
  else as they come.
  """
  read = found[found.error == '']
  if 'probability' in read:
    read = read.sort_values('probability', kind='stable')
  return read.index[:MOST].tolist()


def page(about: str, inputs: str, found: pd.DataFrame, contents: Mapping[int, Any]) -> str:
  """The page as a string of HTML.

  Args:
    about: which run it is.
    found: a row an example, as `use.predict` gives them.
    contents: of the rows of `rows_shown`, as `study.shown.content` makes them.
  """
  unread = found[found.error != '']
  body = [
    f'<header><h1>{html.escape(inputs)}</h1><p class="progress">{html.escape(about)}</p></header>\n'
  ]
  if 'class' in found:
    body.append(section('Classes', gallery.table(_classes(found[found.error == '']))))
  body.append(section('Examples', gallery.table(_examples(found, contents))))
  if len(unread):
    lines = [(row['id'], row['error']) for row in unread.head(MOST).to_dict('records')]
    caption = f'{len(unread):,} could not be read'
    shown = Shown(caption, '', ('example', 'why'), lines)
    body.append(section('Not read', gallery.table(shown)))
  return document(f'Predictions of {inputs}', ''.join(body))


def _classes(read: pd.DataFrame) -> Shown:
  rows = []
  for name, of_class in read.groupby('class')['probability']:
    shares = percent(float(of_class.mean())), percent(float(of_class.min()))
    rows.append((name, f'{len(of_class):,}', *shares))
  columns = ('class', 'examples', 'mean probability in %', 'least')
  return Shown(f'{len(read):,} examples were labelled', '', columns, rows)


def _examples(found: pd.DataFrame, contents: Mapping[int, Any]) -> Shown:
  """The examples with what is said of them; the second class is the next probable."""
  shares = [name for name in found if name.startswith('p(')]
  answers = [name for name in found if name not in ('id', 'error', *shares)]
  columns = ['example', 'name', *answers]
  if 'class' in found and len(shares) > 1:
    columns.append('second')
  rows = []
  for row in rows_shown(found):
    said = found.loc[row]
    cells = [_said(said[name]) for name in answers]
    if 'second' in columns:
      second = said[shares].astype(float).nlargest(2).index[1]
      cells.append(f'{second[2:-1]} {_said(said[second])}')
    rows.append((Record(said['id'], contents.get(row)), said['id'], *cells))
  more = int((found.error == '').sum()) - len(rows)
  sure = 'the least sure first' if 'probability' in found else 'as they come'
  note = f'{more:,} more are not on this page; --out=FILE.csv has all.' if more else ''
  return Shown(f'{len(rows):,} examples, {sure}', note, tuple(columns), rows)


def _said(value: Any) -> str:
  return f'{value:.3f}' if isinstance(value, float) else str(value)
