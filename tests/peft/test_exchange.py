"""Adapters written and read as the peft library does."""

import json
import re

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.peft import official
from tlx import adapters, peft
from tlx.parity import cases, relative_error

CONFIGS = {
  'lora': {'r': 4, 'lora_alpha': 8, 'target_modules': ['query', 'value']},
  'rslora': {'r': 4, 'lora_alpha': 8, 'use_rslora': True},
  'dora': {'r': 4, 'lora_alpha': 8, 'use_dora': True},
  'lora_gpt2': {'r': 4, 'lora_alpha': 8, 'fan_in_fan_out': True},
  'lora_conv': {'r': 3, 'lora_alpha': 6},
  'dora_conv': {'r': 3, 'lora_alpha': 6, 'use_dora': True},
  'ia3': {'feedforward_modules': ['output.dense']},
  'ia3_llama': {'feedforward_modules': ['down_proj']},
  'ia3_conv': {'feedforward_modules': []},
  'loha_conv': {'r': 3, 'alpha': 6},
}
BASES = {'lora_gpt2': 'gpt2', 'ia3_llama': 'llama'}
BASES |= {name: 'resnet_basic' for name in ('lora_conv', 'dora_conv', 'ia3_conv', 'loha_conv')}


def folder_of(case, folder):
  """What peft's `save_pretrained` writes: names without the adapter's, one config."""
  config = CONFIGS.get(case)
  if config is None:
    about = json.loads((cases.FOLDER / 'peft_more.json').read_text())
    config = about[case]['config']
  tensors = {}
  for key, array in official.stored().items():
    if key.startswith(f'{case}:'):
      name = key.removeprefix(f'{case}:').replace('.default', '')
      if 'magnitude' in name:
        name = name.removesuffix('.weight')
      if name.endswith(('vera_A', 'vera_B')):
        name = f'base_model.{name[-6:]}'  # one for all layers
      tensors[name] = array
  folder.mkdir(exist_ok=True)
  save_file(tensors, folder / adapters.WEIGHTS)
  kind = re.sub('rslora|dora', 'lora', case.partition('_')[0]).upper()
  (folder / adapters.CONFIG).write_text(json.dumps({'peft_type': kind, 'bias': 'none', **config}))
  return tensors


@pytest.mark.parametrize(
  'case', [*CONFIGS, 'lora_pattern', 'vera', 'loha', 'loha_conv', 'lokr', 'oft']
)
def test_an_adapter_of_peft_gives_its_output_here_and_comes_back_as_it_was(case, tmp_path):
  name = BASES.get(case, 'bert')
  base, tensors = official.base(name), folder_of(case, tmp_path / 'theirs')
  adapter = adapters.load(tmp_path / 'theirs', base.official)
  assert adapter.others == {}
  official.check(case, name, adapter.added(), adapter.leaves)

  params = adapters.place(base.variables.params, adapter)
  adapters.save(tmp_path / 'ours', params, adapter.method, base.official)
  again = load_file(tmp_path / 'ours' / adapters.WEIGHTS)
  assert again.keys() == tensors.keys()
  config = json.loads((tmp_path / 'ours' / adapters.CONFIG).read_text())
  if name == 'gpt2':  # three layers of ours, each with ranks of its own, are one there
    assert config['r'] == 12 and config['lora_alpha'] == 24 and config['fan_in_fan_out']
    for key in {key.rpartition('.lora')[0] for key in tensors}:
      a, b = (again[f'{key}.lora_{part}.weight'] for part in 'AB')
      want = tensors[f'{key}.lora_B.weight'] @ tensors[f'{key}.lora_A.weight']
      np.testing.assert_allclose(b @ a, want, atol=1e-6)
    return
  for key, array in tensors.items():
    assert again[key].shape == array.shape
    np.testing.assert_allclose(again[key], array, rtol=1e-6, atol=1e-6)
  wanted = json.loads((tmp_path / 'theirs' / adapters.CONFIG).read_text())
  for field, value in wanted.items():
    if field in ('r', 'lora_alpha', 'alpha', 'use_rslora', 'use_dora', 'oft_block_size'):
      assert config[field] == value
  layers = [key for key in tensors if 'base_model.vera' not in key]
  modules = {re.split(r'\.(?:lora|ia3|vera|hada|lokr|oft)_', key)[0] for key in layers}
  for module in modules:
    assert adapters._matcher(config['target_modules'])(module.removeprefix(adapters.PREFIX))


