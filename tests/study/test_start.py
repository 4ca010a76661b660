"""A first config: what is inferred from data as people have them, and that what is written runs."""

import csv
import gzip
import importlib.util
import io
import json
import os
import pathlib
import shlex
import subprocess
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.study import tiny
from tlx import report
from tlx.study import config, cost, run, spreadsheet, start
from tlx.study.cells import cells_of
from tlx.study.cohorts import cohorts_of

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def photographs(tmp_path):
  """Two classes as a phone leaves them."""
  random = np.random.default_rng(0)
  folder = tmp_path / 'My Photos'
  for name, grey in (('Cats', 60), ('dogs', 190)):
    (folder / name).mkdir(parents=True)
    for i in range(12):
      pixels = random.normal(grey, 20, (40, 50, 3)).clip(0, 255).astype('uint8')
      Image.fromarray(pixels).save(folder / name / f'IMG_{i:04}.{"JPG" if i % 2 else "jpeg"}')
    (folder / name / 'IMG_0099.HEIC').write_bytes(b'\0\0\0\x18ftypheic')
    (folder / name / '.DS_Store').write_bytes(b'x')
  (folder / 'notes.txt').write_text('of the holidays')
  return folder


def load(path):
  spec = importlib.util.spec_from_file_location('written', path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config()


def begin(tmp_path, path, **asked):
  """(what is found, the config that is written)."""
  (tmp_path / 'mine.jsonl').unlink(missing_ok=True)
  found = start.find(path, start.Asked(**asked), tmp_path / 'mine.jsonl')
  file = tmp_path / 'mine.py'
  file.write_text(start.written(found, start.Asked(**asked), 'mine'), encoding='utf-8')
  return found, load(file)


def command(folder, path, *flags):
  """experiments.start of `path` in a folder."""
  arguments = [sys.executable, '-m', 'experiments.start', str(path), *flags]
  paths = {**os.environ, 'PYTHONPATH': str(ROOT)}
  return subprocess.run(arguments, cwd=folder, capture_output=True, text=True, env=paths)


def test_photographs_get_a_config_that_runs(photographs, tmp_path, data_dir):
  said = command(tmp_path, photographs).stdout
  assert '24 images of 2 classes (the smallest: Cats, 12), not divided' in said
  assert '2 are HEIC' in said and 'source EfficientNet-Lite0, lite0.imagenet' in said
  assert '--config=my_photos.py --dry_run' in said and '--workdir=runs/my_photos' in said
  assert 'is there already: name another by --out' in command(tmp_path, photographs).stderr
  made = load(tmp_path / 'my_photos.py')
  assert len((tmp_path / 'my_photos.py').read_text().splitlines()) < 50
  assert len(cells_of(config.resolve(made))) == 3 * 3 * 2
  made.shots, made.seeds, made.only = (1,), (0,), 'probe'
  made.sources.pretrained = tiny.get_config().sources.turned  # of which a test has the time
  made.data_dir = str(data_dir)
  runs = report.read(run.run(made, tmp_path / 'runs'))
  assert len(runs) == 2 and (runs.status == 'ok').all()


def test_a_spreadsheet_says_which_columns_it_takes(tmp_path):
  rows = [
    f'{i};Größe;"My order {i} did not arrive; please help";{("Billing", "Shipping")[i % 2]};{i % 9}'
    for i in range(40)
  ]
  rows += ['40;x;"a rare complaint of its own";Legal;1', '41;x;;Billing;1']
  text = '\n'.join(['Ticket ID;Subject;Description;Queue;Agent', *rows])
  file = tmp_path / 'Tickets.csv'
  file.write_bytes(text.encode('cp1252'))
  found, made = begin(tmp_path, file)
  said = '\n'.join(found.said)
  assert 'The text is Description (--text=COLUMN[,COLUMN]), the class Queue (--label' in said
  assert '1 of 42 rows have no text or no label' in said
  assert '1 classes have fewer than 5 rows, and are left out: Legal' in said
  written = [json.loads(line) for line in (tmp_path / 'mine.jsonl').read_text().splitlines()]
  assert len(written) == 40 and {row['label'] for row in written} == {'Billing', 'Shipping'}
  assert written[3]['text'] == 'My order 3 did not arrive; please help'
  assert made.sources.pretrained.weights == 'minilm_l6' and made.shots == (1, 5)
  begin(tmp_path, file, text=('subject', 'Description'), label='queue', group='agent')
  first = json.loads((tmp_path / 'mine.jsonl').read_text().splitlines()[0])
  assert first['text'] == 'Größe\nMy order 0 did not arrive; please help' and first['group'] == '0'
  with pytest.raises(ValueError, match=r'--label=queu: there is no such column; have Ticket ID'):
    begin(tmp_path, file, label='queu')


def tickets(file):
  """A table whose columns are not called as tlx/datasets wants it; one agent has all."""
  rows = [f'My order {i} did not arrive;{("open", "closed")[i % 2]};Ann' for i in range(40)]
  file.write_text('\n'.join(['Message;Status;Agent', *rows]))
  return file


def test_commands_can_be_typed_whatever_the_name(tmp_path):
  done = command(tmp_path, tickets(tmp_path / 'x.csv'), '--label=Status', '--out=My table.py')
  written = (tmp_path / 'My table.py').read_text()
  for text in (done.stdout, written):
    lines = [line for line in text.splitlines() if '--config' in line and '--workdir=' in line]
    typed = shlex.split(lines[0])
    assert {'--config=My table.py', '--workdir=runs/My table'} <= set(typed)


def test_files_that_are_there_are_kept(tmp_path):
  """The user's own rows beside a table, and the very rows that are asked about."""
  tickets(tmp_path / 'tickets.csv')
  mine = '\n'.join(json.dumps({'body': f'that is {i}', 'queue': 'ab'[i % 2]}) for i in range(40))
  (tmp_path / 'tickets.jsonl').write_text(mine)
  for name, flag in (('tickets.csv', '--label=Status'), ('tickets.jsonl', '--label=queue')):
    done = command(tmp_path, name, flag)
    assert 'tickets.jsonl, which is there already: name another config by --out' in done.stderr
    assert (tmp_path / 'tickets.jsonl').read_text() == mine
    assert not (tmp_path / 'tickets.py').exists()
  done = command(tmp_path, 'tickets.csv', '--label=Status', '--out=other.py')
  assert done.returncode == 0 and '--out=FILE.py' in done.stdout, done.stderr
  assert load(tmp_path / 'other.py').targets.other.dataset == f'jsonl:{tmp_path}/other.jsonl'


def test_rows_that_no_study_takes_are_not_left(tmp_path):
  with pytest.raises(ValueError, match='by group leaves one side without'):
    begin(tmp_path, tickets(tmp_path / 'tickets.csv'), group='Agent')
  assert [file.name for file in tmp_path.iterdir()] == ['tickets.csv']
  (tmp_path / 'tickets.py').symlink_to(tmp_path / 'none' / 'x.py')  # which cannot be written
  done = command(tmp_path, 'tickets.csv', '--label=Status')
  assert done.returncode and done.stderr.startswith('Error: ')
  assert not (tmp_path / 'tickets.jsonl').exists()


def test_other_columns_that_may_be_the_class_are_named(tmp_path):
  rows = [
    f'My order {i} did not arrive;{("open", "closed")[i % 2]};{("Cards", "Rates", "Post")[i % 3]}'
    for i in range(60)
  ]
  file = tmp_path / 'export.csv'
  file.write_text('\n'.join(['Message;Status;Assigned team', *rows]))
  said = '\n'.join(begin(tmp_path, file)[0].said)
  assert 'the class Assigned team (--label' in said
  assert 'The class may as well be Status (2 values): --label=COLUMN takes another' in said
  said = '\n'.join(begin(tmp_path, file, label='status')[0].said)
  assert 'the class Status (--label' in said and 'may as well' not in said


ROWS = [('Betreff', 'Beschreibung', 'Warteschlange')] + [
  (f'Größe {i}', f'Paket {i} fehlt; bitte "prüfen", danke', ('Versand', 'Rückgabe')[i % 2])
  for i in range(30)
]


def of_rows(delimiter: str, rows=ROWS) -> str:
  stream = io.StringIO()
  csv.writer(stream, delimiter=delimiter).writerows(rows)
  return stream.getvalue()


@pytest.mark.parametrize(
  'name, data',
  [
    ('windows.csv', of_rows(';').encode('cp1252')),
    ('marked.csv', of_rows(',').encode('utf-8-sig')),
    ('unicode.txt.tsv', of_rows('\t').encode('utf-16')),
    ('titled.csv', ('Auszug vom März\n,,\n' + of_rows(',')).encode()),
    ('gaps.csv', of_rows(';', [*ROWS[:9], ('', '', ''), *ROWS[9:], ('',)]).encode()),
  ],
)
def test_tables_are_read_as_offices_save_them(tmp_path, name, data):
  (tmp_path / name).write_bytes(data)
  found, _ = begin(tmp_path, tmp_path / name)
  assert '30 texts of 2 classes' in found.said[0] and 'no text' not in '\n'.join(found.said)
  assert ' --inputs=NEW --text=Beschreibung --out=' in (tmp_path / 'mine.py').read_text()
  assert 'Beschreibung (--text' in '\n'.join(found.said)
  first = json.loads((tmp_path / 'mine.jsonl').read_text(encoding='utf-8').splitlines()[0])
  assert first == {'text': 'Paket 0 fehlt; bitte "prüfen", danke', 'label': 'Versand'}


def test_columns_of_the_usual_names_in_another_encoding_lose_no_row(tmp_path):
  rows = [('text', 'label'), *(row[1:] for row in ROWS[1:])]
  (tmp_path / 'windows.csv').write_bytes(of_rows(',', rows).encode('cp1252'))
  found, _ = begin(tmp_path, tmp_path / 'windows.csv')
  assert '30 texts of 2 classes' in found.said[0]


def test_of_a_workbook_the_longest_sheet_is_read(tmp_path):
  openpyxl = pytest.importorskip('openpyxl', reason="pip install 'tlx-jax[excel]'")
  book = openpyxl.Workbook()
  book.active.append(['Auswertung'])
  sheet = book.create_sheet('Daten')
  for row in ([], ['Quartal 1'], *ROWS):
    sheet.append(row)
  book.save(tmp_path / 'tickets.xlsx')
  found, _ = begin(tmp_path, tmp_path / 'tickets.xlsx')
  said = '\n'.join(found.said)
  assert '30 texts of 2 classes' in said and '1 rows above the names' in said
  assert 'the longest is read, Daten; not Sheet: save those as CSV' in said


def test_words_for_nothing_are_classes_in_workbooks_too(tmp_path):
  openpyxl = pytest.importorskip('openpyxl', reason="pip install 'tlx-jax[excel]'")
  book = openpyxl.Workbook()
  book.active.append(['text', 'label'])
  for i in range(30):
    book.active.append([f'the message {i}', ('None', 'NA', 3.0)[i % 3]])
  book.save(tmp_path / 'x.xlsx')
  found, _ = begin(tmp_path, tmp_path / 'x.xlsx')
  assert '30 texts of 3 classes' in found.said[0]
  lines = (tmp_path / 'mine.jsonl').read_text().splitlines()
  assert [json.loads(line)['label'] for line in lines[:3]] == ['None', 'NA', '3']


def test_names_out_of_data_are_no_formulas_in_workbooks(tmp_path):
  openpyxl = pytest.importorskip('openpyxl', reason="pip install 'tlx-jax[excel]'")
  table = pd.DataFrame({'id': ['=1+1', 'a\x01'], 'p(=2)': [0.5, np.nan], '=3': ['', '-4']})
  spreadsheet.write(table, tmp_path / 'x.xlsx')
  cells = [cell for row in openpyxl.load_workbook(tmp_path / 'x.xlsx').active for cell in row]
  assert 'f' not in {cell.data_type for cell in cells}
  read, _ = spreadsheet.read(tmp_path / 'x.xlsx')
  assert read.to_numpy().tolist() == [['=1+1', '0.5', ''], ['a\ufffd', '', '-4']]
  assert list(read.columns) == list(table.columns)


def test_what_is_guessed_of_a_table_is_said(tmp_path):
  """Letters of another encoding are one; a comma in a title is no delimiter."""
  rows = [(row[0], row[1].replace(';', ''), row[2]) for row in ROWS]
  (tmp_path / 'x.csv').write_bytes(('Tickets, alle\n' + of_rows(';', rows)).encode('cp1252'))
  found, _ = begin(tmp_path, tmp_path / 'x.csv')
  said = '\n'.join(found.said)
  assert '30 texts of 2 classes' in found.said[0] and 'the columns are Betreff, Besch' in said
  assert 'read as the Windows of western Europe (cp1252)' in said


def far_cell(file: pathlib.Path):
  openpyxl = pytest.importorskip('openpyxl', reason="pip install 'tlx-jax[excel]'")
  book = openpyxl.Workbook()
  for row in range(1, 3000):
    book.active.cell(row, 1, 'a')
  book.active.cell(1, 16384, 'x')
  book.save(file)


def unpacks_to_much(file: pathlib.Path):
  far_cell(file)
  with zipfile.ZipFile(file, 'a', zipfile.ZIP_DEFLATED) as archive:
    archive.writestr('xl/more.xml', bytes(2**27))


@pytest.mark.parametrize(
  'name, data, words',
  [
    (
      'x.csv.gz',
      gzip.compress(of_rows(',').encode(), mtime=0)[:90],
      'Cannot unpack .*: Compressed file',
    ),
    ('x.csv.gz', gzip.compress(b'text', mtime=0)[:10] + b'\xff' * 40, 'Cannot unpack .*: Error -3'),
    ('x.csv.gz', gzip.compress(bytes(2**27), mtime=0), 'unpacks to more than'),
    ('x.csv.gz', b'text', 'Cannot unpack .*: Not a gzipped file'),
    ('x.csv', 'text,label\none,two'.encode('utf-16-le'), 'zero bytes, as UTF-16 without its mark'),
    ('x.csv', b'text,label\n\xff\x81,b', 'neither UTF-8 nor cp1252'),
    (
      'x.csv',
      b'a,b\n' + b',' * 16000 + b'\n' + b'c\n' * 3000,
      '3,000 rows of up to 16,001 columns',
    ),
    ('x.csv', b',' * 20000 + b'a', '0 rows of up to 20,001 columns'),
    ('x.xlsx', far_cell, '2,998 rows of up to 16,384 columns'),
    ('x.xlsx', unpacks_to_much, 'more than 64 times'),
    ('x.json', b'[' * 200_000, 'is no COCO file'),
  ],
)
def test_tables_that_are_damaged_or_without_end_are_one_error(tmp_path, name, data, words):
  file = tmp_path / name
  data(file) if callable(data) else file.write_bytes(data)
  with pytest.raises(ValueError, match=words):
    begin(tmp_path, file)


def test_columns_that_may_be_the_class_are_named(tmp_path):
  rows = [
    ('body', 'size', 'colour'),
    *((row[1], 'SML'[i % 3], i % 2) for i, row in enumerate(ROWS)),
  ]
  (tmp_path / 'x.csv').write_text(of_rows(',', rows))
  with pytest.raises(
    ValueError, match=r'Say it by --label=COLUMN\. .* in size \(3\), colour \(2\)'
  ):
    begin(tmp_path, tmp_path / 'x.csv')


def test_images_that_nothing_reads_are_not_counted(photographs, tmp_path):
  """Nor are those that a table lists."""
  for i in range(40):
    (photographs / 'dogs' / f'IMG_{i:04}.nef').write_bytes(b'MM')
  found, _ = begin(tmp_path, photographs)
  assert '24 images of 2 classes' in found.said[0] and found.smallest == 6
  assert any(said.startswith('40 are NEF, which are left out') for said in found.said)
  files = [file.relative_to(photographs) for file in photographs.glob('*/IMG*')]
  rows = [f'{file},{file.parent}' for file in files]
  (photographs / 'labels.csv').write_text('\n'.join(['image,label', *rows]))
  found, _ = begin(tmp_path, photographs / 'labels.csv')
  assert '24 images of 2 classes' in found.said[0] and found.smallest == 6


def test_what_lies_beside_the_classes_is_said(photographs, tmp_path):
  """An empty folder and what a Mac packs are no classes, an image by itself is in none."""
  (photographs / 'New Folder').mkdir()
  (photographs / '__MACOSX').mkdir()
  Image.new('L', (4, 4)).save(photographs / '__MACOSX' / '0.png')
  Image.new('L', (4, 4)).save(photographs / 'alone.png')
  found, _ = begin(tmp_path, photographs)
  assert '24 images of 2 classes' in found.said[0]
  assert any(said.startswith('1 images lie in no class') and 'alone' in said for said in found.said)


def listed(folder: pathlib.Path, header: str, name='labels.csv', more=()) -> pathlib.Path:
  """A table of its images in it, by turns of two kinds of which no folder is one."""
  files = [file.relative_to(folder) for file in sorted(folder.glob('*/*.[jJ]*'))]
  rows = [f'{file},{"xy"[i % 2]},{i}' for i, file in enumerate(files, 1)]
  (folder / name).write_text('\n'.join([header, *rows, *more]))
  return folder / name


@pytest.mark.parametrize('header', ['file,kind,number', 'image,width,number', 'name,label,number'])
def test_of_classes_and_another_table_the_classes_are_taken(photographs, tmp_path, header):
  (photographs / 'notes.csv').write_text('text,label\nof a day,good\nof a night,bad')
  for _ in range(2):
    found, made = begin(tmp_path, photographs)
    assert '24 images of 2 classes (the smallest: Cats' in found.said[0]
    assert made.targets.mine.dataset == f'folder:{photographs}'
    assert any(said.startswith('notes.csv is not taken but the folders') for said in found.said)
    listed(photographs, header, 'notes.csv')


def test_of_classes_and_a_table_of_the_images_the_table_is_taken(photographs, tmp_path):
  listed(photographs, 'Image,label,number')
  found, made = begin(tmp_path, photographs)
  assert '24 images of 2 classes (the smallest: x, 12)' in found.said[0]
  assert made.targets.mine.dataset == f'csv:{photographs}/labels.csv'
  assert 'Of the folder the table labels.csv is taken.' in found.said


def test_a_table_of_images_stays_one_where_its_class_is_named(photographs, tmp_path):
  file = listed(photographs, 'image,label,number')
  found, made = begin(tmp_path, file, label='Label')
  assert found.kind == 'image' and made.targets.mine.dataset == f'csv:{file}'
  with pytest.raises(ValueError, match='rename the column number to label, and label to another'):
    begin(tmp_path, file, label='number')
  with pytest.raises(ValueError, match='--label=none: there is no such column; have image, label'):
    begin(tmp_path, file, label='none')


def test_why_a_table_of_images_is_refused_is_said(photographs, tmp_path):
  file = listed(photographs, 'image,label,number', more=['Cats/IMG_0001.JPG,x,9'])
  with pytest.raises(ValueError, match=r"line 26 of .* names the image 'Cats/IMG_0001.JPG', as do"):
    begin(tmp_path, file)
  elsewhere = tmp_path / 'labels.csv'
  elsewhere.write_bytes(file.read_bytes())
  with pytest.raises(ValueError, match=r'lists no image.*Cats/IMG_0000.jpeg is no file'):
    begin(tmp_path, elsewhere)


def test_names_of_image_files_are_no_texts(photographs, tmp_path):
  """Whether they are asked for, or longest, or the only ones."""
  file = listed(photographs, 'Foto,Kategorie,Nr')
  for asked in ({'text': ('Foto',), 'label': 'Kategorie'}, {'label': 'Kategorie'}, {}):
    with pytest.raises(
      ValueError, match=r'cells of Foto are files of images\. Want .* image and l'
    ):
      begin(tmp_path, file, **asked)
  for i, image in enumerate(photographs.glob('*/*.[jJ]*')):
    image.rename(image.with_name(f'of a day {i}.jpg'))
  file = listed(photographs, 'Foto,Kategorie,Nr')
  with pytest.raises(ValueError, match='cells of Foto are files of images'):
    begin(tmp_path, file)


def test_a_text_beside_an_image_of_it_is_one(photographs, tmp_path):
  file = photographs / 'shop.csv'
  rows = [f'Cats/{i}.jpg,a thing of number {i},{"xy"[i % 2]}' for i in range(20)]
  file.write_text('\n'.join(['file,what it is,kind', *rows]))
  with pytest.raises(ValueError, match='rename the column kind to label. For .* texts say --text'):
    begin(tmp_path, file, label='kind')
  found, _ = begin(tmp_path, file, text=('what it is',), label='kind')
  assert found.kind == 'text' and found.columns == ('what it is',)


def test_documents_of_several_pages_are_taken_by_the_first(tmp_path):
  pages = [Image.new('1', (8, 10), i % 2) for i in range(3)]
  for name in ('bill', 'form'):
    (tmp_path / 'scans' / name).mkdir(parents=True)
    for i in range(8):
      file = tmp_path / 'scans' / name / f'{i}.TIFF'
      pages[0].save(file, save_all=True, append_images=pages[1 : 1 + i % 3], compression='group4')
  found, _ = begin(tmp_path, tmp_path / 'scans')
  assert any(said.startswith('10 of these files have several pages') for said in found.said)
  for i in range(3):
    (tmp_path / 'scans' / 'bill' / f'{i}.pdf').write_bytes(b'%PDF-1.4')
  if importlib.util.find_spec('pypdfium2') is None:
    found, _ = begin(tmp_path, tmp_path / 'scans')
    assert any('3 are PDF, which are left out until you pip' in said for said in found.said)


def test_boxes_get_a_config_of_detection(tmp_path):
  images, boxes = [], []
  for i in range(30):
    Image.new('L', (40, 30), 8 * i).save(tmp_path / f'{i}.png')
    images.append({'id': i, 'file_name': f'{i}.png', 'width': 40, 'height': 30})
    boxes.append({'id': i, 'image_id': i, 'category_id': 1, 'bbox': [2, 2, 9, 9], 'area': 81})
  content = {'images': images, 'annotations': boxes, 'categories': [{'id': 1, 'name': 'cell'}]}
  (tmp_path / 'boxes.json').write_text(json.dumps(content))
  for path in (tmp_path / 'boxes.json', tmp_path):
    found, made = begin(tmp_path, path)
    assert found.task == 'detection' and made.targets.mine.dataset == f'coco:{tmp_path}/boxes.json'
    cohorts = cohorts_of(config.resolve(made))
    assert [cohort.cells[0].method for cohort in cohorts] == ['head', 'last_blocks', 'full']
    reused = [row['reused'] for row in cost.cost_table(config.resolve(made), cohorts)]
    assert [int(start) > 0 for start in reused] == [True, True, False]
    (tmp_path / 'mine.py').unlink()


def test_a_table_with_the_usual_columns_is_taken_as_it_is(tmp_path):
  lines = ['text,label', *(f'words {i},{"ab"[i % 2]}' for i in range(30))]
  (tmp_path / 'plain.csv').write_text('\n'.join(lines))
  found, made = begin(tmp_path, tmp_path / 'plain.csv')
  assert made.targets.mine.dataset == f'csv:{tmp_path}/plain.csv' and found.num_classes == 2
  assert not (tmp_path / 'mine.jsonl').exists()
  study = config.resolve(made)
  assert study['sources']['pretrained']['input']['length'] == 64


def test_a_score_gets_methods_that_answer_a_number(tmp_path):
  lines = ['sentence1,sentence2,score', *(f'words {i},more {i},{i / 10}' for i in range(60))]
  (tmp_path / 'pairs.csv').write_text('\n'.join(lines))
  _, made = begin(tmp_path, tmp_path / 'pairs.csv')
  assert made.targets.mine.task == 'regression'
  cohorts_of(config.resolve(made))


def test_questions_and_answers_are_learned_by_a_language_model(tmp_path):
  """Whatever the columns are called; rows that lack one of them are counted."""
  for name, columns in (('a', 'id,question,answer'), ('b', 'Description,Patient,Doctor')):
    lines = [columns, *(f'"{i}","what, {i}?",{"" if i < 3 else f"that {i}"}' for i in range(60))]
    (tmp_path / f'{name}.csv').write_text('\n'.join(lines))
    found, made = begin(tmp_path, tmp_path / f'{name}.csv')
    assert '3 of 60 rows lack one of them, and are left out.' in found.said
    assert made.targets.mine.task == 'dialogue' and made.baseline == 'as_it_is'
    line = (tmp_path / 'mine.jsonl').read_text().splitlines()[0]
    assert json.loads(line) == {'prompt': 'what, 3?', 'answer': 'that 3'}
    for path in tmp_path.glob('mine.*'):
      path.unlink()


def test_pairs_of_which_nothing_is_said_are_found_again(tmp_path):
  lines = ['text_a,text_b', *(f'words {i},{"" if i == 7 else "more"} {i}' for i in range(60))]
  (tmp_path / 'pairs.csv').write_text('\n'.join([*lines, 'alone, ']))
  found, made = begin(tmp_path, tmp_path / 'pairs.csv')
  assert made.targets.mine.task == 'retrieval' and made.baseline == 'as_it_is'
  assert any('1 lines are left out (skip_bad): line 62' in text for text in found.said)
  cohorts_of(config.resolve(made))


def test_dialogues_name_who_answers(tmp_path):
  turns = [{'role': 'patient', 'text': 'it hurts'}, {'role': 'doctor', 'text': 'where'}]
  lines = [json.dumps({'turns': turns}) for _ in range(50)]
  (tmp_path / 'talks.jsonl').write_text('\n'.join(lines))
  found, made = begin(tmp_path, tmp_path / 'talks.jsonl')
  assert 'Answers are what doctor says, of the roles patient, doctor' in '\n'.join(found.said)
  assert made.targets.mine.answers == 'doctor' and made.targets.mine.task == 'dialogue'
  assert made.baseline == 'as_it_is' and made.sources.pretrained.weights == 'smollm2_135m.chat'


def small(root: pathlib.Path):
  for name in ('cats', 'dogs'):
    (root / name).mkdir(parents=True)
    for i in range(2 if name == 'dogs' else 9):
      Image.new('RGB', (4, 4), (i, i, i)).save(root / name / f'{i}.png')


def three(root: pathlib.Path):
  """Of which one is for test and none for validation."""
  small(root)
  Image.new('RGB', (4, 4), (9, 9, 9)).save(root / 'dogs' / '2.png')


def raw(root: pathlib.Path):
  """A class as a camera leaves it."""
  small(root)
  for i in range(12):
    (root / 'dogs' / f'{i}.NEF').write_bytes(b'MM')
    (root / 'dogs' / f'{i}.png').unlink(missing_ok=True)


def flat(root: pathlib.Path):
  root.mkdir()
  Image.new('RGB', (4, 4)).save(root / '0.png')


def parts(root: pathlib.Path):
  for name in ('train', 'test'):
    (root / name).mkdir(parents=True)
    Image.new('RGB', (4, 4)).save(root / name / '0.png')


def other_json(root: pathlib.Path):
  root.write_text(json.dumps({'images': [1, 2]}))


def two_rows(root: pathlib.Path):
  root.write_text('{"text": "yes", "label": "a"}\n{"text": "no", "label": "b"}')


def rare(root: pathlib.Path):
  """Pairs, and texts in groups, of which some class has three."""
  columns = {'pairs.csv': 'premise,hypothesis,label', 'groups.csv': 'text,patient,label'}[root.name]
  rows = [f'it is {i},that of {i},{"b" if i < 3 else "a"}' for i in range(20)]
  root.write_text('\n'.join([columns, *rows]))


def missing(root: pathlib.Path):
  del root


@pytest.mark.parametrize(
  'make, name, said',
  [
    (small, 'x', r'too small to be divided .*dogs \(2\)\. Want 5 examples'),
    (three, 'x', r'too small to be divided .*dogs \(3\)\. Want 5 examples'),
    (raw, 'x', r'no image of dogs that can be read: 12 are NEF, which are left out until you conv'),
    (flat, 'x', 'holds 1 images and no folder for each class'),
    (parts, 'x', 'divided into test, train, and none of these holds a folder for each class'),
    (other_json, 'x.json', 'is no COCO file'),
    (other_json, 'x.pdf', r'documents of one \(\.pdf, \.tif\)'),
    (missing, 'x', 'There is nothing at'),
    (two_rows, 'x.jsonl', 'the column label has no two classes of 5 rows or more'),
    (rare, 'pairs.csv', r'too small to be divided .*b \(3\)'),
    (rare, 'groups.csv', r'too small to be divided .*b \(3\)'),
  ],
)
def test_what_no_study_takes_is_told(tmp_path, make, name, said):
  make(tmp_path / name)
  with pytest.raises(ValueError, match=said):
    start.find(tmp_path / name, start.Asked(), tmp_path / 'mine.jsonl')


@pytest.mark.parametrize('name', ['2024.csv', 'class.csv', 'items.csv'])
def test_a_file_of_any_name_gets_a_config_that_loads(tmp_path, name):
  rows = [f'the message of {i},{"yes" if i % 2 else "no"}' for i in range(20)]
  (tmp_path / name).write_text('\n'.join(['text,label', *rows]))
  done = command(tmp_path, tmp_path / name)
  assert done.returncode == 0, done.stderr
  made = load(tmp_path / name.replace('.csv', '.py'))
  assert [target.dataset for target in made.targets.values()] == [f'csv:{tmp_path / name}']


def test_sizes_of_texts_with_several_labels_each_count_the_texts(tmp_path):
  """None of their labels is a class that examples are counted by."""
  labels = [['urgent'], ['urgent', 'billing'], ['billing'], []]
  rows = [json.dumps({'text': f'message {i}', 'labels': labels[i % 4]}) for i in range(200)]
  (tmp_path / 'several.jsonl').write_text('\n'.join(rows))
  found, made = begin(tmp_path, tmp_path / 'several.jsonl')
  assert found.task == 'multi_label' and found.smallest == 109  # 200 less 60, less 31 of the rest
  assert made.shots == (20,)


def test_names_out_of_data_are_never_code(tmp_path):
  """The smallest class is named in the docstring, which its name does not end."""
  rows = [{'text': f'text {i}', 'label': 'ab'[i % 2]} for i in range(40)]
  name = 'z"""\n1 / 0\n"""\\N{'
  rows += [{'text': f'more {i}', 'label': name} for i in range(10)]
  path = tmp_path / 'tickets.jsonl'
  path.write_text('\n'.join(map(json.dumps, rows)))
  found = start.find(path, start.Asked(), tmp_path / 'made.jsonl')
  assert name in found.said[0]
  made: dict = {}
  exec(start.written(found, start.Asked(), 'a"""\\b'), made)
  assert made['get_config']().targets
