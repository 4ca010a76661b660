"""Zero-shot: a head made of the names of the classes, which answers before anything is trained.

A class is the mean of its prompts' unit vectors, made a unit vector again (Radford et al. 2021,
arXiv:2103.00020, section 3.1.4); the head gives cosine x scale + bias. Features are made unit
vectors before it, in training too, as in WiSE-FT (arXiv:2109.01903). The images of CLIP are
compared with texts through the text tower of the same weights, texts through their own encoder.
"""

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from tlx import backbones, sources
from tlx.plug import closest, plug
from tlx.study.batches import in_batches
from tlx.study.cells import classes_of
from tlx.study.config import form_module, form_of, located, named
from tlx.study.phases import network_of, task_of
from tlx.train.prefix import activation
from tlx.types import Network, PyTree, Variables

TEMPLATES = {'image': ('a photo of a {}.',), 'text': ('{}',)}
# Of sentence encoders: 1 / 0.05, the temperature of tasks/embedding.py. It changes no answer.
SCALE = 20.0
OPTIONS = ('templates', 'scale', 'tokenizer')
BATCH = 64  # prompts at a time


def check(study: Mapping[str, Any]) -> None:
  """Whether every method with such a head can have it from every source on every target.

  Raises:
    ValueError: one cannot; the message says why, and what to do.
  """
  for name, method in study['methods'].items():
    if not method.get('head'):
      continue
    where = f'config.methods.{name}.head'
    located(where, functools.partial(_check_options, method))
    for (source_name, source), (target_name, target) in itertools.product(
      study['sources'].items(), study['targets'].items()
    ):
      located(f'{where}, source {source_name}', functools.partial(_check_source, source))
      names = classes_of(study, target)
      if task_of(study, target).head != len(names):
        raise ValueError(
          f'{where}: the task of {target_name} has no output for each class. Take classification.'
        )
      located(
        f'{where}, target {target_name}',
        functools.partial(words_of, names, target, target_name),
      )


def _check_options(method: Mapping[str, Any]) -> None:
  _, options = named(method['head'])
  for option in options:
    if option not in OPTIONS:
      raise ValueError(
        f'has no option {option!r}; it has {", ".join(OPTIONS)}.{closest(option, OPTIONS)}'
      )
  templates = options.get('templates', ('{}',))
  if isinstance(templates, str) or not templates:
    raise ValueError(f"templates are texts such as ('a photo of a {{}}.',), got {templates!r}.")
  for template in templates:
    if not isinstance(template, str) or template.count('{}') != 1:
      raise ValueError(f'a template has one {{}}, where the class goes; got {template!r}.')
  scale = options.get('scale', SCALE)
  if not isinstance(scale, (int, float)) or not 0 < scale < np.inf:
    raise ValueError(f'scale is a number above 0, got {scale!r}.')
  if method['init'] != 'source' or method['head_after']:
    raise ValueError(
      "class names are compared with what the source makes of examples: set init = 'source' and "
      "head_after = ''."
    )
  if any(phase['solver'] != 'sgd' for phase in method['phases']):
    raise ValueError(
      "an exact solution does not look at the head it begins with. Set head = '' or solver = 'sgd'."
    )


def _check_source(source: Mapping[str, Any]) -> None:
  backbone, options = named(source['backbone'])
  module = plug('backbones', backbone)
  if form_module(source).KIND == 'text':
    network = network_of(source, 2)
    feature = activation(network, form_of(source), len(network.stages) - 1)
    if getattr(feature, 'ndim', 0) != 2 or form_module(source) is not plug('inputs', 'text'):
      raise ValueError(
        f'{backbone} gives no vector of a text before its head. Take an encoder, such as bert with '
        "pool='mean'."
      )
    return
  if not hasattr(module, 'TEXT'):
    raise ValueError(
      f'{backbone} has no text tower to compare its images with. Take clip, or an encoder of texts.'
    )
  if not source['weights'] or source['weights'].startswith('study:'):
    raise ValueError('the text tower is in public weights; a run of a study holds images alone.')
  o = backbones.resolved(module, options)
  if o.family == 'clip' and o.projection is None:
    raise ValueError('projection = None leaves the space that images share with texts.')