def test_ranks_and_alphas_of_their_own_are_patterns(tmp_path):
  base = official.base('bert')
  folder_of('lora_pattern', tmp_path / 'theirs')
  adapter = adapters.load(tmp_path / 'theirs', base.official)
  params = adapters.place(base.variables.params, adapter)
  adapters.save(tmp_path / 'ours', params, adapter.method, base.official, prefix='bert.', base='b')
  config = json.loads((tmp_path / 'ours' / adapters.CONFIG).read_text())
  query, down = 'encoder.layer.1.attention.self.query', 'encoder.layer.0.output.dense'
  plain = lambda patterns: {name.replace('\\', ''): value for name, value in patterns.items()}
  assert plain(config['rank_pattern']) == {f'^bert.{query}': 6}
  assert plain(config['alpha_pattern']) == {f'^bert.{down}': 16}
  assert config['base_model_name_or_path'] == 'b'
  again = adapters.load(tmp_path / 'ours', base.official)
  assert again.method == adapter.method
  jax.tree.map(np.testing.assert_array_equal, again.leaves, adapter.leaves)


def test_pissa_is_written_as_lora_of_the_source_as_it_is(tmp_path):
  base = official.base('bert')
  method = {'name': 'lora', 'rank': 4, 'alpha': 4, 'init': 'pissa'}
  added = adapters.Adapter(method, {}, {}).added()
  params = peft.add(base.variables.params, added, jax.random.key(0))
  flat = peft.flat_of(params)
  random = np.random.default_rng(0)
  for name in flat:
    if name.endswith(('/a', '/b')) and '/fixed/' not in name:
      flat[name] = flat[name] + 0.1 * random.normal(size=flat[name].shape).astype('f')
  params = peft.tree_of(flat)
  adapters.save(tmp_path, params, method, base.official)
  assert json.loads((tmp_path / adapters.CONFIG).read_text())['r'] == 8
  adapter = adapters.load(tmp_path, base.official)
  want = official.run('pissa', 'bert', peft.wrap(base.network, added), params)
  plain = adapters.place(base.variables.params, adapter)
  found = official.run('pissa', 'bert', peft.wrap(base.network, adapter.added()), plain)
  assert relative_error(found, want) < 1e-5
  assert relative_error(want, official.stored()['pissa_last']) > 1e-3


def test_an_adapter_of_pissa_stands_beside_what_is_left_of_the_source(tmp_path):
  """At the start both together are the source."""
  tensors = {}
  for key, array in official.stored().items():
    if key.startswith('pissa:') and 'lora_' in key:
      tensors[key.removeprefix('pissa:').replace('.default', '')] = array
  save_file(tensors, tmp_path / adapters.WEIGHTS)
  made = {'peft_type': 'LORA', 'r': 4, 'lora_alpha': 4, 'init_lora_weights': 'pissa'}
  (tmp_path / adapters.CONFIG).write_text(json.dumps(made))
  base = official.base('bert')
  adapter = adapters.load(tmp_path, base.official)
  params = official.with_leaves('bert', adapter.added(), adapter.leaves)
  found = official.run('', 'bert', peft.wrap(base.network, adapter.added()), params)
  assert relative_error(found, official.stored()['pissa_last']) < 1e-5
  twice = {name: leaf for name, leaf in adapter.leaves.items() if 'fixed' not in name}
  plain = {**adapter.method, 'init': 'uniform'}
  without = adapters.Adapter(plain, twice, {})
  params = official.with_leaves('bert', without.added(), twice)
  found = official.run('', 'bert', peft.wrap(base.network, without.added()), params)
  assert relative_error(found, official.stored()['pissa_last']) > 1e-2


