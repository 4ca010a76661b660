"""Several LoRAs made one: the numbers of the peft library."""

import numpy as np
import pytest

from tests.peft import official
from tlx import adapters, combine, peft
from tlx.parity import relative_error

METHOD = {'name': 'lora', 'rank': 4, 'alpha': 8}
OPTIONS = {
  'linear': {},
  'cat': {},
  'svd': {'rank': 4},
  'ties': {'density': 0.5},
  'ties_svd': {'density': 0.5, 'rank': 4},
  'magnitude_prune': {'density': 0.5},
}


def stored():
  """The two adapters that peft combined."""
  leaves = {'a': {}, 'b': {}}
  for key, array in official.stored().items():
    if key.startswith('combine:'):
      path = key.removeprefix(f'combine:{official.PREFIX}').removesuffix('.weight')
      module, matrix, name = path.rsplit('.', 2)
      (ours,) = official.ours_of('bert', module)
      leaves[name][f'{ours}/{"a" if matrix == "lora_A" else "b"}'] = array.T
  return [adapters.Adapter(METHOD, one, {}) for one in leaves.values()]


@pytest.mark.parametrize('kind', OPTIONS)
def test_numbers_of_the_peft_library(kind):
  base = official.base('bert')
  both = combine.combine(stored(), [0.7, 0.4], kind, **OPTIONS[kind])
  params = official.with_leaves('bert', both.added(), both.leaves)
  found = official.run('combine', 'bert', peft.wrap(base.network, both.added()), params)
  want = official.stored()[f'combine_{kind}_last']
  assert relative_error(found, want) < 1e-5
  others = [name for name in OPTIONS if name not in (kind, 'svd', 'cat')]
  for other in others:
    assert relative_error(found, official.stored()[f'combine_{other}_last']) > 1e-4


def test_other_ranks_and_scales_are_kept_by_cat():
  """What is added is the weighted sum of what each adds."""
  one, two = stored()
  name = 'block0/attention/query'
  leaves = {**two.leaves, f'{name}/a': two.leaves[f'{name}/a'][:, :3]}
  leaves |= {f'{name}/b': two.leaves[f'{name}/b'][:3], f'{name}/fixed/alpha': np.float32(5)}
  two = adapters.Adapter({**METHOD, 'rslora': True}, leaves, {})
  both = combine.combine([one, two], [0.5, 2.0], 'cat')
  assert both.leaves[f'{name}/fixed/alpha'] == 7 and both.method['rank'] == 8
  of = lambda adapter: adapter.leaves[f'{name}/a'] @ adapter.leaves[f'{name}/b']
  np.testing.assert_allclose(of(both), of(one) + 2 * 5 / 3**0.5 * of(two), 1e-5, 1e-7)
  official.with_leaves('bert', both.added(), both.leaves)
  with pytest.raises(ValueError, match=f'wants equal ranks, and those of {name} differ'):
    combine.combine([one, two], [0.5, 2.0], 'linear')


@pytest.mark.parametrize(
  'change, words',
  [
    ({'kind': 'mean'}, "one of linear, .*got kind='mean'"),
    ({'weights': [1.0]}, '2 adapters want as many weights'),
    ({'weights': [1.0, -1.0]}, 'weights from 0 on'),
    ({'kind': 'svd'}, "kind='svd' wants a rank"),
    ({'density': 0.0}, 'got density=0.0'),
  ],
)
def test_bad_options(change, words):
  with pytest.raises(ValueError, match=words):
    combine.combine(stored(), **{'weights': [0.7, 0.4], **change})


def test_what_is_no_plain_lora_or_of_other_layers_is_refused():
  one, two = stored()
  fewer = {name: leaf for name, leaf in two.leaves.items() if 'block1' not in name}
  with pytest.raises(ValueError, match='different layers: block1/attention/query'):
    combine.combine([one, two._replace(leaves=fewer)], [1.0, 1.0])
  dora = {**two.leaves, 'block0/attention/query/magnitude': np.ones(48)}
  with pytest.raises(ValueError, match=r"plain LoRA, got .*\['magnitude'\]"):
    combine.combine([one, two._replace(leaves=dora)], [1.0, 1.0])