def words_of(class_names: Sequence[str], target: Mapping[str, Any], where: str) -> tuple[str, ...]:
  """The words for each class: those that the target's `class_names` gives, else the label of the
  data set with spaces for underscores.

  Raises:
    ValueError: labels without a letter, two classes of the same words, or words for no class.
  """
  given = target.get('class_names', {})
  for label in given:
    if label not in class_names:
      raise ValueError(
        f'config.targets.{where}.class_names names {label!r}, which is no class of the data.'
        f'{closest(label, class_names)}'
      )
  words = tuple(str(given.get(label, label.replace('_', ' '))).strip() for label in class_names)
  if nameless := [word for word in words if not any(map(str.isalpha, word))]:
    raise ValueError(
      f'{len(nameless)} of {len(words)} classes have no words, such as {nameless[0]!r}. Say what '
      f"they are called: targets.{where}.class_names = {{'{nameless[0]}': 'words', ...}}."
    )
  if len(set(words)) < len(words):
    twice = next(word for word in words if words.count(word) > 1)
    raise ValueError(
      f'two classes are called {twice!r}. Tell them apart in targets.{where}.class_names.'
    )
  return words


def prompts_of(method: Mapping[str, Any], kind: str, words: Sequence[str]) -> list[list[str]]:
  """The prompts of each class."""
  _, options = named(method['head'])
  templates = options.get('templates', TEMPLATES[kind])
  return [[template.replace('{}', word) for template in templates] for word in words]


def head(
  source: Mapping[str, Any],
  variables: Variables,
  method: Mapping[str, Any],
  words: Sequence[str],
  sha256: str | None = None,
) -> dict[str, np.ndarray]:
  """{'kernel' [D, K], 'bias' [K]} of the classes.

  Args:
    source: its config.
    variables: of the source, as far as its head.
    sha256: of the file of weights, from which a text tower is read.

  Raises:
    ValueError: the text tower or its tokenizer is not to be had.
  """
  kind = form_module(source).KIND
  _, options = named(method['head'])
  if kind == 'text':
    network, fields = network_of(source, 2), dict(source['input'])
    scale, bias = SCALE, 0.0
  else:
    network, variables, fields, (scale, bias) = _text_tower(source, sha256)
  if options.get('tokenizer'):
    fields['tokenizer'] = options['tokenizer']
  prompts = prompts_of(method, kind, words)
  leaves, _ = plug('inputs', 'text').store([text for own in prompts for text in own], fields)
  vectors = _unit(_embedded(network, variables, leaves))
  means = vectors.reshape(len(words), -1, vectors.shape[1]).mean(1)
  kernel = options.get('scale', scale) * _unit(means).T
  return {
    'kernel': kernel.astype(np.float32),
    'bias': np.full(len(words), bias, np.float32),
  }


def _text_tower(
  source: Mapping[str, Any], sha256: str | None
) -> tuple[Network, Variables, dict[str, Any], tuple[float, float]]:
  """(network, variables, the fields of its texts, scale and bias of logits)."""
  name, options = named(source['backbone'])
  images = plug('backbones', name)
  texts = plug('backbones', images.TEXT)
  weights = sources.load(source['weights'], sha256, source['part'])
  told = backbones.options_of(texts, weights)
  if not told and options.get('variant') not in texts.VARIANTS:
    raise ValueError(
      f'{source["weights"]}: nothing beside the weights says what their text tower is. Put its '
      f'config.json there, or give a variant: {", ".join(texts.VARIANTS)}.'
    )
  told = told or {'variant': options['variant']}
  network = texts.build(None, **told)
  spec = texts.input_spec(**told)
  shapes = jax.eval_shape(network.init, jax.random.key(0), {'ids': np.zeros((1, 4), np.int32)})
  variables, _ = backbones.from_weights(texts, told, weights, shapes)
  fields = {**plug('inputs', 'text').INPUT, **spec, 'tokenizer': source['weights']}
  return network, variables, fields, images.similarity(weights.arrays)


def _embedded(network: Network, variables: Variables, leaves: PyTree) -> np.ndarray:
  """What enters the head [N, D] of stored texts."""
  stop = len(network.stages) - 1

  @jax.jit
  def run(variables: Variables, inputs: PyTree) -> jax.Array:
    return network.apply(variables, inputs, train=False, stop=stop)[0]

  return in_batches(run, variables, leaves, BATCH).astype(np.float64)


def _unit(vectors: np.ndarray) -> np.ndarray:
  return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
