"""A run taken out of its study: as an artefact (artefact.py), under the official names of its
architecture, as an adapter of the peft library, or as a program that needs nothing of tlx.
"""

import importlib.util
import inspect
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax import export as jax_export

from tlx import adapters, checkpoint, peft, report, sources, tree
from tlx.backbones._inverse import official as official_arrays
from tlx.inputs import _tokenizers
from tlx.plug import plug
from tlx.report import cautions
from tlx.study import artefact, standalone, use
from tlx.study import config as configs
from tlx.study.cells import base
from tlx.study.phases import make_task
from tlx.types import PyTree, Variables

PROGRAM, OFFICIAL, HEAD = 'program.bin', 'model.safetensors', 'head.safetensors'
PLATFORMS = ('cpu', 'cuda', 'tpu')  # that a program runs on


def to_artefact(workdir: str | os.PathLike, run: str, out: str | os.PathLike) -> str:
  """What run it is, having written it as an artefact.

  Raises:
    ValueError: no such run, or `out` is there already.
  """
  name, model, caution = _model(workdir, run)
  card = _card(epath.Path(workdir).expanduser(), name)
  card['caution'] = caution
  fields = ('source', 'method', 'task', 'class_names', 'leaves', 'about')
  folder = artefact.new_folder(out)
  artefact.write(folder, {field: getattr(model, field) for field in fields}, model.variables, card)
  return model.about


def to_official(workdir: str | os.PathLike, run: str, out: str | os.PathLike) -> str:
  """What run it is, having written its parameters under the official names of its architecture, as
  `out`/model.safetensors, and what is not in them as `out`/about.json. Added weights are merged.

  Raises:
    ValueError: as `to_artefact`; or officially there is no such network: another head, added
      weights that cannot be merged, an architecture of ours alone.
  """
  name, model, _ = _model(workdir, run)
  made, pretrained = _official(workdir, name, model, _merged(model))
  folder = artefact.new_folder(out)
  checkpoint.write_arrays(folder / OFFICIAL, made, {'format': 'pt'})
  _write_about(folder, name, model, pretrained)
  return model.about


def to_peft(workdir: str | os.PathLike, run: str, out: str | os.PathLike) -> str:
  """What run it is, having written what its method added as the peft library keeps it, under the
  official names of the source (tlx/adapters.py); a head that the run trained goes to
  `out`/head.safetensors, under its names here, as the library's models without a head have none.

  Raises:
    ValueError: as `to_official`, or nothing was added, or what peft does not keep.
  """
  name, model, _ = _model(workdir, run)
  added, options = configs.named(model.method.get('added', ''))
  if not added:
    raise ValueError(f'{name} added nothing to its source: --to=official writes all weights.')
  alone = tree.nested(peft.split(model.variables.params, added)[0].items())
  arrays, pretrained = _official(workdir, name, model, model.variables._replace(params=alone))
  backbone, of_backbone = configs.named(model.source['backbone'])
  layers = adapters.layers(plug('backbones', backbone), arrays, **of_backbone)
  folder = artefact.new_folder(out)
  method = {'name': added, **options}
  adapters.save(folder, model.variables.params, method, layers, base=pretrained['weights'])
  if make_task(model.task, len(model.class_names)).head is not None:
    head = tree.named_leaves(alone[model.network.stages[-1]])
    arrays = {leaf: np.asarray(array) for leaf, array in head}
    checkpoint.write_arrays(folder / HEAD, arrays)
  _write_about(folder, name, model, pretrained)
  return model.about


def _official(
  workdir: str | os.PathLike, name: str, model: use.Model, variables: Variables
) -> tuple[dict[str, np.ndarray], Mapping[str, Any]]:
  """(variables of the network alone under the official names of its architecture, what the config
  says of its source).
  """
  backbone, options = configs.named(model.source['backbone'])
  module = plug('backbones', backbone)
  if not hasattr(module, 'names'):
    raise ValueError(f'{backbone} is an architecture of ours: it has no official names.')
  for field in ('head_after', 'head'):
    if model.method.get(field):
      raise ValueError(f'The head of {name} ({field}) is none that {backbone} officially has.')
  if getattr(configs.form_module(model.source), 'SIDES', False):
    raise ValueError(f'{name} takes two sides of a pair through one network; take the artefact.')
  of_run, study = configs.of_run(f'study:{epath.Path(workdir).expanduser()}/{name}')
  pretrained = study['sources'][of_run['cell']['source']]
  arrays = _official_file(pretrained)
  classes = {'num_classes': len(model.class_names)} if _takes_classes(module, model) else {}
  made = official_arrays(variables, module.names(arrays, **classes, **options), arrays)
  return made, pretrained


