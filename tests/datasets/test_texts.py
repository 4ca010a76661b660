"""Texts and pairs of texts in JSON lines and tables."""

import gzip
import json

import numpy as np
import pytest

from tlx import datasets
from tlx.datasets import _lines
from tlx.datasets._lines import _digest

QUOTE = '"'


@pytest.fixture
def write(tmp_path):
  """write(name, text or bytes) -> the path; a name that ends in .gz is packed."""

  def to(name, data):
    data = data if isinstance(data, bytes) else data.encode()
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(gzip.compress(data) if name.endswith('.gz') else data)
    return path

  return to


def _json(records):
  return ''.join(json.dumps(record) + '\n' for record in records)


def _texts(count, label=lambda i: 'ab'[i % 2], word='text', **more):
  return [{'text': f'{word} {i}', 'label': label(i), **more} for i in range(count)]


def test_folds_of_texts_test_each_once(write):
  name = f'jsonl:{write("all.jsonl", _json(_texts(20)))}'
  parts = [datasets.load_text(name, fold=fold, folds=4).test.ids for fold in (1, 2, 3, 4)]
  assert [len(ids) for ids in parts] == [5, 5, 5, 5]  # of 10 of each class
  assert len(set().union(*parts)) == 20


def test_a_file_is_divided_by_the_hash_of_its_lines(write):
  path = write('all.jsonl', _json(_texts(20)))
  name = f'jsonl:{path}'
  assert datasets.kind(name) == 'text'
  assert datasets.info(name) == (('a', 'b'), {'all': 20})
  data = datasets.load_text(name, val_fraction=0.3, test_fraction=0.3)
  assert [np.bincount(split.labels).tolist() for split in data[:3]] == [[5, 5], [2, 2], [3, 3]]
  assert data.notes == () and data.class_names == ('a', 'b')
  for split in data[:3]:
    assert split.inputs.dtype == object and split.labels.dtype == np.int32
    for i, text, label in zip(split.ids, split.inputs, split.labels):
      assert text == f'text {int(i) - 1}' and label == (int(i) - 1) % 2
  more = datasets.load_text(f'jsonl:{write("all.jsonl", _json(_texts(22)))}', 0.3, 0.3)
  assert len(set(data.test.ids) - set(more.test.ids)) <= 1  # new lines move few


def test_jsonl_csv_and_packed_give_the_same_bytes(write):
  records = _texts(20)
  table = 'label;text\n' + ''.join(f'{r["label"]};"{r["text"]}"\n' for r in records)
  paths = {
    'jsonl': [write('a.jsonl', _json(records)), write('b.jsonl.gz', '\ufeff' + _json(records))],
    'csv': [write('a.csv', table), write('b.csv.gz', '\ufeff' + table)],
  }
  for path in paths['csv']:
    assert datasets.kind(f'csv:{path}') == 'text'
  jsonl, csv = (
    [datasets.load_text(f'{kind}:{path}') for path in of_kind] for kind, of_kind in paths.items()
  )
  assert jsonl[0].sha256 == jsonl[1].sha256 and csv[0].sha256 == csv[1].sha256
  by_text = [
    {text: label for split in data[:3] for text, label in zip(split.inputs, split.labels)}
    for data in (jsonl[0], csv[0])
  ]
  assert by_text[0] == by_text[1] and len(by_text[0]) == 20
  assert datasets.load_text(
    f'jsonl:{write("c.jsonl", _json(_texts(20, word="Text")))}'
  ).sha256 not in (
    jsonl[0].sha256,
    csv[0].sha256,
  )


@pytest.mark.parametrize(
  'kind, ending', [('jsonl', '.jsonl'), ('jsonl', '.jsonl.gz'), ('csv', '.tsv')]
)
def test_a_folder_of_parts(write, kind, ending):
  for name, count in (('Train', 8), ('dev', 4), ('test', 6)):
    records = _texts(count, word=name)
    table = 'sentence\tlabel\n' + ''.join(f'{r["text"]}\t{r["label"]}\n' for r in records)
    path = write(f'parts/{name}{ending}', table if kind == 'csv' else _json(records))
  write('parts/README.md', 'not read')
  name = f'{kind}:{path.parent}'
  assert datasets.kind(name) == 'text'
  assert datasets.info(name).num_examples == {'train': 8, 'val': 4, 'test': 6}
  data = datasets.load_text(name)
  assert data.val.inputs.tolist() == [f'dev {i}' for i in range(4)]
  first = 1 if kind == 'jsonl' else 2  # the lines as an editor counts them
  assert data.test.ids[0] == f'test/{first:06d}' and data.val.ids[0] == f'val/{first:06d}'


