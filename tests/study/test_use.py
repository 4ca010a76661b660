"""What was trained answers for new examples as it did in its study."""

import gzip
import json
import runpy
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import scipy.special
from PIL import Image
from safetensors.numpy import load_file

import tlx
from tests.study import test_texts, tiny
from tlx import adapters, backbones, checkpoint, datasets, peft, report, sources
from tlx.plug import plug
from tlx.report import examples
from tlx.report import folder as folders
from tlx.study import artefact, boxes, config, export, pair, phases, run, use, write
from tlx.study.pair import Pair


@pytest.fixture(scope='module')
def photographs(finished, data_dir, tmp_path_factory):
  """The test images of the tiny study as files, with one that is broken."""
  workdir, made = finished[0], tiny.get_config()
  made.data_dir = str(data_dir)
  folder = tmp_path_factory.mktemp('photographs')
  test = Pair(config.resolve(made), 'turned', 'digits', workdir).data.test
  for row, image in enumerate(test.inputs[:40]):
    Image.fromarray(image[..., 0]).save(folder / f'{row:03d}.png')
  (folder / '020x.png').write_bytes(b'no image')
  return folder, test


def kept(workdir, name):
  with np.load(workdir / 'runs' / name / 'predictions.npz') as file:
    return {key: file[key] for key in file.files}


@pytest.mark.parametrize('method', ['scratch', 'probe', 'lp_ft'])
def test_a_run_answers_as_it_did_in_its_study(finished, photographs, method):
  workdir, _ = finished
  folder, test = photographs
  runs = report.read(workdir)
  name = runs[(runs.method == method) & runs.chosen].id.iloc[0]
  found = pd.DataFrame(use.predict(use.load_run(workdir, name), datasets.unlabelled(folder)))
  broken = found.id == '020x.png'
  assert found.error[broken].item() == 'its content is no image of a known kind'
  assert found['class'][broken].item() == '' and np.isnan(found.probability[broken]).all()
  read, before = found[~broken], kept(workdir, name)
  assert tuple(before['ids'][:40]) == test.ids[:40] and not read.error.any()
  wanted = scipy.special.softmax(before['logits'][:40], -1)
  np.testing.assert_allclose(read.iloc[:, 3:-1].astype(float), wanted, atol=2e-6)
  np.testing.assert_allclose(read.probability.astype(float), wanted.max(-1), atol=2e-6)
  assert list(read['class']) == [str(number) for number in wanted.argmax(-1)]


def test_the_best_run_is_the_one_that_validation_prefers(finished):
  workdir, _ = finished
  runs = report.read(workdir)
  runs = runs[runs.chosen & (runs.num_train == runs.num_train.max())]
  method = runs.groupby('method').val_accuracy.mean().idxmax()
  of_method = runs[runs.method == method]
  name, why = use.best_run(workdir)
  assert name == of_method.loc[of_method.val_accuracy.idxmax()].id
  assert (
    f'{method} from turned is best on validation with 40 training examples (mean accuracy '
    f'{of_method.val_accuracy.mean():.3f} over {len(of_method)} runs); of these the best, '
    f'{of_method.val_accuracy.max():.3f}.'
  ) in why


def test_vectors_are_what_the_stage_makes(finished, photographs):
  workdir, _ = finished
  folder, test = photographs
  model = use.load_run(workdir)
  vectors, bad = use.embed(model, datasets.unlabelled(folder))
  assert list(bad) == [21] and np.isnan(vectors[21]).all() and vectors.shape == (41, 12)
  entered = (test.inputs[:40].astype(np.float32) / 255 - 0.3) / 0.4
  wanted, _ = model.network.apply(model.variables, entered, train=False, stop=-1)
  np.testing.assert_allclose(np.delete(vectors, 21, 0), wanted, atol=1e-5)
  words = f"'{model.network.stages[0]}x' is no stage before the head of .*; have .* Did you mean"
  with pytest.raises(ValueError, match=words):
    use.embed(model, datasets.unlabelled(folder), f'{model.network.stages[0]}x')