@pytest.mark.parametrize(
  'config, tensors, words',
  [
    ({'peft_type': 'BOFT'}, {}, "peft_type = 'BOFT'; LORA, IA3, .* are read"),
    (
      {'peft_type': 'OFT', 'use_cayley_neumann': True},
      {},
      'use_cayley_neumann = True, which is not',
    ),
    ({'peft_type': 'VERA'}, {}, 'without vera_A and vera_B'),
    ({'peft_type': 'LOHA', 'rank_pattern': {'a': 1}}, {}, 'read of LORA only'),
    ({'bias': 'lora_only'}, {}, "bias = 'lora_only', which is not read"),
    ({'init_lora_weights': 'olora'}, {}, "init_lora_weights = 'olora', which is not read"),
    ({}, {'base_model.model.nowhere.lora_A.weight': 0}, "'nowhere', which the source does not"),
    ({}, {'base_model.model.query.lora_embedding_A': 0}, 'lora_embedding_A.*not read'),
  ],
)
def test_what_is_not_read(config, tensors, words, tmp_path):
  save_file({name: np.zeros((2, 2), np.float32) for name in tensors}, tmp_path / adapters.WEIGHTS)
  made = {'peft_type': 'LORA', 'r': 2, 'lora_alpha': 2, **config}
  (tmp_path / adapters.CONFIG).write_text(json.dumps(made))
  with pytest.raises(ValueError, match=words):
    adapters.load(tmp_path, official.base('bert').official)


def test_a_head_in_the_file_is_handed_on(tmp_path):
  folder_of('lora', tmp_path)
  tensors = load_file(tmp_path / adapters.WEIGHTS)
  head = np.ones((3, 48), np.float32)
  save_file({**tensors, 'base_model.model.classifier.weight': head}, tmp_path / adapters.WEIGHTS)
  adapter = adapters.load(tmp_path, official.base('bert').official)
  assert list(adapter.others) == ['base_model.model.classifier.weight']


@pytest.mark.parametrize(
  'method, words',
  [
    ({'name': 'ssf'}, "'ssf' is not kept in the form of peft; lora, ia3, vera"),
    ({'name': 'lora', 'rank': 2, 'bias': True}, 'query has a trained bias'),
    ({'name': 'ia3'}, "no leaves of 'ia3'"),
  ],
)
def test_what_is_not_written(method, words, tmp_path):
  base, params = official.base('bert'), official.base('bert').variables.params
  if 'no leaves' not in words:
    params = peft.add(params, adapters.Adapter(method, {}, {}).added(), jax.random.key(0))
  with pytest.raises(ValueError, match=words):
    adapters.save(tmp_path, params, method, base.official)
  assert not list(tmp_path.iterdir())


OURS = {
  'lora': {'name': 'lora', 'rank': 3, 'at': 'query|up', 'rank_pattern': [('block1', 5)]},
  'dora': {'name': 'lora', 'rank': 3, 'dora': True, 'rslora': True},
  'pissa': {'name': 'lora', 'rank': 3, 'init': 'pissa'},
  'ia3': {'name': 'ia3'},
  'vera': {'name': 'vera', 'rank': 6, 'at': 'block./.*(query|up)'},
  'loha': {'name': 'loha', 'rank': 2, 'alpha': 3},
  'lokr': {'name': 'lokr', 'rank': 3, 'factor': 4, 'at': 'query|up'},
  'oft': {'name': 'oft', 'block': 6},
}


@pytest.mark.filterwarnings('ignore')  # of the libraries, not ours
@pytest.mark.parametrize('method', OURS)
def test_peft_itself_gives_our_output(method, tmp_path):
  """An optional extra: pip install torch transformers peft."""
  torch = pytest.importorskip('torch', reason='wants pip install torch')
  transformers = pytest.importorskip('transformers', reason='wants pip install transformers')
  library = pytest.importorskip('peft', reason='wants pip install peft')
  base = official.base('bert')
  options = OURS[method]
  added = adapters.Adapter(options, {}, {}).added()
  flat = peft.flat_of(peft.add(base.variables.params, added, jax.random.key(0)))
  random = np.random.default_rng(0)
  for name in flat:
    if '/added/' in name and '/fixed/' not in name:
      flat[name] = flat[name] + 0.1 * random.normal(size=np.shape(flat[name])).astype('f')
  adapters.save(tmp_path, peft.tree_of(flat), options, base.official)
  config = transformers.BertConfig(
    vocab_size=97,
    hidden_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=80,
    max_position_embeddings=32,
  )
  model = transformers.BertModel(config)
  arrays = load_file(cases.FOLDER / 'peft_base.safetensors')
  model.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
  model = library.PeftModel.from_pretrained(model.eval(), str(tmp_path)).eval()
  with torch.no_grad():
    ids = torch.from_numpy(official.stored()['ids'])
    want = model(input_ids=ids).last_hidden_state.numpy()
  found = official.run('', 'bert', peft.wrap(base.network, added), peft.tree_of(flat))
  assert relative_error(found, want) < 1e-5