def _write_about(
  folder: pathlib.Path, name: str, model: use.Model, pretrained: Mapping[str, Any]
) -> None:
  about = {
    'run': name,
    'backbone': model.source['backbone'],
    'class_names': model.class_names,
    'input': model.source['input'],
    'weights': pretrained['weights'],
  }
  checkpoint.write_json(folder / 'about.json', checkpoint.plain(about))


def to_stablehlo(workdir: str | os.PathLike, run: str, out: str | os.PathLike) -> str:
  """What run it is, having written it as a program: `out`/program.bin is read by
  jax.export.deserialize and takes any number of examples as they are stored, images uint8
  [B, H, W, C] or tokens; `out`/use.py makes these of files and texts, without tlx.

  Raises:
    ValueError: as `to_artefact`, or a task that says nothing of an example by itself.
  """
  if importlib.util.find_spec('flatbuffers') is None:
    raise ValueError("A program is written by flatbuffers: pip install 'tlx-jax[stablehlo]'.")
  name, model, _ = _model(workdir, run)
  task_name, _ = configs.named(model.task)
  if task_name not in standalone.ANSWERS:
    have = ', '.join(standalone.ANSWERS)
    raise ValueError(f'A program answers {have}; {task_name} wants tlx. Take the artefact.')
  form = configs.form_of(model.source)
  task = make_task(model.task, len(model.class_names))
  answer = standalone.ANSWERS[task_name]
  variables = model.variables

  def program(leaves: PyTree) -> jax.Array:
    outputs, _ = model.network.apply(variables, form.enter(leaves), train=False)
    return answer(jax.tree.leaves(task.keep(outputs))[0])

  exported = jax_export.export(jax.jit(program), platforms=PLATFORMS)(_any_number(model))
  folder = artefact.new_folder(out)
  (folder / PROGRAM).write_bytes(exported.serialize())
  fields = {key: value for key, value in model.source['input'].items() if key != 'tokenizer'}
  pad_id = 0
  if uri := model.source['input'].get('tokenizer'):
    tokenizer = _tokenizers.of_uri(uri)
    pad_id = _tokenizers.pad_id(tokenizer)
    (folder / artefact.TOKENIZER).write_text(tokenizer.to_str(), encoding='utf-8')
  about = {
    'run': name,
    'task': task_name,
    'class_names': model.class_names,
    'input': fields,
    'leaves': sorted(model.leaves),
    'pad_id': pad_id,
    'platforms': exported.platforms,
  }
  checkpoint.write_json(folder / 'about.json', checkpoint.plain(about))
  script = standalone.TEXTS if uri else standalone.IMAGES
  (folder / 'use.py').write_text(script, encoding='utf-8')
  return model.about


def _model(workdir: str | os.PathLike, run: str) -> tuple[str, use.Model, str]:
  """(the name of the run, what it is, what the report says against it or '').

  Raises:
    ValueError: no such run, or several.
  """
  if run == 'ensemble':
    raise ValueError('An ensemble is several networks. Export one of its runs.')
  folder = epath.Path(workdir).expanduser()
  if artefact.is_one(folder):
    raise ValueError(f'{folder} is an artefact. Name the folder of a study.')
  name = use.best_run(folder)[0] if run == 'best' else run
  model = use.load_run(folder, name)
  host = jax.tree.map(np.asarray, jax.device_get(model.variables))
  caution = cautions.of_run(folder, name)
  about = f'{name}: {caution}' if caution else name
  return name, model._replace(variables=host, about=about), caution


