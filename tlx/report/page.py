"""report.html: one file that opens anywhere, prints, and loads nothing."""

import collections
import functools
import html
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from tlx.report import (
  cautions,
  classes,
  figures,
  findings,
  formats,
  gallery,
  levels,
  metrics,
  numbers,
  tables,
)
from tlx.report.drawing import INK, Drawing, save
from tlx.report.folder import Results, data_of, load, scored
from tlx.report.formats import Table


def write(workdir, test_sampling: bool = False):
  """The path of report.html, having written it, tables/ and figures/ into the study's folder.

  Raises:
    ValueError: the folder cannot be read.
  """
  results = load(workdir)
  return save_all(results, tables.make(results, test_sampling))


def save_all(results: Results, made: list[Table]):
  """As `write`, of results whose tables are made."""
  drawn = figures.make(results)
  formats.save(made, results.workdir / 'tables')
  save(drawn, results.workdir / 'figures')
  path = results.workdir / 'report.html'
  path.write_text(render(results, made, drawn), encoding='utf-8')
  return path


# A section: its heading, the figures and then the kinds of tables (the first word of their names)
# it shows. The first has the tables of the scores too, which are named like their columns.
_SECTIONS = (
  ('', (), ('sampled', 'measures', 'across_targets')),
  ('Against the baseline', ('targets',), ('differences', 'data', 'speed')),
  ('How deep to freeze', ('freezing',), ()),
  ('Which stage carries most', ('stages',), ('stages',)),
  ('How far probabilities can be believed', ('reliability',), ()),
  ('Between weights', ('line', 'scales'), ()),
  ('Class by class', ('confusion',), ('confused', 'balanced', 'recall')),
  ('Boxes', ('precision',), ('ap', 'errors')),
  ('Cost', ('parameters', 'seconds', 'time'), ('cost', 'time')),
  ('Training', ('learning',), ('rates', 'diverged', 'chance')),
)


def render(results: Results, made: list[Table], drawn: list[Drawing]) -> str:
  """The page as one string of HTML; everything that comes from files is escaped."""
  body = [_header(results)]
  if verdicts := [formats.as_html(table) for table in made if table.name.startswith('claims')]:
    body.append(section('Claims', ''.join(verdicts)))
  body.append(section('What was found', _found(results)))
  if notes := cautions.notes(results):
    body.append(section('Data, weights and versions', _list(notes)))
  main = metrics.one(results.metrics.values())
  columns = tuple(dict.fromkeys(metric.column for metric in results.metrics.values()))
  for heading, names, kinds in _SECTIONS:
    if not heading:
      heading = main.words[0].upper() + main.words[1:] if main else 'Scores'
      names, kinds = (metrics.name(results.metrics.values()),), (*columns, *kinds)
    parts = []
    for name in names:
      parts += [_figure(drawing) for drawing in drawn if drawing.name == name]
    for kind in kinds:
      look = 'stack' if kind == 'confused' else ''  # the names of two classes are long
      parts += [formats.as_html(table, look) for table in made if table.name.split('-')[0] == kind]
    if parts:
      body.append(section(heading, ''.join(parts)))
    if heading == 'Class by class' and (shown := gallery.errors(results)):
      body.append(section('Examples it got wrong', shown))
    if heading == 'Boxes' and (shown := gallery.boxes(results)):
      body.append(section('Boxes it found', shown))
    if heading == 'Class by class' and (shown := gallery.answers(results)):
      body.append(section('Answers side by side', shown))
  body += [
    section('How the numbers were computed', _list(_definitions(results))),
    section('Provenance', _provenance(results)),
    '<details><summary>Config</summary><pre>'
    + _escape(json.dumps(results.config, indent=2, default=str))
    + '</pre></details>',
  ]
  return document(results.name, ''.join(body))


def document(title: str, body: str) -> str:
  """A whole page: `body` is HTML, `title` is escaped."""
  return (
    f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, '
    f'initial-scale=1">\n<title>{_escape(title)}</title>\n'
    f'<style>{_CSS}</style></head>\n<body><main>\n{body}</main></body></html>\n'
  )


def _header(results: Results) -> str:
  claim = f'<p class="claim">{_escape(results.claim)}</p>' if results.claim else ''
  return (
    f'<header><h1>{_escape(results.name)}</h1>{claim}<p '
    f'class="progress">{_escape(findings.progress(results))}</p></header>\n'
  )


def _found(results: Results) -> str:
  return ''.join(
    f'<h3>{_escape(place)}</h3>{_list(lines)}'
    for place, lines in findings.sentences(results).items()
  )


