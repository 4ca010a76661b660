"""Weights by name: what the catalogue says is what a config gets, and is what was compared."""

import inspect

import jax
import numpy as np
import pytest

from experiments import list as command
from tests.study import tiny
from tlx import sources
from tlx.parity import cases
from tlx.plug import plug
from tlx.study import config
from tlx.study.phases import network_of, shapes_of


@pytest.mark.parametrize('name', sources.CATALOGUE)
def test_every_entry_makes_a_source(name):
  entry = sources.entry(name)
  source = config.source_of('', name, {})
  assert source['weights'] == entry.uri and source['sha256'] == entry.sha256
  assert source['backbone'] == entry.backbone and entry.verified in sources.VERIFIED
  assert set(entry.input.items()) <= set(source['input'].items())


def test_weights_said_to_be_compared_are_those_of_the_parity_cases():
  compared = {public.uri: public for public in cases.PUBLIC.values()}
  of_catalogue = {e.uri: e for e in sources.CATALOGUE.values() if e.verified == 'real'}
  assert of_catalogue.keys() == compared.keys()
  for uri, entry in of_catalogue.items():
    backbone, options = config.named(entry.backbone)
    assert entry.sha256 == compared[uri].sha256 and backbone == compared[uri].backbone
    assert options.get('variant') == compared[uri].variant


@pytest.mark.parametrize('name', ['lite0.imagenet', 'vit_b16.augreg_in21k', 'clip_b32.openai'])
def test_sizes_are_those_of_the_networks(name):
  source = config.source_of('', name, {})
  module = plug('backbones', config.named(source['backbone'])[0])
  own_head = inspect.signature(module.build).parameters['num_classes'].default is None
  network = network_of(source, None if own_head else 10)
  params = dict(shapes_of(source, network).params)
  params.pop('head', None)
  count = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))
  assert round(count / 1e6, 1) == sources.entry(name).millions


def resolved(source):
  made = tiny.get_config()
  made.sources = {'x': source}
  return config.resolve(made)['sources']['x']


def test_a_name_alone_is_the_source_written_out():
  entry = sources.entry('lite0.imagenet')
  written = {'weights': entry.uri, 'backbone': entry.backbone, 'sha256': entry.sha256}
  assert resolved('lite0.imagenet') == resolved(written)
  smaller = resolved({'weights': 'lite0.imagenet', 'input': {'image_size': 96}})
  assert smaller == resolved({**written, 'input': {'image_size': 96}})
  of_vit = resolved({'weights': 'vit_b16.augreg_in21k', 'input': {'crop': 0.9}})['input']
  assert (of_vit['crop'], of_vit['interpolation']) == (0.9, 'bilinear')


def test_flags_reach_into_a_source_of_a_name_alone():
  made = config.base()
  made.sources.x = 'lite0.imagenet'
  config.add_defaults(made, ['config.sources.x.input.image_size'])
  made.sources.x.input.image_size = 96
  assert config.catalogued(made.sources.x).input.image_size == 96
  assert made.sources.x.backbone.variant == 'lite0'


def test_a_name_that_there_is_not_is_told():
  with pytest.raises(ValueError, match=r"config.sources.x: .*no weights 'lite0.imagnet'.*Did you"):
    resolved('lite0.imagnet')


def test_the_catalogue_is_listed(capsys):
  command.main(['', 'weights'])
  lines = capsys.readouterr().out.splitlines()
  assert sum(line.split()[0] in sources.CATALOGUE for line in lines) == len(sources.CATALOGUE)
  command.main(['', 'weights/resnet50.tv_in1k'])
  said = capsys.readouterr().out
  assert 'torchhub:resnet50-0676ba61.pth' in said and 'sha256: not known' in said
  with pytest.raises(SystemExit, match='Did you mean'):
    command.main(['', 'weights/resnet50.tv_in1'])
