"""Official names again: what a name map reads, its inverse writes."""

import jax
import numpy as np
import pytest

from tlx.backbones._inverse import official
from tlx.parity import cases
from tlx.plug import plug
from tlx.types import Variables

VARIANTS = cases.FOLDER / 'variants'
CASES = [(cases.FOLDER, name) for name in cases.names() if name not in cases.PUBLIC]
CASES += [(VARIANTS, name) for name in ('bert_classifier', 'gpt2_classifier', 'clip', 'resnet_hf')]


def variables_of(case):
  """The variables that a case's arrays give, without a head that they lack."""
  _, variables = cases.build(case)
  params = {
    stage: leaves
    for stage, leaves in jax.tree.map(np.asarray, variables.params).items()
    if case.has_head or stage != 'head'
  }
  return Variables(params, jax.tree.map(np.asarray, variables.stats))


@pytest.mark.parametrize('folder, name', CASES, ids=[name for _, name in CASES])
def test_the_inverse_of_a_name_map_gives_the_file_again(folder, name):
  case = cases.read(name, folder)
  variables = variables_of(case)
  names = plug('backbones', case.backbone).names(case.arrays, **case.options)
  found = official(variables, names, case.arrays)
  assert len(found) >= 0.5 * len([key for key in case.arrays if 'num_batches' not in key])
  for theirs, array in found.items():
    np.testing.assert_array_equal(array, np.asarray(case.arrays[theirs], np.float32))


@pytest.mark.parametrize('name', ['vit', 'gpt2', 'llama', 'resnet_bottleneck'])
def test_shapes_are_found_without_a_file(name):
  case = cases.read(name)
  names = plug('backbones', case.backbone).names(case.arrays, **case.options)
  for theirs, array in official(variables_of(case), names, {}).items():
    np.testing.assert_array_equal(array, np.asarray(case.arrays[theirs], np.float32))


def test_a_head_of_other_classes_has_the_shape_of_the_official_one():
  case = cases.read('resnet_basic')
  variables = variables_of(case)
  width = variables.params['head']['kernel'].shape[0]
  kernel = np.random.default_rng(0).normal(size=(width, 7)).astype(np.float32)
  head = {'kernel': kernel, 'bias': np.arange(7, dtype=np.float32)}
  names = plug('backbones', 'resnet').names(case.arrays, **case.options)
  found = official(
    variables._replace(params={**variables.params, 'head': head}), names, case.arrays
  )
  np.testing.assert_array_equal(found['fc.weight'], kernel.T)
  np.testing.assert_array_equal(found['fc.bias'], head['bias'])


def test_what_officially_is_not_there_is_one_error():
  case = cases.read('gpt2_classifier', VARIANTS)
  variables = variables_of(case)
  variables.params['head']['bias'] = np.ones_like(variables.params['head']['bias'])
  names = plug('backbones', 'gpt2').names(case.arrays, **case.options)
  with pytest.raises(ValueError, match='head/bias was trained, and officially there is none'):
    official(variables, names, case.arrays)
  del names['embed/positions/embedding']
  with pytest.raises(ValueError, match='embed/positions/embedding has no official name'):
    official(variables, names, case.arrays)


def test_timm_computes_what_is_written():
  timm = pytest.importorskip('timm', reason='needs timm and torch')
  torch = pytest.importorskip('torch', reason='needs timm and torch')
  options = {'dim': 24, 'depth': 2, 'heads': 3, 'patch': 8, 'image_size': 32, 'mlp_ratio': 2.0}
  module = plug('backbones', 'vit')
  network = module.build(5, **options)
  images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
  variables = jax.tree.map(np.asarray, network.init(jax.random.key(0), images))
  noise = np.random.default_rng(1)
  params = jax.tree.map(
    lambda leaf: leaf + noise.normal(0, 0.1, leaf.shape).astype(np.float32), variables.params
  )
  arrays = official(Variables(params, variables.stats), module.names({}, **options), {})
  model = timm.models.VisionTransformer(
    img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=3, mlp_ratio=2, num_classes=5
  ).eval()
  model.load_state_dict({name: torch.tensor(array) for name, array in arrays.items()})
  with torch.no_grad():
    wanted = model(torch.tensor(images.transpose(0, 3, 1, 2))).numpy()
  found, _ = network.apply(Variables(params, variables.stats), images, train=False)
  np.testing.assert_allclose(found, wanted, atol=2e-5)


def test_programs_of_any_number_of_images_need_no_forms_of_cpu():
  """Convolutions choose their form by the batch, which an exported program does not know."""
  from jax import export

  module = plug('backbones', 'cnn')
  options, images = module.tiny()
  network = module.build(**options)
  variables = network.init(jax.random.key(0), images)
  shape = export.symbolic_shape(f'b, {", ".join(map(str, images.shape[1:]))}')

  def program(x):
    return network.apply(variables, x, train=False)[0]

  exported = export.export(jax.jit(program), platforms=('cpu', 'cuda', 'tpu'))(
    jax.ShapeDtypeStruct(shape, images.dtype)
  )
  np.testing.assert_allclose(exported.call(images), program(images), atol=1e-5)
