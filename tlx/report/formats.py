"""One table in five dresses: Markdown, LaTeX, CSV, plain text and HTML."""

import html
import math
import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

SENTENCE = 24  # letters from which a column is set like text


class Table(NamedTuple):
  """`shown` holds strings for people (first column: row names), `numbers` the same and more for
  programs (tidy, unrounded).
  """

  name: str  # of its files
  title: str
  shown: pd.DataFrame
  numbers: pd.DataFrame
  note: str = ''


def percent(value: float, signed: bool = False) -> str:
  """'91.2' for 0.912, with a true minus sign; '–' for NaN.

  >>> percent(-0.0312, signed=True), percent(-0.0001), percent(float('nan'))
  ('−3.1', '0.0', '–')
  """
  if math.isnan(value):
    return '–'
  text = f'{round(100 * value, 1) + 0.0:{"+" if signed else ""}.1f}'
  return text.replace('+0.0', '0.0').replace('-', '−')


def number(value: float, signed: bool = False, digits: int = 3) -> str:
  """'0.0313' for 0.03126: so many digits, or all before the point, a true minus sign; '–' for NaN.

  >>> number(-0.03126, signed=True), number(1234.2), number(0.0), number(2.5, signed=True)
  ('−0.0313', '1234', '0', '+2.5')
  """
  if math.isnan(value):
    return '–'
  rounded = float(f'{value:.{digits}g}' if abs(value) < 10 ** (digits - 1) else f'{value:.0f}')
  text = f'{rounded + 0.0:{"+" if signed and rounded else ""}.12g}'
  return text.replace('-', '−')


def quantity(value: float) -> str:
  """Three digits and a power of a thousand: '12.3k'; '–' for NaN, '∞' for infinity.

  >>> quantity(12345), quantity(0.0421), quantity(7), quantity(1.2e9)
  ('12.3k', '0.042', '7', '1.2G')
  """
  if math.isnan(value):
    return '–'
  if math.isinf(value):
    return '∞'
  for size, letter in ((1e15, 'P'), (1e12, 'T'), (1e9, 'G'), (1e6, 'M'), (1e3, 'k')):
    if abs(value) >= 0.9995 * size:
      return (
        f'{value / size:.3g}{letter}' if value < 999.5 * size else f'{value / size:.0f}{letter}'
      )
  return f'{value:.3g}' if abs(value) >= 1 else f'{value:.2g}'


def probability(value: float) -> str:
  """A p-value to two digits, '<0.001' below that; '–' where there was no test."""
  return '–' if math.isnan(value) else '<0.001' if value < 0.001 else f'{value:.2g}'


def markdown(table: Table) -> str:
  """The shown table as Markdown, its first column to the left and the rest to the right."""
  head, *body = [list(map(_markdown_cell, row)) for row in _rows(table)]
  rule = [':--'] + ['--:'] * (len(head) - 1)
  lines = [f'**{_one_line(table.title)}**', '']
  lines += ['| ' + ' | '.join(row) + ' |' for row in (head, rule, *body)]
  if table.note:
    lines += ['', table.note]
  return '\n'.join(lines) + '\n'


def _markdown_cell(cell: str) -> str:
  return _one_line(cell).replace('\\', '\\\\').replace('|', '\\|').replace('<', '&lt;')


def text(table: Table) -> str:
  """The shown table in aligned columns for a terminal."""
  rows = [list(map(_one_line, row)) for row in _rows(table)]
  widths = [max(map(_width, column)) for column in zip(*rows)]
  rows.insert(1, ['-' * width for width in widths])
  lines = [_one_line(table.title)]
  for first, *others in rows:
    cells = [_pad(first, widths[0], left=True)]
    cells += [_pad(cell, width, left=False) for cell, width in zip(others, widths[1:])]
    lines.append('  '.join(cells).rstrip())
  return '\n'.join([*lines, table.note] if table.note else lines)


_LATEX = {
  '\\': r'\textbackslash{}',
  '&': r'\&',
  '%': r'\%',
  '$': r'\$',
  '#': r'\#',
  '_': r'\_',
  '{': r'\{',
  '}': r'\}',
  '~': r'\textasciitilde{}',
  '^': r'\textasciicircum{}',
  '±': r'$\pm$',
  '−': '$-$',
  '≥': r'$\ge$',
  '≤': r'$\le$',
  '→': r'$\to$',
  '×': r'$\times$',
  '∞': r'$\infty$',
  '–': '--',
  '<': r'\textless{}',
  '>': r'\textgreater{}',
}