def _definitions(results: Results) -> list[str]:
  """What a reader must know to believe the numbers, said as it is in this study."""
  runs, rates = results.runs, numbers.rates(results)
  budgets = sorted(rates['settings'].unique())
  seeds = runs['seed'].nunique()
  test_seen = scored(runs).loc[~runs['chosen'], 'test_score'].notna().sum()
  words = results.words
  scales = ' '.join(metric.scales for metric in dict.fromkeys(results.metrics.values()))
  if not budgets:
    budget = 'No setting has been chosen yet.'
  elif len(budgets) == 1:
    budget = (
      f'The budget is the same for every method: {findings.count(budgets[0], "setting")} of '
      'learning rate and weight decay in every cell.'
    )
  else:
    budget = (
      f'The budget differs: between {budgets[0]} and {budgets[-1]} settings were tried; '
      'see the table of chosen rates.'
    )
  lines = [
    f'{scales} ± is the half-width of the 95% Student-t '
    f'interval over seeds ({seeds} in this study), '
    't(0.975, n−1) · s / √n; no interval with one seed, and none where all seeds came out alike. '
    'Seeds vary the training subset, the initial '
    'values and the order of examples; what they leave out stands under each table of '
    f'{words}.',
    *_levels(results),
    'Learning rate and weight decay were chosen for each method, target and size by mean '
    f'validation {words} over the seeds. ' + budget,
    *dict.fromkeys(filter(None, (_validation(results, *pair) for pair in results.pairs))),
    (
      'The test set chose nothing: only chosen runs were tested, once.'
      if not test_seen
      else f'Beware: {test_seen} runs that were not chosen have test results too.'
    )
    + ' Sentences that name a best method, and the best depth to freeze, go by validation '
    f'{words}.',
  ]
  if 0 in set(runs['shots']):
    lines.append(
      '“all” is every training example, with '
      + ('the mean number of a class' if results.each() else 'their number')
      + ' in brackets; on axes and in interpolation it stands at that number.'
    )
  stopped = int((numbers.tested(results)['status'] != 'ok').sum())
  if stopped:
    lines.append(
      f'{findings.count(stopped, "chosen run")} diverged and counts with the test {words} of the '
      'state it stopped in.'
    )
  if results.baseline:
    lines += [
      f'Differences to {results.baseline} are paired: same seed, same subset. Their interval and '
      'p-value come from the paired t-test; Wilcoxon’s '
      'signed-rank test, exact and on counts of correct answers, is added from six pairs on. '
      'Differences that do not vary, such as copies of one '
      'result, have neither. Holm’s correction covers all methods and sizes of one source and '
      'target that can be tested; a difference is '
      'called shown where its interval excludes 0 and Holm’s p is below 0.05.',
      f'Effective data: the examples{results.each()} at which the baseline’s mean curve, '
      'interpolated linearly in log examples, first '
      f'reaches the method’s mean {words}, divided by the examples the method had; its interval '
      'is of paired draws of the seeds.',
    ]
  return [
    *lines,
    'The files in tables/ hold the unrounded numbers, percentile bootstrap intervals (10,000 '
    'resamples) among them.',
  ]


def _levels(results: Results) -> list[str]:
  """What intervals are where source seeds or folds vary too."""
  if not levels.are_crossed(results.runs):
    return []
  return [
    f'Where {levels.over(results.runs)} vary, intervals are those of crossed random effects: of '
    'the variance estimated from the mean squares of all factors together (Satterthwaite’s degrees '
    'of freedom) and those of the means over each factor’s levels, the widest. Folds count as '
    'Nadeau and Bengio (2003) correct them, (1/J + n_test/n_train) s². Combinations that are not '
    'there yet leave out the level that lacks most. Each source seed and fold chooses its own '
    'settings; runs from a random start are the same for all source seeds.'
  ]


def _validation(results: Results, source: str, target: str) -> str:
  text = cautions.validation(results, source, target)
  return text and f'{tables.arrow(source, target)}: {text}'


def _provenance(results: Results) -> str:
  runs = results.runs
  frozen = runs[
    (runs['trainable_params'] < runs['total_params']) & runs['frozen_sha256_before'].notna()
  ]
  proof = 'No run freezes parameters.'
  if len(frozen):
    proof = (
      'Frozen parameters proven unchanged (same SHA-256 before and after every phase) in '
      f'{int(frozen["frozen_unchanged"].sum())} of {len(frozen)} runs that freeze any.'
    )
  failed = frozen.loc[~frozen['frozen_unchanged'], 'id'].tolist()
  if failed:
    proof += f' CHANGED in: {", ".join(failed)}.'
  rows = [('Devices', ', '.join(map(str, results.devices)) or 'not recorded')]
  rows += [(f'Version of {name}', str(version)) for name, version in results.versions.items()]
  for kind, key in (('source', 'source_sha256'), ('target', 'data_sha256')):
    for name, group in runs.groupby(kind)[key]:
      rows.append((f'SHA-256 of the {kind} {name}', _digests(group)))
  for pair in results.pairs:
    rows += _examples(results, *pair)
  for name, source in results.sources.items():
    rows += [(f'Source {name}: {what}', value) for what, value in _origin(source)]
  shown = pd.DataFrame(rows, columns=['What', 'Value'])
  table = formats.as_html(Table('provenance', 'Where it came from', shown, shown), 'words')
  return f'<p>{_escape(proof)}</p>{table}'


