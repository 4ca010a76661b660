"""Says how far to freeze a study's sources for its targets, before anything is trained.

    python -m experiments.advise --config=configs/imagenet_to_digits.py --out=FOLDER
    python -m experiments.advise --config=... --workdir=runs/near --shots=10
    python -m experiments.advise --config=configs/advice_on_trial.py --workdir=DIR --trial

Looks at training examples of the targets alone. Sources that the study trains itself have to lie
in --workdir, and where that has results they say what is gained over training from scratch. --out
takes the tables, pictures, and a config that tests the advice. --norate leaves out the range test
of the learning rate, the only part that takes training steps. --trial compares what
every run of a study of all depths would have been advised with what the depths gave.
"""

import pathlib
import sys

from absl import app, flags, logging

from tlx.command import run_command

from .study import CONFIG, WORKDIR, parse, set_up_jax

SHOTS = flags.DEFINE_integer(
  'shots', None, "Examples a class, of the first seed; the study's largest if left out, 0 is all."
)
TRIAL = flags.DEFINE_bool('trial', False, 'What the advice lost in the study in --workdir.')
RATE = flags.DEFINE_bool(
  'rate', True, 'A range test of the learning rate, 100 steps of what is advised.'
)
OUT = flags.DEFINE_string('out', '', 'A folder for tables, pictures and the config.')


def main(argv):
  if len(argv) > 1 or CONFIG.value is None:
    raise app.UsageError('Give --config=FILE.py[:ARGUMENT]; see --help.')
  set_up_jax()
  logging.set_verbosity(logging.ERROR)
  from tlx import report
  from tlx.report import advice as reported
  from tlx.report import folder, trial
  from tlx.study import advise

  report.speak_utf8()
  workdir, results = WORKDIR.value or '', None
  try:
    if TRIAL.value:
      depths = advise.depths_of(CONFIG.value, workdir)
      print(trial.words(trial.trial(trial.accuracies(folder.load(workdir)), depths)))
      return
    found = advise.advise(CONFIG.value, workdir, SHOTS.value)
    if workdir and list(pathlib.Path(workdir).expanduser().glob('runs/*/result.json')):
      results = folder.load(workdir)
  except (ValueError, OSError, ImportError) as error:
    sys.exit(f'Error: {error}')
  for one in found:
    print(advise.said(one))
    if RATE.value:
      try:
        print(advise.said_rate(advise.starting_rates(CONFIG.value, one, workdir)))
      except ValueError as error:  # such as a loss that diverges at once: the rest stands
        print(f'Learning rate: not tested. {error}')
    print(reported.expected(results, folder.base(one.source), folder.base(one.target)) + '\n')
  if OUT.value:
    place = pathlib.Path(OUT.value)
    place.mkdir(parents=True, exist_ok=True)
    for one in found:
      name = f'{one.source}-{one.target}'
      one.table.to_csv(place / f'{name}.csv', index=False)
      (place / f'{name}.png').write_bytes(
        reported.draw(one.table, f'{one.source} -> {one.target}', one.depth)
      )
    path = place / 'test_advice.py'
    path.write_text(advise.test_of(CONFIG.value, found, str(path)), encoding='utf-8')
    print(f'Wrote tables, pictures and {path}, which tests the advice.')


if __name__ == '__main__':
  run_command(main, flags_parser=parse)
