"""The form of texts, with a tokenizer made small here."""

import jax
import numpy as np
import pytest
from tokenizers import Tokenizer, models

from tlx import datasets
from tlx.backbones import bert
from tlx.inputs import _tokenizers, text
from tlx.inputs._tokenizers import read
from tlx.types import Batch

WORDS = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'a', 'b', 'c']


@pytest.fixture
def tokenizer(tmp_path):
  (tmp_path / 'vocab.txt').write_text('\n'.join(WORDS))
  return read(tmp_path / 'vocab.txt')


def test_a_form_is_made_once_and_says_what_is_stored():
  form = text.form(32, 'a.json')
  assert (
    form is text.form(32, 'a.json')
    and hash(form) == hash(text.form(32, 'a.json'))
    and form != text.form(64, 'a.json')
  )
  assert form.spec == {name: jax.ShapeDtypeStruct((32,), np.int32) for name in ('ids', 'mask')}
  assert text.form(32, 'b.json').name != form.name
  with pytest.raises(ValueError, match='length is 0, wanted 1 token or more'):
    text.form(0, 'a.json')


def test_what_is_stored_has_the_shapes_of_the_form(tokenizer):
  leaves = text.tokenized(['a', 'a b c'], tokenizer, 64)
  form = text.form(16, 'a.json')
  assert (
    jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), leaves) == form.spec
  )
  assert leaves['ids'][1].tolist() == [2, 5, 6, 7, 3] + [0] * 11
  assert leaves['mask'].sum(1).tolist() == [3, 5]
  np.testing.assert_array_equal(form.enter(leaves)['ids'], leaves['ids'])
  for name, leaf in text.tokenized(['a', 'a b c'], tokenizer, 64).items():
    np.testing.assert_array_equal(leaf, leaves[name])  # the same bytes again


def test_texts_are_not_augmented(tokenizer):
  form = text.form(16, 'a.json')
  batch = Batch(text.tokenized(['a'], tokenizer, 16), np.zeros(1, np.int32), np.ones(1, np.float32))
  assert form.augment(jax.random.key(0), batch, {}) is batch
  form.check({})
  with pytest.raises(ValueError, match='Texts have no augmentations, got flip'):
    form.check({'flip': 0.5})


@pytest.mark.parametrize('longest, length, want', [
  (1, 256, 16), (16, 256, 16), (17, 256, 32), (98, 256, 128), (98, 100, 100), (300, 256, 256),
  (10, 8, 8), (600, 1024, 1024), (513, 700, 700),
])  # fmt: skip
def test_buckets(longest, length, want):
  assert _tokenizers.bucket(longest, length) == want


def test_all_parts_have_one_length_and_cuts_are_said(tokenizer):
  parts = {'train': ['a'] * 3, 'test': ['a ' * 30, 'a b ' * 20, 'c']}
  leaves, notes = text.store_parts(parts, tokenizer, 32)
  assert leaves['train']['ids'].shape == (3, 32) and leaves['test']['mask'].shape == (3, 32)
  assert leaves['test']['ids'][1].tolist() == [2, *[5, 6] * 15, 3]  # cut within the special tokens
  assert notes == (
    '1 of 3 texts of test are longer than 32 tokens and were cut (length).',
    f'Texts are stored as 32 tokens, {1 - (12 + 64) / 192:.0%} of them padding.',
  )
  assert text.store_parts(parts, tokenizer, 256)[1] == (
    f'Texts are stored as 64 tokens, {1 - (12 + 32 + 42) / 384:.0%} of them padding.',
  )


def test_pairs_have_types_and_lose_the_longer_first(tokenizer):
  leaves = text.tokenized([('a b', 'c'), ('a', 'b c c')], tokenizer, 16)
  assert leaves['ids'][0, :6].tolist() == [2, 5, 6, 3, 7, 3]
  assert leaves['types'][:, :7].tolist() == [[0, 0, 0, 0, 1, 1, 0], [0, 0, 0, 1, 1, 1, 1]]
  cut = text.tokenized([('a', 'b ' * 40)], tokenizer, 16)
  assert cut['ids'][0, :4].tolist() == [2, 5, 3, 6] and cut['mask'].sum() == 16
  assert cut['ids'][0, -1] == 3


def test_what_cannot_be_stored(tokenizer):
  plain = Tokenizer(models.BPE({'a': 0, 'b': 1}, []))  # drops what it does not know
  with pytest.raises(ValueError, match='puts nothing between the texts of a pair'):
    text.tokenized([('a', 'b')], plain, 16)
  with pytest.raises(ValueError, match=r"1 texts of test have no token, as '\?'"):
    text.store_parts({'train': ['a'], 'test': ['b', '?']}, plain, 16)
  with pytest.raises(ValueError, match='length is 3, and 3 special tokens'):
    text.tokenized([('a', 'b')], tokenizer, 3)
  with pytest.raises(ValueError, match='The tokenizer cannot encode these texts: .*UNK'):
    text.tokenized(['?'], Tokenizer(models.WordLevel({'a': 0})), 16)


def test_padding_and_its_length_change_no_output(tokenizer):
  options, _ = bert.tiny()
  network = bert.build(**options | {'max_positions': 64})
  short = text.tokenized(['a b', 'c a a b'], tokenizer, 16)
  long = text.tokenized(['a b', 'c a a b', 'a ' * 50], tokenizer, 64)
  variables = network.init(jax.random.key(0), short)
  outputs = [
    network.apply(
      variables, text.form(leaves['ids'].shape[1], 'a.json').enter(leaves), train=False
    )[0]
    for leaves in (short, long)
  ]
  assert short['ids'].shape[1] == 16 and long['ids'].shape[1] == 64
  np.testing.assert_allclose(outputs[0], outputs[1][:2], atol=1e-6)


def test_a_data_set_becomes_leaves(tokenizer, tmp_path):
  lines = [f'{{"text_a": "a b", "text_b": "{"c " * i}.", "label": {i % 2}}}\n' for i in range(20)]
  (tmp_path / 'x.jsonl').write_text(''.join(lines))
  data = datasets.load_text(f'jsonl:{tmp_path / "x.jsonl"}')
  parts = {name: getattr(data, name).inputs for name in ('train', 'val', 'test')}
  leaves, _ = text.store_parts(parts, tokenizer, 128)
  lengths = leaves['test']['mask'].sum(1)
  assert lengths.tolist() == [5 + int(i) for i in data.test.ids]  # line 1 has no c
  assert leaves['val']['types'].max() == 1