def _examples(results: Results, source: str, target: str) -> list[tuple[str, str]]:
  """The classes and numbers of examples of a target, where the folder says them."""
  data = data_of(results, source, target)
  names = classes.class_names(results, source, target)
  rows = [
    (
      f'Examples of {tables.arrow(source, target)}',
      ', '.join(f'{count:,} {part}' for part, count in (data.get('num_examples') or {}).items()),
    ),
    (
      f'Classes of {tables.arrow(source, target)}',
      f'{len(names)}: {", ".join(names)}' if names else '',
    ),
  ]
  return [row for row in rows if row[1]]


def _origin(source: Mapping[str, Any]) -> list[tuple[str, str]]:
  """Where a source's weights come from and how much of them is used: [(what, value)]; nothing for
  what its file does not say.
  """
  origin, config = source.get('provenance') or {}, source.get('config') or {}
  if not origin:
    if not source.get('test'):
      return []
    metric = metrics.of(*metrics.selected(source))
    score = metric.written(source['test'][metric.column]) + metric.unit
    return [('trained by the study on', f'{config.get("dataset")}, test {metric.words} {score}')]
  rows = [
    ('weights', origin.get('uri')),
    ('SHA-256 of the file', origin.get('sha256')),
    ('licence', origin.get('licence') or 'not stated'),
    ('format', origin.get('format')),
    (
      'tensors',
      f'{origin.get("num_tensors")} in the file, {len(source.get("names") or {})} taken over',
    ),
    ('newly initialised', _names(source.get('fresh') or [])),
    ('left out', _names([*(source.get('ignored') or []), *(origin.get('left_out') or [])])),
  ]
  return [(what, str(value)) for what, value in rows if value]


def _names(names: Sequence[str]) -> str:
  """The names, those that many layers share as one: '49 × num_batches_tracked, _fc.weight'."""
  last = collections.Counter(re.split('[./]', name)[-1] for name in names)
  many = {name: count for name, count in last.items() if count > 3}
  single = [name for name in names if re.split('[./]', name)[-1] not in many]
  return ', '.join([*(f'{count} × {name}' for name, count in many.items()), *single]) or 'none'


def _digests(values: pd.Series) -> str:
  # a random start has an empty one
  found = sorted(value for value in values.dropna().unique() if value)
  return cautions.some(found, 3) or 'none'


def _figure(drawing: Drawing) -> str:
  """The SVG in the page: ids made its own, ink in the text's colour, no wider than the page."""
  svg = drawing.svg[drawing.svg.index('<svg') :].replace(INK, 'currentColor')
  own = functools.partial(re.sub, string=svg)
  svg = own(r'(\bid="|url\(#|href="#)', lambda match: f'{match[1]}{drawing.name}-')
  svg = svg.replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, sans-serif")
  caption = _escape(drawing.caption)
  return (
    '<figure><div class="drawing" role="img" '
    f'aria-label="{caption}">{svg}</div><figcaption>{caption}</figcaption></figure>\n'
  )


def section(heading: str, content: str) -> str:
  return f'<section><h2>{_escape(heading)}</h2>\n{content}</section>\n'


def _list(lines: list[str]) -> str:
  return '<ul>' + ''.join(f'<li>{_escape(line)}</li>\n' for line in lines) + '</ul>'


def _escape(value: str) -> str:
  return html.escape(str(value))


