"""Labels new examples with what a study trained.

    python -m experiments.predict --workdir=runs/intents --inputs=new.jsonl --out=labels.csv
    python -m experiments.predict --workdir=runs/photos --inputs=NEW --out=labels.html

Inputs are a folder of images, one image, or texts: .jsonl, .csv, .tsv, .txt, .xlsx; --text=COLUMN
names what their text is in. Without --run the run
that validation prefers answers, and is named; --run=ensemble averages all of its setting. An .html
is a page of the examples, the least sure first. What cannot be read has the reason in the last
column.

Of a detector --out is a folder, --out=FOLDER: boxes.json, a COCO file with a score for each box,
and the images with their boxes drawn. --least=0.7 leaves out boxes of lower scores.
"""

import sys

import pandas as pd
from absl import app, flags, logging

from tlx.command import new_file, run_command

WORKDIR = flags.DEFINE_string('workdir', None, "The study's folder.", required=True)
RUN = flags.DEFINE_string('run', 'best', 'A folder of its runs/, best, or ensemble.')
INPUTS = flags.DEFINE_string('inputs', None, 'What is to be labelled.', required=True)
OUT = flags.DEFINE_string(
  'out', None, 'A .csv, .xlsx, .jsonl or .html file; of boxes a folder.', required=True
)
TEXT = flags.DEFINE_list('text', [], 'The columns of a table that the text is made of.')
LEAST = flags.DEFINE_float('least', 0.5, 'The lowest score of a box that is kept.')


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected {" ".join(argv[1:])!r}; see --help.')
  is_file = OUT.value.endswith(('.csv', '.xlsx', '.jsonl', '.html'))
  logging.set_verbosity(logging.ERROR)
  from tlx import report
  from tlx.report import predicted
  from tlx.study import boxes, shown, spreadsheet, use

  report.speak_utf8()
  try:
    new = spreadsheet.unlabelled(INPUTS.value, TEXT.value)
    model = use.load_run(WORKDIR.value, RUN.value)
    if boxes.finds(model) == is_file:
      wanted = 'a folder for boxes' if is_file else 'a .csv, .xlsx, .jsonl or .html file'
      raise ValueError(f'--out is {wanted}, got {OUT.value!r}.')
    for line in (*new.notes, model.about):
      print(line)
    if boxes.finds(model):
      new_file(f'{OUT.value}/boxes.json')
      print(boxes.write(model, new, OUT.value, LEAST.value))
      return
    out = new_file(OUT.value)
    found = pd.DataFrame(use.predict(model, new))
    if OUT.value.endswith('.csv'):
      found.to_csv(OUT.value, index=False)
    elif OUT.value.endswith('.xlsx'):
      spreadsheet.write(found, OUT.value)
    elif OUT.value.endswith('.html'):
      contents = shown.of_records(new, predicted.rows_shown(found))
      page = predicted.page(model.about, INPUTS.value, found, contents)
      out.write_text(page, encoding='utf-8')
    else:
      found.to_json(OUT.value, orient='records', lines=True, force_ascii=False)
  except (ValueError, OSError, ImportError) as error:
    sys.exit(f'Error: {error}')
  if cut := use.num_cut(model, new):
    print(f'{cut:,} texts are longer than the run was trained on and were cut (input.length).')
  unread = int((found.error != '').sum())
  print(f'Wrote {OUT.value}: {len(found) - unread:,} labelled, {unread:,} could not be read.')
  if unread == len(found):
    sys.exit(f'Error: nothing could be read. The first, {found.id[0]}: {found.error[0]}.')
  if 'class' in found:
    print(found['class'][found.error == ''].value_counts().head(10).to_string())


if __name__ == '__main__':
  run_command(main)
