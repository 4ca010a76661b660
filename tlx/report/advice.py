"""What advice rests on as a picture, and what a study's results say of the gain to expect."""

import io

import pandas as pd
from matplotlib.figure import Figure

from tlx.report import numbers
from tlx.report.folder import Results

ABOUT = {
  'neighbours': 'nearest neighbour has its class',
  'gradient': 'gradient, relative to the weights',
  'told apart': "source's data told apart (0 to 2)",
  'alike': 'varies as the source does (CKA)',
}


def expected(results: Results | None, source: str, target: str) -> str:
  """What is known of the gain over training from scratch, in a sentence a size; `source` and
  `target` by their names in the report.
  """
  unknown = (
    'Gain over training from scratch: nothing is known, since nobody has trained both on this '
    'target. The config that is written here does.'
  )
  if results is None:
    return unknown
  at_random = results.runs.loc[results.runs['init'] == 'random', 'method'].unique().tolist()
  if not at_random:
    return unknown
  scratch = results.baseline if results.baseline in at_random else at_random[0]
  found = numbers.gains(results, scratch)
  found = found[(found['source'] == source) & (found['target'] == target)]
  if not len(found):
    return unknown
  metric = results.metrics[target]
  lines = [f'Gain over training from scratch ({scratch}) in {metric.sided}, as the study has it:']
  for row in found.to_dict('records'):
    gain, low, high = (
      '–' if pd.isna(row[name]) else metric.written(row[name], signed=True)
      for name in ('difference', 'low', 'high')
    )
    size = f'{row["shots"] or "all"}{results.each(target)}'
    lines.append(f'  {row["method"]}, {size}: {gain} [{low}, {high}] over {row["n"]} pairs')
  return '\n'.join(lines)


def draw(table: pd.DataFrame, title: str, depth: int | None) -> bytes:
  """A PNG: each column of evidence over the stages; a line stands where freezing is to end."""
  columns = [name for name in ABOUT if name in table and table[name].notna().any()]
  figure = Figure(figsize=(2.9 * len(columns), 2.8))
  for ax, name in zip(figure.subplots(1, len(columns), squeeze=False)[0], columns):
    ax.plot(table['frozen'], table[name], 'o-', color='#0072B2')
    ax.set_xticks(table['frozen'], table['stage'], rotation=40, ha='right', fontsize=7)
    ax.set_title(ABOUT[name], fontsize=8)
    ax.tick_params(axis='y', labelsize=7)
    if depth is not None:
      ax.axvline(depth, color='#D55E00', linestyle='--', linewidth=1)
  figure.suptitle(f'{title} (dashed: freeze up to here)', fontsize=9, parse_math=False)
  figure.tight_layout()
  picture = io.BytesIO()
  figure.savefig(picture, format='png', dpi=150)
  return picture.getvalue()