@pytest.fixture(scope='module')
def texts(tmp_path_factory):
  path = tmp_path_factory.mktemp('texts')
  made = test_texts.get_config(path)
  made.methods = {name: made.methods[name] for name in ('lora', 'exact')}
  made.shots, made.seeds = (0,), (0,)
  return path, run.run(made, path / 'whole')


def test_the_study_leaves_what_the_report_shows(texts, finished):
  for workdir, kind in ((texts[1], str), (finished[0], dict)):
    wanted = examples.wanted(folders.load(workdir))
    assert any(wanted.values())
    for (source, target), ids in wanted.items():
      path = workdir / 'examples' / f'{source}-{target}.json'
      records = json.loads(path.read_text())['records'] if ids else {}
      assert list(records) == ids and all(isinstance(one, kind) for one in records.values())


def test_texts_are_labelled_from_the_command_line(texts):
  path, workdir = texts
  out = path / 'out.csv'
  command = [sys.executable, '-m', 'experiments.predict', f'--workdir={workdir}', f'--out={out}']
  (path / 'bad.jsonl').write_text('{"text": "the bank"}\n{"text": ""}\nno json\n')
  subprocess.run([*command, f'--inputs={path}/bad.jsonl'], check=True)
  found = pd.read_csv(out, keep_default_na=False)
  assert list(found.error) == [
    '',
    'an empty text',
    'no JSON: Expecting value: line 1 column 1 (char 0)',
  ]


def test_nothing_to_label_and_nowhere_to_write_are_errors(texts):
  path, workdir = texts
  (path / 'worse.jsonl').write_text('{"text": ""}\nno json\n')
  command = [sys.executable, '-m', 'experiments.predict', f'--workdir={workdir}']
  command += [f'--inputs={path}/worse.jsonl']
  done = subprocess.run([*command, f'--out={path}/worse.csv'], capture_output=True, text=True)
  assert done.returncode == 1 and 'worse.csv: 0 labelled, 2 could not be read' in done.stdout
  assert done.stderr == 'Error: nothing could be read. The first, 1: an empty text.\n'
  code = (  # before any work
    'import sys, types, experiments.predict as command\nfrom tlx.study import use\n'
    'use.predict = None\n'
    "for name, value in zip(('WORKDIR', 'INPUTS', 'OUT', 'RUN', 'TEXT'), sys.argv[1:]):\n"
    '  setattr(command, name, types.SimpleNamespace(value=value))\n'
    "command.main(['predict'])"
  )
  (path / 'folder.csv').mkdir()
  values = [str(workdir), str(path / 'worse.jsonl'), str(path / 'folder.csv'), 'best', '']
  done = subprocess.run([sys.executable, '-c', code, *values], capture_output=True, text=True)
  assert 'folder.csv is a folder, or cannot be written' in done.stderr


def test_texts_are_labelled_as_in_their_study(texts):
  path, workdir = texts
  for name in [folder.name for folder in (workdir / 'runs').iterdir()]:
    if not (workdir / 'runs' / name / 'predictions.npz').exists():
      continue
    new = datasets.unlabelled(path / 'new' / 'test.jsonl')
    found = use.predict(use.load_run(workdir, name), new)
    wanted = scipy.special.softmax(kept(workdir, name)['logits'], -1).max(-1)
    np.testing.assert_allclose(found['probability'], wanted, atol=2e-6)


@pytest.mark.parametrize(
  'write, message',
  [
    ({}, 'There is nothing at'),
    ({'x.docx': '-'}, 'is neither a folder, an image, nor'),
    ({'x.txt': '\n\n'}, 'holds no text'),
    ({'x.csv': 'label,number\n1,2\n'}, 'wanted one for the text'),
    ({'x.txt': 'hello'}, 'takes images, and these are texts'),
  ],
)
def test_what_cannot_be_labelled_is_one_error(finished, tmp_path, write, message):
  workdir, _ = finished
  for name, text in write.items():
    (tmp_path / name).write_text(text)
  path = tmp_path / next(iter(write), 'nothing')
  with pytest.raises(ValueError, match=message):
    use.predict(use.load_run(workdir), datasets.unlabelled(path))