def _card(folder: epath.Path, name: str) -> dict[str, Any]:
  """What is known of a run and of those of its setting."""
  runs = report.read(folder)
  study = checkpoint.unsealed(folder / 'study.json')
  result = checkpoint.unsealed(folder / 'runs' / name / 'result.json')
  of_run, _ = configs.of_run(f'study:{folder}/{name}')
  cell = result['cell']
  source = of_run['sources'][cell['source']]
  alike = runs[
    (runs.source == base(cell['source']))
    & (runs.target == base(cell['target']))
    & (runs.method == cell['method'])
    & (runs.shots == cell['shots'])
    & runs.chosen
  ]
  column = result['select'][0]
  rows = []
  for row in alike.to_dict('records'):
    scores = {part: _finite(row.get(f'{part}_{column}')) for part in ('val', 'test')}
    rows.append({'cell': {name: _known(row[name]) for name in _CELL}, **scores})
  loaded = folder / 'sources' / cell['source'] / 'result.json'
  record = checkpoint.unsealed(loaded) if loaded.exists() else {}
  trained_on = {'trained here on': study['config']['sources'][cell['source']]['dataset']}
  return {
    'name': study['name'],
    'claim': study['claim'],
    'run': name,
    'source': cell['source'],
    'target': cell['target'],
    'method': cell['method'],
    'num_train': result['num_train'],
    'column': column,
    'runs': rows,
    'dataset': of_run['targets'][cell['target']]['dataset'],
    'data': study['data'][f'{cell["source"]}/{cell["target"]}'],
    'provenance': record.get('provenance', trained_on),
    'backbone': source['backbone'],
    'versions': result['versions'],
  }


# What tells the runs of a setting from each other.
_CELL = ('source_seed', 'fold', 'seed', 'learning_rate', 'weight_decay')


def _known(value: Any) -> float | None:
  """A number as people write it; None where it is not a number."""
  found = _finite(value)
  return int(found) if found is not None and found.is_integer() else found


def _finite(value: Any) -> float | None:
  return None if value is None or value != value else float(value)


def _merged(model: use.Model) -> Variables:
  """The variables of the network alone, with what was added to it merged.

  Raises:
    ValueError: it cannot be merged.
  """
  name, options = configs.named(model.method.get('added', ''))
  if not name:
    return model.variables
  merge = plug('peft', name).added(**options).merge
  if merge is None:
    raise ValueError(f'Added weights of {name!r} cannot be merged; take the artefact.')
  params = jax.tree.map(np.asarray, merge(model.variables.params))
  return model.variables._replace(params=params)


def _official_file(source: Mapping[str, Any]) -> Mapping[str, np.ndarray]:
  """The arrays of the source's weights, for their names and shapes; {} of a GGUF file, whose names
  are not the architecture's own, and where the study trained the source.
  """
  if not source['weights'] or source['weights'].startswith('study:'):
    return {}
  loaded = sources.load(source['weights'], source['sha256'] or None, source['part'])
  return {} if loaded.provenance['format'] == 'gguf' else loaded.arrays


def _takes_classes(module: Any, model: use.Model) -> bool:
  """Whether the names of a backbone depend on its having classes, and the run has some."""
  has_classes = isinstance(make_task(model.task, len(model.class_names)).head, int)
  return has_classes and 'num_classes' in inspect.signature(module.names).parameters


def _any_number(model: use.Model) -> PyTree:
  """The stored examples of a run, of any number, texts padded to the length they are cut at."""
  fields = model.source['input']
  if 'image_size' in fields:
    side, channels = fields['image_size'], fields['channels']
    shape = jax_export.symbolic_shape(f'b, {side}, {side}, {channels}')
    return jax.ShapeDtypeStruct(shape, jnp.uint8)
  shape = jax_export.symbolic_shape(f'b, {fields["length"]}')  # one scope: one number of texts
  return {name: jax.ShapeDtypeStruct(shape, jnp.int32) for name in sorted(model.leaves)}


def note(folder: pathlib.Path) -> str:
  """What a folder holds, for people."""
  files = sorted(folder.iterdir())
  size = sum(file.stat().st_size for file in files) / 1e6
  return f'{folder}: {", ".join(file.name for file in files)}; {size:,.1f} MB'
