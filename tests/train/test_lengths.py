"""Texts without the padding behind them: the same activations, from batches of several lengths."""

import re

import jax
import numpy as np
import pytest

from tlx import inputs as forms
from tlx.backbones import bert, gpt2, side_by_side
from tlx.inputs import pair, text
from tlx.train import feed, lengths, prefix, step

WIDTH = 64
SMALL = {'vocab_size': 17, 'dim': 8, 'depth': 2, 'heads': 2, 'mlp_dim': 12, 'max_positions': WIDTH}


def texts(*shape):
  """Stored texts of 1 to 64 tokens, most of them short; half of them begin with padding."""
  random = np.random.default_rng(0)
  ends = np.minimum(1 + random.geometric(0.1, shape), WIDTH)
  place = np.arange(WIDTH)
  begins = (ends // 4) * (random.random(shape) < 0.5)
  real = (place < ends[..., None]) & (place >= begins[..., None])
  ids = random.integers(1, 17, (*shape, WIDTH)) * real
  return {'ids': ids.astype(np.int32), 'mask': real.astype(np.int32)}, ends


@pytest.fixture(params=[np.inf, 0.0], ids=['whole', 'cut'])
def worth(request, monkeypatch):
  monkeypatch.setattr(lengths, 'WORTH', {'cpu': request.param})
  return request.param


def passed(folder, network, form, inputs, stages):
  """(activations after so many stages, what was said)."""
  zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), forms.entered(form, 1))
  variables = jax.device_get(network.init(jax.random.key(0), zeros))
  trunk, said = prefix.Trunk(variables, 'small', folder), []
  points = [prefix.Point(network, form, step.Phase((), (), start=start)) for start in stages]
  found = prefix.activations(trunk, inputs, feed.sha256(inputs), points, said.append)
  wanted = [network.apply(variables, form.enter(inputs), train=False, stop=s)[0] for s in stages]
  return found, wanted, said


def test_tokens_are_counted_up_to_the_last_that_is_real():
  inputs, ends = texts(50)
  assert lengths.num_tokens(inputs).tolist() == ends.tolist()
  both, ends = texts(20, 2)
  assert lengths.num_tokens(both).tolist() == ends.max(1).tolist()
  assert lengths.num_tokens(np.zeros((3, 4))) is None


@pytest.mark.parametrize('sides', [(), (2,)], ids=['text', 'pair'])
def test_the_pass_gives_what_whole_texts_give(sides, worth, tmp_path):
  inputs, _ = texts(150, *sides)
  network, module = bert.build(None, pool='mean', **SMALL), text
  if sides:
    network, module = side_by_side(network), pair
  form = forms.of_stored(module.form(WIDTH, 'bytes'), inputs)
  found, wanted, said = passed(tmp_path, network, form, inputs, (2, 4))
  real = inputs['mask'][..., None]
  np.testing.assert_array_equal(found[0]['mask'], inputs['mask'])
  np.testing.assert_allclose(found[0]['hidden'] * real, wanted[0]['hidden'] * real, atol=1e-5)
  np.testing.assert_allclose(found[1], wanted[1], atol=1e-5)
  words = re.search(
    'at [0-9, ]+64 tokens: ([0-9]+)% of them padding, ([0-9]+)% as stored', said[-1]
  )
  assert bool(words) == (worth == 0.0)
  if words:
    assert (
      int(words[1]) < int(words[2]) == round(100 * (1 - lengths.num_tokens(inputs).mean() / 64))
    )


@pytest.mark.parametrize('worth', [0.0], indirect=True)
def test_few_texts_that_are_cut_are_no_more_than_a_device_takes(worth, monkeypatch, tmp_path):
  """A device takes more short texts at a time than long ones, and here there are but two."""
  inputs, _ = texts(2)
  inputs = jax.tree.map(lambda leaf: leaf * (np.arange(WIDTH) < 12), inputs)
  monkeypatch.setattr(prefix, 'CPU_BYTES', 3000.0)  # one of 64 tokens, four of 16
  form = forms.of_stored(text.form(WIDTH, 'bytes'), inputs)
  found, wanted, said = passed(tmp_path, bert.build(None, pool='mean', **SMALL), form, inputs, (4,))
  np.testing.assert_allclose(found[0], wanted[0], atol=1e-5)
  assert 'at 16 tokens' in said[-1] and len(found[0]) == 2


def test_what_counts_from_the_end_of_a_row_keeps_its_padding(tmp_path, monkeypatch):
  monkeypatch.setattr(lengths, 'WORTH', {'cpu': 0.0})
  options = {name: value for name, value in SMALL.items() if name != 'mlp_dim'}
  network = gpt2.build(3, head_pad_id=0, **options)
  inputs, _ = texts(70)
  form = forms.of_stored(text.form(WIDTH, 'bytes'), inputs)
  (found,), (wanted,), said = passed(tmp_path, network, form, inputs, (1,))
  np.testing.assert_array_equal(found['after'], wanted['after'])
  assert len(said) == 1