def test_the_best_run_is_not_that_of_most_rows(finished, tmp_path):
  """All examples of one source may be more rows than all of another, and no better for it."""
  workdir, _ = finished
  best, _ = use.best_run(workdir)
  for path in sorted(workdir.glob('runs/*/result.json')):
    result = checkpoint.unsealed(path)
    result['num_train'] += 1000 * (result['cell']['method'] == 'scratch')
    (tmp_path / 'runs' / path.parent.name).mkdir(parents=True)
    checkpoint.write_json(
      tmp_path / 'runs' / path.parent.name / 'result.json', checkpoint.sealed(result)
    )
  (tmp_path / 'study.json').write_bytes((workdir / 'study.json').read_bytes())
  assert 'scratch' not in best and use.best_run(tmp_path)[0] == best


def test_the_best_run_is_of_the_last_config(finished, tmp_path):
  """A folder may hold runs of methods and targets that the config had before."""
  workdir, _ = finished
  shutil.copytree(workdir, tmp_path / 'grown')
  best, _ = use.best_run(workdir)
  for path in (tmp_path / 'grown').glob('runs/*/result.json'):
    result = checkpoint.unsealed(path)
    if result['cell']['method'] == 'scratch':
      result['cell']['target'], result['id'] = 'before', f'before-{result["id"]}'
      checkpoint.write_json(path, checkpoint.sealed(result))
  assert use.best_run(tmp_path / 'grown')[0] == best


def test_of_equals_the_best_is_the_one_that_the_report_names(finished, tmp_path):
  shutil.copytree(finished[0], tmp_path / 'equal')
  for path in (tmp_path / 'equal').glob('runs/*/result.json'):
    result = checkpoint.unsealed(path)
    result['val'] |= {'accuracy': 0.7, 'correct': 7, 'count': 10}
    checkpoint.write_json(path, checkpoint.sealed(result))
  _, why = use.best_run(tmp_path / 'equal')
  assert ': scratch from turned is best on validation' in why  # the first of the config
  assert 'of 3 methods scratch is best on validation' in report.summary(tmp_path / 'equal')


def test_what_cannot_be_used_is_said_where_it_is_used(finished, tmp_path):
  assert 'cannot be used' not in use.load_run(finished[0]).about
  guessing = tmp_path / 'guessing'
  shutil.copytree(finished[0], guessing)
  for path in guessing.glob('runs/*/result.json'):
    result = checkpoint.unsealed(path)
    if result['test']:
      result['test'] |= {'accuracy': 0.1, 'correct': 50, 'count': 500, 'balanced_accuracy': 0.1}
    checkpoint.write_json(path, checkpoint.sealed(result))
  words = 'Its report says that it cannot be used: at chance (10.0%).'
  best, _ = use.best_run(guessing)
  for name in ('best', 'ensemble'):
    assert use.load_run(guessing, name).about.endswith(words)
  assert export.to_artefact(guessing, 'best', tmp_path / 'artefact') == f'{best}: {words}'
  assert f'The run is {best}. {words}' in (tmp_path / 'artefact' / 'README.md').read_text()


def test_a_task_without_answers_is_one_error(texts):
  path, workdir = texts
  model = use.load_run(workdir)._replace(task='embedding')
  with pytest.raises(ValueError, match='the task embedding says nothing of new examples'):
    use.predict(model, datasets.unlabelled(path / 'new' / 'test.jsonl'))


def test_another_tokenizer_under_the_same_name_is_one_error(texts):
  """Whether the study goes on in this process or its run is used."""
  path, workdir = texts
  vocabulary = path / 'vocab.txt'
  before = vocabulary.read_text()
  lines = before.split('\n')
  made = test_texts.get_config(path)
  vocabulary.write_text('\n'.join([*lines[:5], *lines[:4:-1]]))  # get_config writes it too
  made.methods = {name: made.methods[name] for name in ('lora', 'exact')}
  made.shots, made.seeds = (0,), (0,)
  try:
    with pytest.raises(ValueError, match='trained on other data'):
      run.run(made, workdir)
    with pytest.raises(ValueError, match='vocab.txt is another tokenizer than when'):
      use.load_run(workdir)
  finally:
    vocabulary.write_text(before)
    pair.forget()
  use.load_run(workdir)


