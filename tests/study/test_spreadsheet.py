"""New texts out of tables as people keep them."""

import csv

import pytest

from tlx.study import spreadsheet

TABLE = 'Auszug;;\n;;\nNr;Betreff;Beschreibung\n1;Größe;"zu; klein"\n;;\n2;;Käse fehlt\n3;;\n'


@pytest.fixture
def table(tmp_path):
  (tmp_path / 'neu.csv').write_bytes(TABLE.encode('cp1252'))
  return tmp_path / 'neu.csv'


def test_new_texts_are_made_of_the_columns_that_are_named(table):
  new = spreadsheet.unlabelled(table, ('betreff', 'Beschreibung'))
  assert new.kind == 'text' and new.ids == ('4', '6', '7')  # as a spreadsheet counts its rows
  assert list(new.records[:2]) == ['Größe\nzu; klein', 'Käse fehlt']
  assert isinstance(new.records[2], ValueError)
  assert len(new.notes) == 2 and 'cp1252' in ' '.join(new.notes)
  assert csv.field_size_limit() == 131_072  # as Python has it


def test_what_cannot_be_told_is_asked_for(table, tmp_path):
  with pytest.raises(ValueError, match=r'has the columns Nr, Betreff, Beschreibung: which has the'):
    spreadsheet.unlabelled(table)
  with pytest.raises(ValueError, match=r'--text=Text: there is no such column; have Nr, Betreff'):
    spreadsheet.unlabelled(table, ('Text',))
  table.write_text(TABLE.partition(';;\n;;\n')[2])
  with pytest.raises(ValueError, match=r'Or say it by --text=COLUMN'):
    spreadsheet.unlabelled(table)
  table.write_bytes(b'\xff\xfe' + 'text,Nr\n'.encode('utf-16-le'))
  with pytest.raises(ValueError, match='holds no text'):
    spreadsheet.unlabelled(table)
  with pytest.raises(ValueError, match=r'--text=x names columns of a table'):
    spreadsheet.unlabelled(tmp_path, ('x',))


def test_tables_that_cannot_be_read_are_told(tmp_path):
  for name, data, words in (
    ('empty.csv', b'\n\n', 'holds no row'),
    ('twice.csv', b'a;a\n1;2\n', 'several columns a'),
    ('broken.csv.gz', b'no gzip', 'Cannot unpack'),
  ):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=words):
      spreadsheet.read(tmp_path / name)


def test_of_lines_of_json_the_broken_ones_are_named(tmp_path):
  """Under the numbers of lines, as tlx/datasets has them."""
  file = tmp_path / 'new.jsonl'
  lines = ['{"body": "Größe", "n": 2.0}', '', '{"body": "cut', '{"body": null, "at": [1]}', '[1]']
  file.write_text('\n'.join(lines), encoding='utf-8')
  table, said = spreadsheet.read(file)
  assert table.to_dict('index') == {
    1: {'body': 'Größe', 'n': '2', 'at': ''},
    3: {'body': '', 'n': '', 'at': ''},
    4: {'body': '', 'n': '', 'at': '[1]'},
    5: {'body': '', 'n': '', 'at': ''},
  }
  assert f'2 lines cannot be read: line 3 of {file} has no JSON: ' in said[0]
  assert f'line 5 of {file} has a JSON list, wanted an object' in said[0]
  new = spreadsheet.unlabelled(file, ('body',))
  assert new.ids == ('1', '3', '4', '5') and new.records[0] == 'Größe' and new.notes == said
  file.write_text('[1]')
  with pytest.raises(ValueError, match=r'no object of JSON. line 1 of .* has a JSON list'):
    spreadsheet.read(file)