def latex_escape(value: str) -> str:
  """The text with everything LaTeX would act on written out.

  >>> latex_escape('lp_ft ± 5%')
  'lp\\\\_ft $\\\\pm$ 5\\\\%'
  """
  return ''.join(_LATEX.get(letter, letter) for letter in _one_line(value))


def latex(table: Table) -> str:
  r"""The shown table as a LaTeX table with booktabs rules; wants \usepackage{booktabs}."""
  rows = [' & '.join(map(latex_escape, row)) + r' \\' for row in _rows(table)]
  note = [r'\par\smallskip\footnotesize ' + latex_escape(table.note)] if table.note else []
  columns = 'l' + 'r' * (table.shown.shape[1] - 1)
  return (
    '\n'.join(
      [
        r'\begin{table}',
        r'\centering',
        rf'\caption{{{latex_escape(table.title)}}}',
        rf'\label{{tab:{table.name}}}',
        rf'\begin{{tabular}}{{{columns}}}',
        r'\toprule',
        rows[0],
        r'\midrule',
        *rows[1:],
        r'\bottomrule',
        r'\end{tabular}',
        *note,
        r'\end{table}',
      ]
    )
    + '\n'
  )


def as_html(table: Table, kind: str = '') -> str:
  """The shown table as HTML, everything escaped; on narrow screens the rows of a table of many
  columns become paragraphs, and of a `kind` 'stack' on telephones. What screen readers are told of
  a table is said in roles where its looks are no table's.
  """
  kind = ' many' if len(_rows(table)[0]) > 5 else f' {kind}' if kind else ''
  role = _roles if kind else _no_roles
  rows = ''
  columns = list(map(str, table.shown.columns))
  long = [table.shown[column].astype(str).map(len).max() > SENTENCE for column in columns]
  looks = [' class="long"' if is_long else '' for is_long in long]
  head, *body = [list(map(_escape, row)) for row in _rows(table)]
  top = ''.join(
    f'<th scope="col"{look}{role("columnheader")}>{cell}</th>' for look, cell in zip(looks, head)
  )
  for name, *cells in body:
    found = ''.join(
      f'<td{look}{role("cell")} data-column="{column}">{cell}</td>'
      for look, column, cell in zip(looks[1:], head[1:], cells)
    )
    row_head = f'<th scope="row"{role("rowheader")} data-column="{head[0]}">{name}</th>'
    rows += f'<tr{role("row")}>{row_head}{found}</tr>\n'
  note = f'<p class="note">{html.escape(table.note)}</p>' if table.note else ''
  # what may scroll sideways is reached by the keyboard too
  scrolls = f' tabindex="0" role="region" aria-label="{_escape(table.title)}"'
  return (
    f'<div class="table{kind}"{scrolls if kind == " many" else ""}><table{role("table")}>\n'
    f'<caption>{html.escape(table.title)}</caption>\n'
    f'<thead{role("rowgroup")}><tr{role("row")}>{top}</tr></thead>\n'
    f'<tbody{role("rowgroup")}>\n{rows}</tbody></table></div>{note}\n'
  )


def _roles(name: str) -> str:
  return f' role="{name}"'


def _no_roles(name: str) -> str:
  del name
  return ''


def save(tables: Sequence[Table], folder) -> None:
  """Writes <name>.md, <name>.tex (as shown) and <name>.csv (the numbers) of every table."""
  folder.mkdir(parents=True, exist_ok=True)
  for table in tables:
    (folder / f'{table.name}.md').write_text(markdown(table), encoding='utf-8')
    (folder / f'{table.name}.tex').write_text(latex(table), encoding='utf-8')
    (folder / f'{table.name}.csv').write_text(table.numbers.to_csv(index=False), encoding='utf-8')


def slug(*names: str) -> str:
  """A file name from names: 'accuracy-mnist-digits'."""
  return '-'.join(re.sub(r'[^\w.]+', '_', name) for name in names if name)


def _rows(table: Table) -> list[list[str]]:
  return [list(map(str, table.shown.columns)), *table.shown.astype(str).to_numpy().tolist()]


def _one_line(value) -> str:
  return ' '.join(str(value).split())


def _escape(value) -> str:
  return html.escape(str(value))


def _width(cell: str) -> int:
  return sum(2 if unicodedata.east_asian_width(letter) in 'WF' else 1 for letter in cell)


def _pad(cell: str, width: int, left: bool) -> str:
  space = ' ' * (width - _width(cell))
  return cell + space if left else space + cell