def test_python_labels_what_the_command_does(texts, tmp_path):
  """Tables as people keep them, and texts at hand."""
  said = ['the bank', 'rain']
  model = tlx.load_run(texts[1])
  wanted = tlx.predict(model, said)['probability']
  table = pd.DataFrame({'Nr': ['1', '2'], 'Größe': said})
  table.to_excel(tmp_path / 'new.xlsx', index=False)
  (tmp_path / 'new.csv').write_bytes(table.to_csv(index=False).encode('utf-16'))
  for name, column in (('new.xlsx', 'größe'), ('new.csv', ['Größe'])):
    np.testing.assert_array_equal(
      tlx.predict(model, tmp_path / name, text=column)['probability'], wanted
    )
  (tmp_path / 'old.csv').write_bytes('text\nder Käse\n'.encode('cp1252'))
  with pytest.warns(UserWarning, match='was read as the Windows of western Europe'):
    assert tlx.predict(model, tmp_path / 'old.csv')['error'] == ['']
  assert tlx.predict(model, ['rain', ' '])['error'] == ['', 'an empty text']
  with pytest.raises(ValueError, match='Number 2 of the texts is .*, or the name of one file'):
    tlx.predict(model, ['rain', tmp_path])
  with pytest.raises(ValueError, match='There is no text'):
    tlx.predict(model, [])


def test_pairs_for_a_run_of_single_texts_are_one_error(texts):
  path, workdir = texts
  (path / 'pairs.jsonl').write_text('{"text1": "the bank", "text2": "rain"}\n')
  (path / 'single.jsonl').write_text('{"text": ""}\n{"text": "the bank"}\n')
  model = use.load_run(workdir)
  pairs, single = (datasets.unlabelled(path / f'{name}.jsonl') for name in ('pairs', 'single'))
  with pytest.raises(ValueError, match='was trained on single texts, and 1 is none'):
    use.predict(model, pairs)
  with pytest.raises(ValueError, match='was trained on pairs of texts, and 2 is none'):
    use.predict(model._replace(leaves=('ids', 'mask', 'types')), single)
  assert len(use.predict(model, single)['class']) == 2


def test_packed_lines_are_read(tmp_path):
  with gzip.open(tmp_path / 'x.txt.gz', 'wb') as file:
    file.write('uno\n\ndos ñ\n'.encode())
  found = datasets.unlabelled(tmp_path / 'x.txt.gz')
  assert list(zip(found.ids, found.records)) == [('1', 'uno'), ('3', 'dos ñ')]


def test_runs_on_several_targets_have_no_best(finished, tmp_path):
  workdir, _ = finished
  with pytest.raises(ValueError, match='has no chosen run yet'):
    use.load_run(tmp_path)
  with pytest.raises(ValueError, match='no finished run'):
    use.load_run(workdir, 'nothing')
  for number, path in enumerate(sorted(workdir.glob('runs/*/result.json'))):
    folder = tmp_path / 'runs' / path.parent.name
    folder.mkdir(parents=True)
    result = checkpoint.unsealed(path)
    result['cell']['target'] = f'target{number % 2}@1of2'
    checkpoint.write_json(folder / 'result.json', checkpoint.sealed(result))
  with pytest.raises(ValueError, match='has runs on target0, target1. Name one'):
    use.load_run(tmp_path)


def test_texts_that_are_cut_are_counted(texts):
  path, workdir = texts
  (path / 'long.txt').write_text('the bank\n' + 'rain ' * 60 + '\n' + 'x' * 49 + '\n')
  model = use.load_run(workdir)
  assert use.num_cut(model, datasets.unlabelled(path / 'long.txt')) == 2  # of 48 tokens at most


