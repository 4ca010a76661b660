"""Examples on the page: texts and thumbnails in tables, answers side by side."""

import html
from typing import Any

from tlx.report import examples
from tlx.report.examples import Record, Shown
from tlx.report.folder import Results


def errors(results: Results) -> str:
  """HTML of the examples that tell most; '' where there are none."""
  return ''.join(table(shown) for shown in examples.tables(results))


def boxes(results: Results) -> str:
  """HTML of test images with objects and boxes; '' where boxes are not what was asked for."""
  tables = ''.join(table(shown) for shown in examples.pictures(results))
  return tables.replace('<img ', '<img class="wide" ')


def answers(results: Results) -> str:
  """HTML of what methods answered; '' where nobody was asked."""
  shown = examples.dialogues(results)
  if not shown:
    return ''
  note = (
    'Greedy answers of the first seed of each method to held-out dialogues, cut to 600 bytes; the '
    'scores of all prompts are among the other measures. ROUGE-L in % of words of a–z and 0–9: '
    'letters with accents split words and other scripts have none, so read it for English alone.'
  )
  first, *others = [_prompt(one) for one in shown]
  more = f'<details><summary>{len(others)} more prompts</summary>{"".join(others)}</details>'
  return f'<p class="note">{html.escape(note)}</p>{first}{more if others else ""}'


def _prompt(shown: Shown) -> str:
  return table(
    shown._replace(note=''), f'<blockquote tabindex="0">{html.escape(shown.note)}</blockquote>'
  )


def table(shown: Shown, before: str = '') -> str:
  head = ''.join(
    f'<th scope="col" role="columnheader">{html.escape(name)}</th>' for name in shown.columns
  )
  rows = ''
  for first, *cells in shown.rows:
    found = ''
    for column, cell in zip(shown.columns[1:], cells):
      name = html.escape(column)
      found += f'<td role="cell" data-column="{name}">{html.escape(str(cell))}</td>'
    rows += f'<tr role="row"><th scope="row" role="rowheader">{_cell(first)}</th>{found}</tr>\n'
  note = f'<p class="note">{html.escape(shown.note)}</p>' if shown.note else ''
  return (
    f'<div class="table words stack"><table role="table">\n'
    f'<caption>{html.escape(shown.caption)}{before}</caption>\n'
    f'<thead role="rowgroup"><tr role="row">{head}</tr></thead>\n'
    f'<tbody role="rowgroup">\n{rows}</tbody></table></div>{note}\n'
  )


def _cell(first: Any) -> str:
  """A record as a picture or its text, else its id."""
  if not isinstance(first, Record):
    return html.escape(str(first))
  name = html.escape(first.id)
  if uri := examples.picture(first):
    return f'<img src="{uri}" alt="image {name}" title="{name}">'
  if isinstance(first.content, str):
    return f'<span title="{name}">{html.escape(first.content)}</span>'
  if isinstance(first.content, list):
    return '<br>'.join(html.escape(str(part)) for part in first.content)
  return name
