"""What a study would run, as text."""
from collections.abc import Mapping
from typing import Any

from tlx.study import config as configs
from tlx.study import plan, run


def compiled(config: Mapping[str, Any]) -> str:
  """A line a program that the study would compile, compiled: seconds, and megabytes on each device while it runs.

  The persistent cache holds them from then on. Raises ValueError as the study would.
  """
  rows = run.compile(config)
  width = max([len(row['cohort']) for row in rows], default=0)
  lines = [f"{row['cohort']:<{width}}  phase {row['phase']}  {row['seconds']:6.1f} s  {row['bytes'] / 1e6:10,.1f} MB" for row in rows]
  return '\n'.join([*lines, f"{len(rows)} programs compiled in {sum(row['seconds'] for row in rows):.1f} s; at most "
                    f"{max([row['bytes'] for row in rows], default=0) / 1e6:,.0f} MB on a device."])


def describe(config: Mapping[str, Any]) -> str:
  """A line a cohort: runs, programs, steps, trained parameters, FLOPs and memory; then the totals.

  Raises:
    ValueError: what is wrong with the config.
  """
  study = configs.resolve(config)
  cohorts = plan.make(study)
  rows = plan.table(study, cohorts)
  formats = {'cohort': '{}', 'runs': '{}', 'phases': '{}', 'new programs': '{}', 'steps': '{}', 'trained': '{:,}', 'share': '{:.1%}',
             'reused': '{}', 'stages': '{}', 'GFLOP': '{:,.1f}', 'saved': '{:,.1f}', 'MB': '{:,.1f}'}
  cells = [list(formats), *([form.format(row[name]) for name, form in formats.items()] for row in rows)]
  widths = [max(len(line[i]) for line in cells) for i in range(len(formats))]
  lines = ['  '.join(cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(line, widths)))
           for line in cells]
  total = {name: sum(row[name] for row in rows) for name in ('runs', 'new programs', 'GFLOP', 'saved')}
  lines.append(f"{total['runs']} runs in {len(rows)} cohorts, {total['new programs']} training programs to compile, "
               f"{total['GFLOP']:,.0f} GFLOP of training; at most {max(row['MB'] for row in rows):,.0f} MB of parameters, gradients and "
               'optimizer state at a time.')
  if total['saved']:
    lines.append(f'Stages that stay frozen (reused: how many, phase by phase) run once for every image: {plan.prefix_gflop(study, cohorts):,.1f} '
                 f"GFLOP instead of {total['saved']:,.1f}.")
  return '\n'.join(lines)