def test_no_images_are_cut(finished, photographs):
  workdir, _ = finished
  folder, _ = photographs
  assert use.num_cut(use.load_run(workdir), datasets.unlabelled(folder)) == 0
  with pytest.raises(ValueError, match='There is no study at'):
    use.load_run(workdir / 'nowhere')


def name_of(workdir, method):
  """The largest chosen run of a method."""
  runs = report.read(workdir)
  runs = runs[(runs.method == method) & runs.chosen].sort_values('num_train')
  return runs.id.iloc[-1]


@pytest.fixture(scope='module')
def exported(texts):
  """The LoRA run of the texts in every form, and what it answered in its study."""
  path, workdir = texts
  name = name_of(workdir, 'lora')
  export.to_artefact(workdir, name, path / 'artefact')
  export.to_official(workdir, name, path / 'official')
  texts_of_test = datasets.unlabelled(path / 'new' / 'test.jsonl')
  return path, texts_of_test, kept(workdir, name)['logits']


def test_an_artefact_needs_nothing_else(exported, texts, tmp_path):
  path, new, logits = exported
  folder = shutil.copytree(path / 'artefact', tmp_path / 'mine')
  with pytest.raises(ValueError, match='of one run: --run=ensemble names none'):
    use.load_run(folder, 'ensemble')
  hidden = (path / 'vocab.txt').rename(path / 'away.txt')
  study = texts[1].rename(path / 'away')
  try:
    model = tlx.load_run(folder)
    found = use.predict(model, new)
    vectors, _ = use.embed(model, new)
  finally:
    hidden.rename(path / 'vocab.txt')
    study.rename(texts[1])
  np.testing.assert_allclose(
    found['probability'], scipy.special.softmax(logits, -1).max(-1), atol=2e-6
  )
  wanted, _ = use.embed(tlx.load_run(texts[1], name_of(texts[1], 'lora')), new)
  np.testing.assert_allclose(vectors, wanted, atol=1e-6)
  card = (folder / 'README.md').read_text()
  assert 'lora from topics on new, 60 training examples' in card and '| 0 | ' in card
  assert '| seed | validation | test |' in card  # nothing else differs
  assert '60 train, 30 val, 30 test' in card and 'jax' in card
  data = bytearray((folder / 'weights.safetensors').read_bytes())
  data[-1] ^= 1
  (folder / 'weights.safetensors').write_bytes(data)
  with pytest.raises(ValueError, match='weights.safetensors is missing or was changed'):
    tlx.load_run(folder)
  with pytest.raises(ValueError, match='is there already and not empty. Name another --out'):
    export.to_artefact(texts[1], 'best', folder)


def test_what_is_exported_may_be_read_as_other_new_files_may(exported, texts, tmp_path):
  export.to_peft(texts[1], name_of(texts[1], 'lora'), tmp_path / 'adapter')
  (tmp_path / 'new').touch()
  folders = (exported[0] / 'artefact', exported[0] / 'official', tmp_path / 'adapter')
  files = [file for folder in folders for file in folder.iterdir()]
  assert sum(file.suffix == '.safetensors' for file in files) == 4
  assert {file.stat().st_mode for file in files} == {(tmp_path / 'new').stat().st_mode}


def test_official_names_give_the_same_network(exported, texts):
  """With LoRA merged; the same name map reads them back, and transformers computes the same."""
  path, new, logits = exported
  loaded = sources.load(str(path / 'official' / 'model.safetensors'))
  model = tlx.load_run(texts[1], name_of(texts[1], 'lora'))
  assert 'encoder.layer.1.attention.self.query.weight' in loaded.arrays
  backbone, options = config.named(model.source['backbone'])
  network = phases.network_of(model.source, 3)
  shapes = phases.shapes_of(model.source, network)
  module = plug('backbones', backbone)
  variables, _ = backbones.fill(shapes, loaded.arrays, module.names(loaded.arrays, **options))
  plain = model._replace(network=network, variables=variables, method={})
  found, _ = use.apply(plain, new)
  np.testing.assert_allclose(found, logits, atol=2e-5)


