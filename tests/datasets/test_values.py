"""Texts with a number or with any number of labels each."""

import json

import numpy as np
import pytest

from tlx import datasets


def write(path, rows, header=()):
  if header:
    path.write_text('\n'.join([','.join(header), *(','.join(row) for row in rows)]) + '\n')
  else:
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return path


def test_scores_are_numbers_and_one_stratum(tmp_path):
  rows = [{'sentence1': f'a {i}', 'sentence2': 'b', 'score': i / 4} for i in range(20)]
  name = f'jsonl:{write(tmp_path / "pairs.jsonl", rows)}'
  assert datasets.info(name) == (('all',), {'all': 20}) and datasets.is_valued(name)
  data = datasets.load_text(name)
  assert data.train.labels.tolist() == [0] * len(data.train.ids)
  for split in (data.train, data.val, data.test):
    for text, value in zip(split.inputs, split.targets):
      assert value == np.float32(int(text[0].split()[1]) / 4)
  assert data.train.take(np.array([2])).targets.shape == (1,)
  subsets = datasets.subsets(data.train.labels, data.train.ids, (3, 5), 0)
  assert len(subsets[3]) == 3 and subsets[5][:3].tolist() == subsets[3].tolist()


def test_a_changed_score_changes_the_digest(tmp_path):
  def digest(last):
    rows = [[f'text {i}', str(i)] for i in range(20)] + [['last', last]]
    path = write(tmp_path / 'scores.csv', rows, ('text', 'score'))
    return datasets.load_text(f'csv:{path}').sha256

  assert digest('7.5') == digest('7.50') != digest('7.25')


@pytest.mark.parametrize('kind', ['jsonl', 'csv'])
def test_labels_are_a_table_of_0_and_1(tmp_path, kind):
  labels = [['b', 'a'], [], ['a'], ['c', 'a', 'c']] * 5
  path = tmp_path / f'topics.{kind}'
  if kind == 'jsonl':
    write(path, [{'text': f't{i}', 'labels': names} for i, names in enumerate(labels)])
  else:
    write(path, [[f't{i}', '|'.join(names)] for i, names in enumerate(labels)], ('text', 'labels'))
  data = datasets.load_text(f'{kind}:{path}')
  assert data.class_names == ('a', 'b', 'c')
  wanted = {0: [1, 1, 0], 1: [0, 0, 0], 2: [1, 0, 0], 3: [1, 0, 1]}
  for split in (data.train, data.val, data.test):
    for text, value in zip(split.inputs, split.targets):
      assert value.tolist() == wanted[int(text[1:]) % 4]
    assert not split.labels.any()


@pytest.mark.parametrize(
  'rows, words',
  [
    ([{'text': 'a', 'score': 'x'}], "line 1 .* has the score 'x', wanted a number"),
    ([{'text': 'a', 'score': 1}, {'text': 'b'}], 'line 2 .* has the score None'),
    ([{'text': 'a', 'score': True}], 'the score True'),
    ([{'text': 'a', 'labels': 3}], 'the labels 3, wanted a list'),
    ([{'text': 'a', 'labels': [['b']]}], 'wanted a list such as'),
    ([{'text': 'a', 'labels': ['b'], 'score': 1}], 'columns score and labels. Rename'),
    ([{'text': 'a', 'mark': 1}], 'wanted one for the label.*a number.*several labels'),
  ],
)
def test_what_cannot_be_a_value_is_named(tmp_path, rows, words):
  name = f'jsonl:{write(tmp_path / "data.jsonl", rows)}'
  with pytest.raises(ValueError, match=words):
    datasets.load_text(name)


def test_a_label_comes_first_and_two_classes_are_still_wanted(tmp_path):
  rows = [{'text': f't{i}', 'label': 'ab'[i % 2], 'score': i} for i in range(20)]
  data = datasets.load_text(f'jsonl:{write(tmp_path / "both.jsonl", rows)}')
  assert data.class_names == ('a', 'b') and data.train.values is None
  rows = [{'text': f't{i}', 'label': 'all'} for i in range(20)]
  with pytest.raises(ValueError, match='nothing to tell apart'):
    datasets.load_text(f'jsonl:{write(tmp_path / "one.jsonl", rows)}')


def test_a_label_without_a_training_example_is_an_error(tmp_path):
  rows = [{'text': f't{i}', 'labels': ['a'], 'split': 'train'} for i in range(5)]
  rows += [{'text': 'last', 'labels': ['b'], 'split': 'test'}]
  with pytest.raises(ValueError, match='no training example of b'):
    datasets.load_text(f'jsonl:{write(tmp_path / "split.jsonl", rows)}')