_CSS = """
:root { color-scheme: light dark; --text: #1b1f24; --back: #fff; --soft: #59636e; --line: #d5dbe1;
  --tint: #f5f7f9; --mark: #0072b2 }
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e8ec; --back: #14181d; --soft: #9aa5b1; --line: #363e48; --tint: #1c2229;
    --mark: #56b4e9 } }
* { box-sizing: border-box }
body { margin: 0; background: var(--back); color: var(--text);
  font: 16px/1.5 system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif }
main { max-width: 62rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; overflow-wrap: anywhere }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .5rem }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .7rem; padding-bottom: .25rem;
  border-bottom: 1px solid var(--line) }
h3 { font-size: 1rem; margin: 1rem 0 .3rem }
.claim { font-size: 1.1rem; margin: .3rem 0; padding-left: .8rem;
  border-left: 3px solid var(--mark) }
.progress, .note, figcaption { color: var(--soft); font-size: .875rem }
ul { padding-left: 1.2rem; margin: 0 } li { margin: .35rem 0 }
figure { margin: 1rem 0 1.8rem } figcaption { margin-top: .3rem }
.drawing svg { display: block; max-width: 100%; height: auto; margin: 0 auto }
.table { overflow-x: auto; margin: 1.2rem 0 .3rem; width: max-content; min-width: 100%;
  max-width: calc(50vw + min(31rem, 50vw) - 2.5rem) }
.words { width: auto } .note { margin: .2rem 0 1.6rem }
table { border-collapse: collapse; min-width: min(100%, 26rem); font-size: .875rem;
  font-variant-numeric: tabular-nums; overflow-wrap: normal }
caption { text-align: left; font-weight: 600; padding-bottom: .4rem }
th, td { padding: .28rem .6rem; text-align: right }
thead th { vertical-align: bottom }
th:first-child, .long { text-align: left } tbody th { font-weight: 500 }
thead th { border-bottom: 1.5px solid var(--text); color: var(--soft) }
tbody tr + tr > * { border-top: 1px solid var(--line) }
tbody tr:hover { background: var(--tint) }
.words th { text-align: left } .words td { text-align: left; overflow-wrap: anywhere }
.words img { display: block; width: 64px; image-rendering: pixelated; border-radius: 3px }
.words img.wide { width: 50rem; max-width: 100%; image-rendering: auto }
blockquote { margin: .4rem 0 0; padding-left: .8rem; border-left: 3px solid var(--line);
  font-weight: 400; white-space: pre-wrap; overflow-wrap: anywhere; max-height: 16rem;
  overflow-y: auto }
.stack tbody th { max-width: 34rem; font-weight: 400; overflow-wrap: anywhere }
.stack td { vertical-align: top } .stack tbody th { vertical-align: top }
details { margin-top: 2rem } summary { cursor: pointer; font-weight: 600 }
pre { background: var(--tint); padding: 1rem; overflow-x: auto; font-size: .8rem;
  white-space: pre-wrap }
@media (max-width: 72rem) {
  /* a row of many columns becomes a paragraph in which every cell carries its column's name */
  .many { width: auto; max-width: 100% } .many table, .many tbody, .many caption { display: block }
  .many thead { display: none }
  .many tr { display: block; padding: .3rem 0 }
  .many tbody th { display: block; padding: 0; font-weight: 600 }
  .many tbody th::before { content: attr(data-column) ': '; color: var(--soft); font-weight: 400 }
  .many td { display: inline-block; padding: 0 .9rem 0 0; text-align: left }
  .many tbody tr + tr > * { border-top: 0 }
  .many tbody tr + tr { border-top: 1px solid var(--line) }
  .many td::before { content: attr(data-column) ': '; color: var(--soft) }
  .many td:empty { display: none } }
@media (max-width: 44rem) {
  .stack table, .stack tbody, .stack caption, .stack tr, .stack tbody th { display: block }
  .stack thead { display: none } .stack tr { padding: .4rem 0 }
  .stack tbody tr + tr > * { border-top: 0 }
  .stack tbody tr + tr { border-top: 1px solid var(--line) }
  .stack tbody th { max-width: none; padding: 0 }
  .stack td { display: inline-block; padding: 0 .9rem 0 0; text-align: left }
  .words td { display: block; padding: 0 }
  .stack td::before, .stack th[data-column]::before { content: attr(data-column) ': ';
    color: var(--soft) }
  .stack tr { display: flow-root } .stack th:has(img:not(.wide)) { float: left; margin-right: 1rem }
  .stack td:empty { display: none }
  main { padding: 1.2rem .9rem } .table { width: auto; max-width: 100% }
  th, td { padding: .25rem .3rem } tbody th, td { overflow-wrap: anywhere }
  tbody th { min-width: 7em } }
@media print {
  :root { --text: #000; --back: #fff; --soft: #444; --line: #bbb; --tint: #fff }
  body { font-size: 10pt } main { max-width: none; padding: 0 } th, td { padding: .15rem .4rem }
  figure, tr, .table { break-inside: avoid } h2, h3 { break-after: avoid }
  .table, .drawing { overflow: visible }
  table, .note, figcaption { font-size: 8pt }
  .drawing svg { width: auto; min-width: 0; max-width: 100% } }
"""