def test_transformers_computes_what_was_exported(exported, texts):
  transformers = pytest.importorskip('transformers', reason='needs transformers and torch')
  torch = pytest.importorskip('torch', reason='needs transformers and torch')
  path, new, logits = exported
  arrays = sources.load(str(path / 'official' / 'model.safetensors')).arrays
  options = config.named(tlx.load_run(texts[1], name_of(texts[1], 'lora')).source['backbone'])[1]
  made = transformers.BertConfig(
    vocab_size=options['vocab_size'],
    hidden_size=options['dim'],
    num_hidden_layers=options['depth'],
    num_attention_heads=options['heads'],
    intermediate_size=options['mlp_dim'],
    max_position_embeddings=options['max_positions'],
  )
  bert = transformers.BertModel(made, add_pooling_layer=False).eval()
  tensors = {name: torch.tensor(np.array(array)) for name, array in arrays.items()}
  head = [tensors.pop(f'classifier.{name}') for name in ('weight', 'bias')]
  bert.load_state_dict(tensors)
  model = tlx.load_run(texts[1], name_of(texts[1], 'lora'))
  leaves, _ = config.form_module(model.source).store(new.records, model.source['input'])
  ids, mask = (torch.tensor(leaves[name], dtype=torch.long) for name in ('ids', 'mask'))
  with torch.no_grad():
    hidden = bert(input_ids=ids, attention_mask=mask).last_hidden_state
    weights = mask[..., None] / mask.sum(-1)[:, None, None]
    found = torch.nn.functional.linear((hidden * weights).sum(1), *head)
  np.testing.assert_allclose(found.numpy(), logits, atol=2e-5)


def run_alone(folder, *arguments):
  """What use.py of an exported program prints, in a process that has no tlx."""
  code = (
    'import runpy, sys; sys.argv = sys.argv[1:]; '
    'runpy.run_path(sys.argv[0], run_name="__main__"); assert "tlx" not in sys.modules'
  )
  command = [sys.executable, '-c', code, str(folder / 'use.py'), *arguments]
  done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
  assert done.returncode == 0, done.stderr
  return done.stdout.splitlines()


def test_added_weights_are_written_as_peft_keeps_them(exported, texts, tmp_path):
  """The head, which peft's models lack, is a file more."""
  workdir, name = texts[1], name_of(texts[1], 'lora')
  export.to_peft(workdir, name, tmp_path / 'adapter')
  model = tlx.load_run(workdir, name)
  backbone, options = config.named(model.source['backbone'])
  official = sources.load(str(exported[0] / 'official' / 'model.safetensors')).arrays
  layers = adapters.layers(plug('backbones', backbone), official, **options)
  adapter = adapters.load(tmp_path / 'adapter', layers)
  _, leaves = peft.split(model.variables.params, 'lora')
  assert adapter.leaves.keys() == leaves.keys() and not adapter.others
  for leaf, array in leaves.items():
    np.testing.assert_allclose(adapter.leaves[leaf], array, atol=1e-7, err_msg=leaf)
  head = load_file(tmp_path / 'adapter' / 'head.safetensors')
  np.testing.assert_array_equal(head['kernel'], model.variables.params['head']['kernel'])
  with pytest.raises(ValueError, match='added nothing to its source: --to=official'):
    export.to_peft(workdir, name_of(workdir, 'exact'), tmp_path / 'other')


