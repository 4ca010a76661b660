"""Every config of the project can be planned, and its docstring holds the command that runs it."""

import importlib
import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from tests.datasets import boxes
from tlx import report
from tlx.parity import cases
from tlx.study import config, run
from tlx.study.cells import cells_of
from tlx.study.cohorts import cohorts_of
from tlx.study.cost import cost_table

FOLDER = pathlib.Path(__file__).parents[1] / 'configs'
CONFIGS = sorted(path.stem for path in FOLDER.glob('[!_]*.py'))
FINDINGS = sorted(path.stem for path in FOLDER.glob('findings/[!_]*.py'))
OF_BOXES = ('imagenet_to_boxes', 'coco_detection')
OF_TEXTS = ('sentences_to_intents',)
OF_LANGUAGES = ('spanish_to_neighbours', 'smollm2_to_languages')
# the others take a folder of images, where they take anything
ROOT = pathlib.Path(__file__).parents[1]
ARGUMENTS = {
  'advice_on_trial': 'uci',
  'vit_to_vtab': 'eurosat',
  'mnist_to_digits': '2',
  'text_to_text': f'text:{ROOT}/README.md,text:{ROOT}/CHANGELOG.md',
}
FOR_GPUS = (
  'imagenet_to_birds',
  'vit_to_vtab',
  'methods',
  'gpt_to_medical_chat',
  'smollm2_to_languages',
  'coco_detection',
)  # their cost takes long to work out


@pytest.fixture
def image_folder(tmp_path):
  random, folder = np.random.default_rng(0), tmp_path / 'images'
  for split, count in (('train', 30), ('test', 4)):
    for name in ('cat', 'dog'):
      (folder / split / name).mkdir(parents=True)
      for i in range(count):
        Image.fromarray(random.integers(0, 255, (12, 10, 3), np.uint8)).save(
          folder / split / name / f'{i}.png'
        )
  texts = (f'{{"text": "text {i}", "label": "{"ab"[i % 2]}"}}' for i in range(100))
  (tmp_path / 'texts.jsonl').write_text('\n'.join(texts))
  return folder


def _languages(folder):
  """A folder of a text a language, of some of those that the config knows."""
  folder.mkdir()
  for code in ('es', 'de', 'it', 'fr', 'hu', 'fi'):
    lines = (f'{code} {i} is a line of some text' for i in range(40))
    (folder / f'{code}.txt').write_text('\n'.join(lines))
  return folder


def _dialogues(folder):
  turns = [{'role': 'patient', 'text': 'It hurts.'}, {'role': 'doctor', 'text': 'Where?'}]
  (folder / 'dialogues.jsonl').write_text((json.dumps({'turns': turns}) + '\n') * 200)
  return f'jsonl:{folder}/dialogues.jsonl'


def _config(name, folder):
  module = importlib.import_module(f'configs.{name}')
  takes_argument = module.get_config.__code__.co_argcount
  given = f'jsonl:{folder.parent}/texts.jsonl' if name in OF_TEXTS else str(folder)
  if name == 'gpt_to_medical_chat':
    given = f'{_dialogues(folder.parent)},text:{ROOT}/README.md'
  if name in OF_BOXES:
    many = {chr(200 + i): [('cat', i, 2, i + 9, 20), ('dog', 1, 1, 9, 9)] for i in range(30)}
    given = boxes.write_coco(folder.parent / 'boxes', {**boxes.BOXES, 'train': many})
  if name in OF_LANGUAGES:
    given = str(_languages(folder.parent / 'languages'))
  arguments = [ARGUMENTS.get(name, given)] if takes_argument else []
  made = module.get_config(*arguments)
  if name in OF_BOXES:
    made.shots = (2, 0)  # there are few images
  return module, made


@pytest.mark.parametrize('name', CONFIGS)
def test_config_can_be_planned(name, image_folder):
  module, made = _config(name, image_folder)
  study = config.resolve(made)
  cohorts = cohorts_of(study)
  assert sum(len(cohort.cells) for cohort in cohorts) == len(cells_of(study))
  if name not in FOR_GPUS:
    rows = cost_table(study, cohorts)
    trained = [source for source in study['sources'].values() if source['dataset']]
    assert sum(row['runs'] for row in rows) == len(cells_of(study)) + len(trained)
    assert all(row['GFLOP'] >= 0 and 0 < row['share'] <= 1 for row in rows)
  assert f'--config=configs/{name}.py' in module.__doc__
  assert all(
    source['weights'].startswith(('https:', 'torchhub:')) or source['sha256']
    for source in study['sources'].values()
    if source['weights']
  )


@pytest.mark.parametrize('name', FINDINGS)
def test_findings_can_be_planned(name):
  """And keep seeds for confirming what they claim, also at the scale of papers."""
  module = importlib.import_module(f'configs.findings.{name}')
  scales = ('here', 'paper') if module.get_config.__code__.co_argcount else ()
  for made in [module.get_config(scale) for scale in scales] or [module.get_config()]:
    study = config.resolve(made)
    assert study['claims'] and len(study['confirm']['seeds']) >= 5
    assert len(study['seeds']) >= 5 and study['claim']
  text = f'--config=configs/findings/{name}.py --workdir=runs/{name}'
  assert text in module.__doc__ and '--confirm' in module.__doc__


def _stand_in(made, folder, methods):
  """The study with tiny weights that have the official names, on a folder of images, two steps a
  phase.
  """
  study = made.to_dict()
  for source in study['sources'].values():
    name = source['backbone']['name']
    case = cases.read({'vit': 'vit_augreg', 'resnet': 'resnet_bottleneck'}[name])
    source['backbone'] = {'name': name, **case.options}
    source['weights'] = str(cases.FOLDER / f'{case.name}.safetensors')
    source['input']['image_size'] = case.inputs.shape[1]
  study['targets'] = {'images': {'dataset': f'folder:{folder}'}}
  study['methods'] = {name: study['methods'][name] for name in methods}
  for method in study['methods'].values():
    method['grid'] = {
      'learning_rate': (1e-3,),
      'weight_decay': (0.1 if 'solver' in method['phases'][0] else 0.0,),
    }
    for phase in method['phases']:
      phase['steps'] = 2
      if isinstance(phase['tune'], dict):
        phase['tune']['k'] = 2  # these have fewer stages
  study['train'] |= {
    'batch_size': 4,
    'evaluations': 1,
    'augment': {name: min(value, 2) for name, value in study['train']['augment'].items()},
  }
  return study | {
    'grid': {'learning_rate': (1e-3,)},
    'seeds': (0,),
    'shots': (3,),
    'baseline': methods[0],
  }


@pytest.mark.parametrize(
  'name,methods',
  [
    ('imagenet_to_birds', ('exact_probe', 'last_3_blocks')),
    ('vit_to_vtab', ('linear_probe', 'bias')),
  ],
)
def test_studies_for_gpus_run_on_data_of_their_form(name, methods, image_folder, tmp_path):
  _, made = _config(name, image_folder)
  num_sources = len(made.sources)
  workdir = run.run(_stand_in(made, image_folder, methods), tmp_path / 'study')
  table = report.read(workdir)
  assert len(table) == num_sources * len(methods) and set(table['status']) == {'ok'}
  assert table['source_sha256'].nunique() == num_sources and table['chosen'].all()