def test_the_name_of_a_file_goes_before_its_column(write):
  for name in ('train', 'test'):
    path = write(f'parts/{name}.jsonl', _json(_texts(6, word=name, split='dev')))
  assert datasets.info(f'jsonl:{path.parent}').num_examples == {'train': 6, 'test': 6}


def test_a_column_divides_and_another_groups(write):
  parts = ('train', 'train', 'Validation', 'test')
  records = [
    {'utterance': f't{i}', 'intent': i // 4 % 2, 'split': parts[i % 4], 'subject': f's{i % 3}'}
    for i in range(16)
  ]
  name = f'jsonl:{write("x.jsonl", _json(records))}'
  assert datasets.info(name) == (('0', '1'), {'train': 8, 'val': 4, 'test': 4})
  data = datasets.load_text(name)
  assert set(data.train.groups) == {'s0', 's1', 's2'}
  assert (
    data.notes[0].startswith('The published parts share groups')
    or 'Groups: 3 in training' in data.notes[0]
  )
  assert any('test texts are of such a group' in note for note in data.notes)


def test_groups_stay_whole(write):
  records = [{'text': f't{i}', 'label': 'ab'[i % 2], 'group': f'g{i // 4:02d}'} for i in range(80)]
  path = write('x.jsonl', _json(records))
  data = datasets.load_text(f'jsonl:{path}')
  of_part = [set(split.groups) for split in data[:3]]
  assert not of_part[0] & of_part[1] and not of_part[0] & of_part[2] and not of_part[1] & of_part[2]
  assert data.notes == (
    f'Groups: {len(of_part[0])} in training, {len(of_part[1])} in validation, '
    f'{len(of_part[2])} in test; none is in two parts.',
  )
  single = datasets.load_text(f'jsonl:{path}', group=r'(.*)')
  assert single.train.groups == single.train.ids
  renamed = write('y.jsonl', path.read_text().replace('"group"', '"Speaker"'))
  assert datasets.load_text(f'jsonl:{renamed}', group='speaker').train.groups == data.train.groups
  with pytest.raises(ValueError, match="group 'author' is none of text, label, group"):
    datasets.load_text(f'jsonl:{path}', group='author')


@pytest.mark.parametrize(
  'first, second', [('text_a', 'text_b'), ('Premise', 'hypothesis'), ('sentence1', 'sentence2')]
)
def test_pairs(write, first, second):
  records = [{second: f'b{i}', 'label': 'xy'[i % 2], first: f'a{i}'} for i in range(20)]
  data = datasets.load_text(f'jsonl:{write("x.jsonl", _json(records))}')
  number = int(data.train.ids[0]) - 1
  assert data.train.inputs[0] == (f'a{number}', f'b{number}')
  assert data.train.inputs.shape == (len(data.train.ids),)
  assert _digest(('a', 'bc')) != _digest(('ab', 'c'))
  swapped = [
    {first: record[second], second: record[first], 'label': record['label']} for record in records
  ]
  other = datasets.load_text(f'jsonl:{write("y.jsonl", _json(swapped))}')
  assert other.sha256 != data.sha256
  assert not set(other.train.digests.tolist()) & set(data.train.digests.tolist())


def test_classes_stand_in_natural_order(write):
  path = write('x.jsonl', _json(_texts(22, label=lambda i: i % 11)))
  assert datasets.info(f'jsonl:{path}').class_names == tuple(map(str, range(11)))


def test_a_text_is_kept_as_it_is_written(write):
  kept = [
    ' spaces ',
    'n/a',
    'null',
    'Zürich 東京 \N{GRINNING FACE}',
    'two\nlines',
    '"quoted", with comma',
  ]
  table = 'label,text\n' + ''.join(
    f'{"ab"[i % 2]},"{text.replace(QUOTE, QUOTE * 2)}"\n' for i, text in enumerate(kept)
  )
  records = _json([{'text': text, 'label': 'ab'[i % 2]} for i, text in enumerate(kept)])
  for name in (f'csv:{write("x.csv", table)}', f'jsonl:{write("x.jsonl", records)}'):
    data = datasets.load_text(name, 0.4, 0.4)
    assert sorted(text for split in data[:3] for text in split.inputs) == sorted(kept)


BAD = [
  (b'{"text": "a", "label": \n', 'line 2 of .* has no JSON: Expecting value'),
  (b'["a", "b"]\n', 'line 2 of .* has a JSON list, wanted an object'),
  (b'null\n', 'line 2 of .* has a JSON NoneType, wanted an object'),
  (b'{"text": " ", "label": "a"}\n', 'line 2 of .* has an empty text'),
  (b'{"text": null, "label": "a"}\n', 'line 2 of .* has an empty text'),
  (b'{"label": "a"}\n', 'line 2 of .* has an empty text'),
  (b'{"text": 7, "label": "a"}\n', 'line 2 of .* has a int as its text, wanted text'),
  (b'{"text": "x"}\n', 'line 2 of .* has an empty label'),
  (b'{"text": "x", "label": NaN}\n', 'line 2 of .* has an empty label'),
  (
    b'{"text": "x", "label": ["a"]}\n',
    'line 2 of .* has a list as its label, wanted text or a number',
  ),
  (b'{"text": "caf\xe9", "label": "a"}\n', 'line 2 of .* has bytes that are not UTF-8'),
  (b'{"text": "\\ud83d", "label": "a"}\n', 'line 2 of .* has bytes that are not UTF-8 in its text'),
]


@pytest.mark.parametrize('line, message', BAD)
def test_a_bad_line_is_named_or_left_out(write, line, message):
  good = _json(_texts(10)).encode()
  first, rest = good.split(b'\n', 1)
  path = write('x.jsonl', first + b'\n' + line + b'\n' + rest)  # and an empty line
  for function in (datasets.info, datasets.load_text):
    with pytest.raises(ValueError, match=f'^1 lines of .* cannot be used:\n  {message}'):
      function(f'jsonl:{path}')
  assert datasets.info(f'jsonl:{path}', skip_bad=True).num_examples == {'all': 10}
  data = datasets.load_text(f'jsonl:{path}', skip_bad=True, val_fraction=0.4, test_fraction=0.4)
  assert data.notes[0].startswith(f'1 lines are left out (skip_bad): line 2 of {path} has ')
  assert {i for split in data[:3] for i in split.ids} == {f'{i:06d}' for i in (1, *range(4, 13))}


@pytest.mark.parametrize(
  'line, message',
  [
    (b'a,b,c\n', 'line 2 of .* has 3 fields, wanted 2 as in the first line'),
    (b'a,\n', 'line 2 of .* has an empty text'),
    (b' ,x\n', 'line 2 of .* has an empty label'),
    (b'n/a,x\n', 'line 2 of .* has an empty label'),
    (b'a,caf\xe9\n', 'line 2 of .* has bytes that are not UTF-8 in its text'),
    (b'\xe9,x\n', 'line 2 of .* has bytes that are not UTF-8 in its label'),
    (b'a,"x"y\n', 'line 2 of .* has broken quotes or fields'),
  ],
)
def test_a_bad_row_is_named_or_left_out(write, line, message):
  rows = ''.join(f'{"ab"[i % 2]},text {i}\n' for i in range(10)).encode()
  path = write('x.csv', b'label,text\n' + line + rows)
  with pytest.raises(ValueError, match=f'^1 lines of .* cannot be used:\n  {message}'):
    datasets.info(f'csv:{path}')
  assert datasets.info(f'csv:{path}', skip_bad=True) == (('a', 'b'), {'all': 10})


def test_a_quote_that_would_swallow_rows_of_a_tsv(write):
  path = write('x.tsv', 'text\tlabel\n"so\ta\nx\tb\nit is"\ta\ny\tb\n')
  with pytest.raises(ValueError, match='line 4 of .* has a quote that is open since line 2'):
    datasets.info(f'csv:{path}')


def test_all_bad_lines_of_all_parts_are_one_error(write):
  write('parts/train.jsonl', _json(_texts(4)) + '{}\n' * 15)
  path = write('parts/test.jsonl', '?\n' * 15)
  with pytest.raises(ValueError) as error:
    datasets.info(f'jsonl:{path.parent}')
  lines = str(error.value).split('\n')
  assert lines[0] == f'30 lines of {path.parent} cannot be used:'
  assert lines[-2:] == [
    '  and 10 more',
    'Repair or remove them, or leave them out: skip_bad = True in the target.',
  ]
  assert len(lines) == 23 and lines[1].startswith(f'  line 5 of {path.parent}/train.jsonl')
  assert lines[16].startswith(f'  line 1 of {path} has no JSON')


def test_copies_across_parts(write):
  train = [('same', 'a'), ('other label', 'a'), ('stem', 'b'), ('t', 'a'), ('u', 'b')]
  test = [('same', 'a'), ('Other  label ', 'b'), ('stems', 'b')]
  write(
    'p/val.jsonl',
    _json([{'text': text, 'label': label} for text, label in [('v', 'a'), ('w', 'b')]]),
  )
  write('p/train.jsonl', _json([{'text': text, 'label': label} for text, label in train]))
  path = write('p/test.jsonl', _json([{'text': text, 'label': label} for text, label in test]))
  data = datasets.load_text(f'jsonl:{path.parent}')
  assert data.notes == (
    '2 of 3 test texts are also in training, but for case and spaces, 1 of them under another '
    'label: '
    'test/000001 is train/000001, test/000002 is train/000002. '
    "duplicates = 'drop' leaves them out of training.",
  )
  dropped = datasets.load_text(f'jsonl:{path.parent}', duplicates='drop')
  assert dropped.train.inputs.tolist() == ['stem', 't', 'u']
  assert dropped.notes[0].endswith("duplicates = 'drop' left 2 texts out of training.")
  kept = datasets.keep_out(data, [data])
  assert kept.train.inputs.tolist() == ['stem', 't', 'u']
  assert kept.notes[-1].startswith("2 of the source's 5 training texts were left out")
  with pytest.raises(ValueError, match='trained on 2 of the 3 test texts of the target'):
    datasets.overlap(data.train, data)
  assert datasets.overlap(dropped.train, data)[0].endswith('none of its validation and test texts.')


def test_capped_validation_and_subsets(write):
  data = datasets.load_text(f'jsonl:{write("x.jsonl", _json(_texts(40)))}', val_examples=4)
  assert len(data.val.ids) == 4
  assert data.notes == ('Validation uses 4 of its 6 texts (val_examples), of each class alike.',)
  rows = datasets.subsets(data.train.labels, data.train.ids, [2], seed=0)[2]
  assert data.train.take(rows).inputs.shape == (4,)


@pytest.mark.parametrize('kind, name, text, message', [
  ('jsonl', 'x.jsonl', '\n', 'holds no text'),
  ('csv', 'x.csv', '\rtext,label\na,b\n', 'wanted one for the image, .* or one for a text, '
                                               '.* a first line of column names'),
  ('jsonl', 'x.jsonl', '{}\n', 'has the columns ; wanted one for the text'),
  ('jsonl', 'x.jsonl', '{"words": "x", "label": 1}\n', 'has the columns words, label; wanted one '
                                                       'for the text, named text, sentence, .* or '
                                                       'two for a pair'),
  ('jsonl', 'x.jsonl', '{"text": "x", "y": 1}\n', 'has the columns text, y; wanted one for the '
                                                  'label, named label, intent'),
  ('jsonl', 'x.jsonl', '{"review": "x", "comment": "", "label": 1}\n', "has the columns review "
                                                                       "and comment. Rename the "
                                                                       "one that is meant to "
                                                                       "'text'"),
  ('jsonl', 'x.jsonl', '{"text": "x", "topic": 1, "class": 2}\n', "has the columns class and "
                                                                  "topic. Rename the one that is "
                                                                  "meant to 'label'"),
  ('jsonl', 'x.jsonl', '{"text": "x", "label": 1, "split": "holdout"}\n', "line 1 of .* has the "
                                                                          "split 'holdout'; have "
                                                                          "train"),
  ('jsonl', 'x.jsonl', '{"text": "x", "label": 1, "split": "train"}\n{"text": "y", "label": 2, '
                       '"split": "test"}\n', 'no training example of 2'),
  ('jsonl', 'x.jsonl', '{"text": "x", "label": 1}\n{"text": "y", "label": 1}\n', 'has the classes '
                                                                                 '1; there is '
                                                                                 'nothing to tell '
                                                                                 'apart'),
  ('csv', 'x.csv', 'text,label\n', 'holds no text'),
  ('csv', 'x.csv', '"' + 'a' * 200_000, 'Cannot read .*x.csv: field larger .* Want CSV in UTF-8'),
  ('csv', 'x.csv', 'text,y\na,b\n', 'has the columns text, y; wanted one for the label'),
  ('csv', 'x.csv', 'image,text,label\na,b,c\n', r'columns of images \(image\) and of texts '
                                                r'\(text\)'),
])  # fmt: skip
def test_wrong_files(write, kind, name, text, message):
  path = write(name, text)
  for function in (datasets.info, datasets.load_text):
    with pytest.raises(ValueError, match=message):
      function(f'{kind}:{path}')


@pytest.mark.parametrize('files, message', [
  (('test.jsonl',), r'holds test.jsonl. Want train.jsonl \(or .gz\)'),
  (('train.jsonl', 'train.jsonl.gz'), 'holds train.jsonl and train.jsonl.gz, both of train. Keep '
                                      'one'),
  (('train.jsonl', 'dev.jsonl', 'val.jsonl'), 'holds dev.jsonl and val.jsonl, both of val'),
  (('train.jsonl', 'extra.jsonl'), 'holds extra.jsonl beside train.jsonl'),
  (('README.md',), 'holds no jsonl file'),
])  # fmt: skip
def test_wrong_folders(write, files, message):
  for name in files:
    path = write(f'parts/{name}', _json(_texts(4)))
  with pytest.raises(ValueError, match=message):
    datasets.info(f'jsonl:{path.parent}')


def test_a_broken_archive(write):
  path = write('x.jsonl.gz', _json(_texts(400)))
  whole = path.read_bytes()
  for data in (whole[:-20], b'no archive', whole[:30] + b'\xff' * 30 + whole[60:]):
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r'Cannot unpack .*x.jsonl.gz: .* Copy it anew'):
      datasets.info(f'jsonl:{path}')
  path = write('x.csv.gz', 'text,label\n')
  path.write_bytes(b'no archive')
  with pytest.raises(ValueError, match=r'Cannot unpack .*x.csv.gz: .* Copy it anew'):
    datasets.kind(f'csv:{path}')


