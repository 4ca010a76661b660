"""A language model from nothing: on bytes of a small text bits fall, and LoRA trains beside it."""

import jax
import numpy as np
import pytest
from etils import epath

from tlx import peft
from tlx.inputs import _tokenizers, language
from tlx.peft import lora
from tlx.plug import plug
from tlx.tasks import language as language_task
from tlx.train import feed, fit, step
from tlx.train.job import Job, PhasePlan
from tlx.tree import is_added, label, named_leaves
from tlx.types import Variables

WORDS = ('el perro', 'la casa', 'un gato', 'come', 've', 'y', 'grande', 'niño')
TASK = language_task.task()
FORM = language.form(32, 'bytes')
STEPS, RATE = 100, 6e-3
SMALL = {'vocab_size': 259, 'dim': 32, 'depth': 1, 'heads': 2}
BACKBONES = {
  'gpt2': {**SMALL, 'max_positions': 32},
  'llama': {**SMALL, 'kv_heads': 1, 'mlp_dim': 64},
}


def rows(seed, count=60):
  """Sentences of a few words, as rows."""
  random = np.random.default_rng(seed)
  texts = [' '.join(random.choice(WORDS, 4)) for _ in range(count)]
  stored, _ = language.store_parts({'x': texts}, _tokenizers.made('bytes'), 32)
  leaves = stored['x'].leaves
  return feed.Arrays(leaves, TASK.targets(leaves, None))


def drawn(network):
  return jax.device_get(network.init(jax.random.key(0), FORM.enter(rows(0, 2).inputs)).params)


def job_of(network, params, rules, num_steps):
  """One run of these parameters on the sentences."""
  own = jax.tree.map(lambda leaf: np.asarray(leaf)[None], params)
  phase = step.Phase(tuple(named_leaves(label(params, rules))), (('train', 1.0),))
  plan = PhasePlan(phase, TASK, num_steps, 8, 2, RATE)
  train, val = rows(0), rows(1, 20)
  return Job(
    network,
    FORM,
    (plan,),
    Variables(jax.tree.map(lambda _: None, params), {}),
    own,
    {},
    lambda phase: train,
    lambda phase: val,
    [np.arange(feed.length(train))],
    [0],
    [RATE],
    [0.0],
  )


@pytest.mark.parametrize('backbone', BACKBONES)
def test_bits_per_byte_fall(backbone, tmp_path):
  network = plug('backbones', backbone).build(None, **BACKBONES[backbone])
  job = job_of(network, drawn(network), (('.*', 'train'),), STEPS)
  fitted = fit.fit(job, epath.Path(tmp_path))
  bits = [line['val_bits_per_byte'][0] for line in fitted.progress['history']]
  assert bits[1] < bits[0] < 3.5 and bits[1] < 2.5  # the bytes' own frequencies are worth 3.9
  kept = fit.predict(job, fitted, [0], job.val)[0]
  assert set(kept.kept) == {'text', 'bytes', 'characters'}
  for name, of_each in kept.kept.items():
    assert of_each.sum() == pytest.approx(kept.sums[name][0], rel=1e-5)
  assert kept.sums['loss'][1] == (job.val(None).targets['next'] >= 0).sum()


def test_lora_trains_on_a_model_that_stays(tmp_path):
  network = plug('backbones', 'llama').build(None, **BACKBONES['llama'])
  added = lora.added(rank=2)
  params = peft.add(drawn(network), added, jax.random.key(1))
  rules = (('/added/', 'train'), ('.*', 'frozen'))
  fitted = fit.fit(job_of(peft.wrap(network, added), params, rules, 20), epath.Path(tmp_path))
  bits = [line['val_bits_per_byte'][0] for line in fitted.progress['history']]
  assert bits[1] < bits[0] < 8.05  # of 259 tokens drawn at random
  before = dict(named_leaves(params))
  for name, leaf in named_leaves(jax.tree.map(lambda leaf: leaf[0], fitted.own)):
    assert is_added(name) or np.array_equal(leaf, before[name]), name