def test_programs_run_without_tlx(exported, texts, finished, photographs, tmp_path):
  pytest.importorskip('flatbuffers', reason="needs flatbuffers: pip install 'tlx-jax[stablehlo]'")
  _, new, logits = exported
  export.to_stablehlo(texts[1], name_of(texts[1], 'lora'), tmp_path / 'texts')
  lines = run_alone(tmp_path / 'texts', new.records[0], new.records[7])
  for line, row in zip(lines, scipy.special.softmax(logits[[0, 7]], -1)):
    name, probability = line.split('\t')[1].split(', ')[0].rsplit(' ', 1)
    assert name == sorted(['food', 'money', 'weather'])[row.argmax()]
    assert float(probability) == pytest.approx(row.max(), abs=6e-4)
  workdir, folder = finished[0], photographs[0]
  export.to_stablehlo(workdir, name_of(workdir, 'lp_ft'), tmp_path / 'images')
  (line,) = run_alone(tmp_path / 'images', str(folder / '003.png'))
  wanted = scipy.special.softmax(kept(workdir, name_of(workdir, 'lp_ft'))['logits'][3])
  assert line.split('\t')[1].split()[0] == str(wanted.argmax())
  assert f'{wanted.max():.3f}' in line
  script = runpy.run_path(str(tmp_path / 'images' / 'use.py'))
  model = tlx.load_run(workdir)
  odd = tmp_path / 'odd'
  odd.mkdir()
  deep = np.random.default_rng(0).integers(0, 65536, (20, 30)).astype(np.uint16)
  Image.fromarray(deep).save(odd / 'deep.png')
  for mode, count in (('RGBA', 4), ('LA', 2)):
    pixels = np.random.default_rng(1).integers(0, 256, (20, 30, count), np.uint8)
    Image.fromarray(pixels).save(odd / f'{mode}.png')
  for record in datasets.unlabelled(odd).records:
    stored, bad = config.form_module(model.source).store([record], model.source['input'])
    assert not bad
    np.testing.assert_array_equal(script['stored'](record), stored[0])


def test_what_has_no_official_names_is_one_error(finished, tmp_path):
  with pytest.raises(ValueError, match='mlp is an architecture of ours: it has no official names'):
    export.to_official(finished[0], 'best', tmp_path / 'x')
  with pytest.raises(ValueError, match='An ensemble is several networks'):
    export.to_artefact(finished[0], 'ensemble', tmp_path / 'x')
  assert not (tmp_path / 'x').exists()


def test_an_ensemble_answers_with_the_mean_of_its_runs(finished, photographs):
  workdir, (folder, _) = finished[0], photographs
  model = tlx.load_run(workdir, 'ensemble')
  assert model.about.startswith('ensemble: the average of 2 runs, whose own score is in no table')
  best, _ = use.best_run(workdir)
  method, size = best.split('-')[2:4]
  of_setting = [
    row.id
    for row in report.read(workdir).itertuples()
    if row.chosen and row.method == method and f'-{size}-' in row.id
  ]
  each = [scipy.special.softmax(kept(workdir, name)['logits'][:40], -1) for name in of_setting]
  found = pd.DataFrame(use.predict(model, datasets.unlabelled(folder)))
  found = found[found.error == '']
  assert len(each) == 2
  np.testing.assert_allclose(found.iloc[:, 3:-1].astype(float), np.mean(each, 0), atol=2e-6)
  with pytest.raises(ValueError, match='An ensemble writes no text'):
    write.check(model)
  with pytest.raises(ValueError, match='Boxes are not averaged'):
    boxes.find(model, datasets.unlabelled(folder))
  with pytest.raises(ValueError, match='An ensemble has no vectors'):
    use.embed(model, datasets.unlabelled(folder))


def test_a_card_tells_the_cells_of_its_runs_apart():
  """Seeds repeat where there are several source seeds or folds."""
  cells = [
    {'source_seed': source, 'fold': None, 'seed': seed, 'learning_rate': 0.01}
    for source in (0, 1)
    for seed in (0, 1)
  ]
  card = {
    'name': 'x',
    'claim': '',
    'method': 'probe',
    'source': 's',
    'target': 't',
    'num_train': 5,
    'run': 'r',
    'column': 'accuracy',
    'caution': 'Its report says no good.',
    'dataset': 'd',
    'provenance': {},
    'versions': {},
    'runs': [{'cell': cell, 'val': 0.5, 'test': None} for cell in cells],
    'data': {'num_examples': {'train': 5}, 'sha256': 'f', 'notes': []},
  }
  lines = artefact.of_card(card).splitlines()
  assert lines[4].endswith('The run is r. Its report says no good.')
  start = lines.index('| source seed | seed | validation | test |')
  assert lines[start + 3] == '| 0 | 1 | 0.5000 |  |' and lines[start + 4].startswith('| 1 | 0 |')