def test_an_archive_that_unpacks_to_far_more_is_refused(write, monkeypatch):
  """A few bytes may stand for any number: 64 MiB and 64 times the file are read, here 0 and 64."""
  monkeypatch.setattr(_lines, '_FREE_BYTES', 0)
  path = write('x.jsonl.gz', _json(_texts(4)) + ' ' * 10**6)
  with pytest.raises(ValueError, match=r'x.jsonl.gz unpacks to more than [0-9,]+ bytes; refused'):
    datasets.info(f'jsonl:{path}')
  write('x.jsonl.gz', _json(_texts(4)))
  assert sum(datasets.info(f'jsonl:{path}').num_examples.values()) == 4


def test_the_other_kind_of_data_is_refused(write):
  name = f'jsonl:{write("x.jsonl", _json(_texts(10)))}'
  with pytest.raises(ValueError, match='has texts, wanted images. .*datasets.load_text'):
    datasets.load(name, 8, 1)
  with pytest.raises(ValueError, match="has texts, and shift 'invert' changes images"):
    datasets.info(name, shift='invert')
  with pytest.raises(ValueError, match=r'uci_digits has images, wanted texts. .*datasets.load\)'):
    datasets.load_text('uci_digits')
  assert datasets.kind('uci_digits') == 'image'
  table = f'csv:{write("labels.csv", "image,label")}'
  assert datasets.kind(table) == 'image'
  with pytest.raises(
    ValueError, match=r'wanted one for the image, named image, .* or one for a text'
  ):
    datasets.info(f'csv:{write("empty.csv", "")}')
  for missing in ('csv:/nowhere.csv', 'jsonl:/nowhere.jsonl'):
    with pytest.raises(ValueError, match=r'wants a file, and /nowhere\.(csv|jsonl) is none'):
      datasets.load_text(missing)
