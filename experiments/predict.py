"""Labels new examples with what a study trained.

    python -m experiments.predict --workdir=runs/intents --inputs=new.jsonl --out=labels.csv

Inputs are a folder of images, one image, or texts: .jsonl, .csv, .tsv, .txt. Without --run the run
that validation prefers answers, and is named. What cannot be read has the reason in the last
column.
"""

import pathlib
import sys

import pandas as pd
from absl import app, flags, logging

WORKDIR = flags.DEFINE_string('workdir', None, "The study's folder.", required=True)
RUN = flags.DEFINE_string('run', 'best', 'A folder of its runs/, or best.')
INPUTS = flags.DEFINE_string('inputs', None, 'What is to be labelled.', required=True)
OUT = flags.DEFINE_string('out', None, 'A .csv or .jsonl file.', required=True)


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected {" ".join(argv[1:])!r}; see --help.')
  if not OUT.value.endswith(('.csv', '.jsonl')):
    raise app.UsageError(f'--out is a .csv or a .jsonl file, got {OUT.value!r}.')
  logging.set_verbosity(logging.ERROR)
  from tlx import datasets
  from tlx.study import use

  try:
    new = datasets.unlabelled(INPUTS.value)
    model = use.load_run(WORKDIR.value, RUN.value)
    print(model.about)
    found = pd.DataFrame(use.predict(model, new))
    pathlib.Path(OUT.value).parent.mkdir(parents=True, exist_ok=True)
    if OUT.value.endswith('.csv'):
      found.to_csv(OUT.value, index=False)
    else:
      found.to_json(OUT.value, orient='records', lines=True, force_ascii=False)
  except (ValueError, OSError) as error:
    sys.exit(f'Error: {error}')
  if cut := use.num_cut(model, new):
    print(f'{cut:,} texts are longer than the run was trained on and were cut (input.length).')
  unread = int((found.error != '').sum())
  print(f'Wrote {OUT.value}: {len(found) - unread:,} labelled, {unread:,} could not be read.')
  print(found.iloc[:, 1].value_counts().head(10).to_string() if 'class' in found else '')


if __name__ == '__main__':
  app.run(main)
