import collections
import functools
import html.parser
import io
import json
import pathlib
import re
import shutil
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from tlx import report
from tlx.report import drawing, figures, folder, numbers

ROOT = pathlib.Path(__file__).parents[2]
HOSTILE = '</title><script>alert(1)</script> & "quoted" $x^2$'
VOID = {'meta', 'br', 'img', 'link', 'input', 'hr'}


class Checker(html.parser.HTMLParser):
  """Every tag closes in order; collects what the page would load, its ids and its text."""

  def __init__(self):
    super().__init__()
    self.stack, self.loads, self.ids, self.tags, self.text = [], [], [], [], []

  def handle_starttag(self, tag, attributes):
    self.tags.append(tag)
    if tag not in VOID:
      self.stack.append(tag)
    for name, value in attributes:
      if name in ('src', 'href', 'xlink:href', 'data', 'action', 'srcset') and not value.startswith(
        '#'
      ):
        self.loads.append(value)
      if name == 'id':
        self.ids.append(value)

  def handle_startendtag(self, tag, attributes):
    self.handle_starttag(tag, attributes)
    if tag not in VOID:
      self.stack.pop()

  def handle_endtag(self, tag):
    assert self.stack.pop() == tag

  def handle_data(self, data):
    self.text.append(data)


def check(path):
  page = path.read_text(encoding='utf-8')
  checker = Checker()
  checker.feed(page)
  checker.close()
  assert not checker.stack and not checker.loads and 'script' not in checker.tags
  assert not re.search(r'@import|url\((?!#)', page)
  assert len(set(checker.ids)) == len(checker.ids)
  return page, ' '.join(checker.text), checker.tags


@pytest.fixture(scope='module')
def written(study, tmp_path_factory):
  folder_ = tmp_path_factory.mktemp('written') / 'study'
  shutil.copytree(study, folder_)
  return report.write(folder_)


def test_the_page_of_a_large_partial_study(written):
  _, text, tags = check(written)
  assert '480 of 500 runs done (partial' in text and 'are not shown either way' in text
  assert tags.count('svg') == 7 and '95% Student-t interval' in text and 'ab' * 32 in text
  # freeze2, linear, lora and bitfit train less than everything: 4 x 2 sizes x 5 seeds x 3 rates x 2
  # targets
  assert 'unchanged (same SHA-256 before and after every phase) in 240 of 240 runs' in text
  assert '3 settings of learning rate and weight decay in every cell' in text
  names = {path.name for path in (written.parent / 'figures').iterdir()}
  drawn = ('accuracy', 'targets', 'freezing', 'parameters', 'seconds', 'time', 'learning')
  assert names == {f'{name}.svg' for name in drawn} | {f'{name}.png' for name in drawn}
  kinds = {path.suffix for path in (written.parent / 'tables').iterdir()}
  assert kinds == {'.md', '.csv', '.tex'}


def test_the_same_study_gives_the_same_page(tmp_path, make_study):
  make_study(tmp_path, targets=('digits',), methods=('scratch', 'full'), shots=(1, 5), seeds=(0, 1))
  first = report.write(tmp_path).read_bytes()
  assert report.write(tmp_path).read_bytes() == first


def test_what_comes_from_files_is_escaped(tmp_path, make_study):
  make_study(
    tmp_path,
    targets=('digits',),
    methods=('scratch', 'full'),
    shots=(1,),
    seeds=(0, 1),
    rates=(0.01,),
    claim=HOSTILE,
    diverged=False,
  )
  evil = '<img src="http://evil.example/x">$\\frac$'
  study = json.loads((tmp_path / 'study.json').read_text())
  study |= {'name': HOSTILE, 'devices': [evil], 'versions': {evil: evil}}
  study['config'] |= {'note': HOSTILE}
  (tmp_path / 'study.json').write_text(json.dumps(study))
  for path in tmp_path.glob('runs/*/result.json'):
    result = json.loads(path.read_text())
    result['cell'] |= {'target': evil, 'source': evil}
    result |= {'status': evil, 'source_sha256': evil}
    path.write_text(json.dumps(result))
  page, text, tags = check(report.write(tmp_path))
  assert HOSTILE in text and evil in text and 'img' not in tags and '<script' not in page


@pytest.mark.parametrize(
  'options',
  [
    dict(
      targets=('digits',), methods=('full',), shots=(5,), seeds=(0,), rates=(0.01,), baseline=''
    ),
    dict(targets=('digits',), methods=('scratch', 'full'), shots=(5,), seeds=(0,), rates=(0.01,)),
    dict(
      sources=('a', 'b'),
      targets=('x', 'y'),
      methods=('scratch', 'full', 'linear'),
      shots=(1,),
      seeds=(0, 1),
      rates=(0.01,),
    ),
    dict(
      targets=('x',),
      methods=('full', 'linear'),
      shots=(1, 2, 3, 4, 5, 6),
      seeds=(0, 1),
      rates=(0.01,),
      baseline='full',
    ),
    dict(targets=('x',), methods=('full',), shots=(1,), seeds=(0, 1), baseline='not_run'),
    dict(
      targets=('x',),
      methods=('scratch', 'linear', 'probe'),
      shots=(0,),
      seeds=(0, 1),
      rates=(0.01,),
    ),
    dict(
      targets=('x', 'y'),
      methods=('scratch', 'probe_a', 'probe_b'),
      shots=(20, 0, 1, 100),
      seeds=(0, 1),
      rates=(0.01,),
    ),
    dict(
      targets=('x',),
      methods=('probe_a', 'probe_b', 'probe'),
      shots=(5, 0),
      seeds=(0, 1),
      rates=(0.01,),
      baseline='probe',
    ),
  ],
)
def test_small_and_odd_studies_have_a_page_too(tmp_path, options, make_study):
  check(report.write(make_study(tmp_path, **{'diverged': False, **options})))


def test_a_study_without_a_tested_run(tmp_path, make_study):
  make_study(
    tmp_path,
    targets=('x',),
    methods=('full',),
    shots=(1,),
    seeds=(0,),
    rates=(0.001, 0.01),
    diverged=False,
  )
  for path in tmp_path.glob('runs/*/result.json'):
    path.write_text(json.dumps(json.loads(path.read_text()) | {'chosen': False, 'test': None}))
  _, text, _ = check(report.write(tmp_path))
  assert 'there is nothing to compare' in text and 'No setting has been chosen yet' in text


def test_a_changed_digest_and_a_test_peek_are_not_hidden(tmp_path, make_study):
  make_study(
    tmp_path,
    targets=('x',),
    methods=('linear',),
    shots=(1,),
    seeds=(0, 1),
    diverged=False,
    baseline='',
  )
  for path in tmp_path.glob('runs/*seed0*/result.json'):
    result = json.loads(path.read_text())
    result['phases'][0]['frozen_sha256_after'] = 'changed'
    result['test'] = {'accuracy': 0.5, 'loss': 1.0, 'count': 9}
    path.write_text(json.dumps(result))
  _, text, _ = check(report.write(tmp_path))
  assert 'in 3 of 6 runs' in text
  assert 'CHANGED in: mnist-x-linear-1shot-seed0-lr0.001' in text
  assert 'Beware: 2 runs' in text


def test_provenance_says_where_weights_come_from(tmp_path, make_study):
  make_study(
    tmp_path,
    sources=('a', 'b', 'c'),
    targets=('x',),
    methods=('full',),
    shots=(1,),
    seeds=(0,),
    rates=(0.01,),
    diverged=False,
    baseline='',
  )
  origin = {
    'uri': f'https://host/{HOSTILE}',
    'sha256': '12' * 32,
    'licence': 'Apache-2.0',
    'format': 'pth',
    'num_tensors': 9,
    'left_out': ['optimizer'],
  }
  loaded = {
    'provenance': origin,
    'names': {'stem/kernel': 'conv.weight'},
    'fresh': ['head/bias', 'head/kernel'],
    'ignored': ['fc.weight', *(f'layer{i}.num_batches_tracked' for i in range(5))],
  }
  for name, result in {
    'a': loaded,
    'b': {'config': {'dataset': 'mnist5k'}, 'test': {'accuracy': 0.987}},
  }.items():
    (tmp_path / 'sources' / name).mkdir(parents=True)
    (tmp_path / 'sources' / name / 'result.json').write_text(json.dumps(result))
  _, text, _ = check(report.write(tmp_path))
  for words in (
    origin['uri'],
    '12' * 32,
    'Apache-2.0',
    'pth',
    '9 in the file, 1 taken over',
    'head/bias, head/kernel',
    '5 × num_batches_tracked, fc.weight, optimizer',
    'mnist5k, test accuracy 98.7%',
  ):
    assert words in text
  assert 'Source c' not in text


def test_all_examples_are_drawn_at_their_number(tmp_path, make_study, monkeypatch):
  kept = []
  monkeypatch.setattr(figures, 'render', lambda figure: kept.append(figure) or ('', b''))
  options = dict(
    targets=('x',),
    methods=('scratch', 'probe_a', 'probe_b'),
    shots=(0, 100, 5),
    seeds=(0, 1),
    rates=(0.01,),
    diverged=False,
  )
  results = folder.load(make_study(tmp_path, **options))
  names = [drawing.name for drawing in figures.make(results)]
  assert names == ['accuracy', 'stages', 'parameters', 'seconds', 'time', 'learning']
  ax = kept[0].axes[0]
  assert ax.get_xticks().tolist() == [5, 100, 156]
  assert [label.get_text().strip() for label in ax.get_xticklabels()] == ['5', '100', 'all (156)']
  ax = kept[1].axes[0]
  assert [label.get_text() for label in ax.get_xticklabels()] == ['a (mean)', 'b (mean)']
  assert ax.get_legend_handles_labels()[1] == [
    'guessing',
    '5 per class',
    '100 per class',
    'all (156) per class',
  ]
  figures.make(results._replace(all_shots={}))
  ax = next(figure for figure in kept[len(names) :]).axes[0]
  assert ax.get_xticks().tolist() == [5, 100, 400]
  assert ax.get_xticklabels()[-1].get_text().strip() == 'all'


def test_no_figure_without_what_it_shows(tmp_path, make_study):
  make_study(
    tmp_path,
    targets=('x',),
    methods=('scratch', 'full'),
    shots=(1,),
    seeds=(0,),
    rates=(0.01,),
    diverged=False,
  )
  for path in tmp_path.glob('runs/*/metrics.jsonl'):
    path.unlink()
  assert [drawing.name for drawing in figures.make(folder.load(tmp_path))] == [
    'accuracy',
    'parameters',
    'seconds',
    'time',
  ]


@pytest.fixture
def drawn(monkeypatch):
  """The figures as they are made, in their order, instead of their pictures."""
  kept = []
  monkeypatch.setattr(figures, 'render', lambda figure: kept.append(figure) or ('', b''))
  return kept


def test_percentages_stay_within_0_and_100_and_guessing_is_drawn(
  tmp_path, make_study, change_runs, drawn
):
  make_study(
    tmp_path,
    targets=('x',),
    methods=('scratch', 'full', 'linear'),
    shots=(1, 5),
    seeds=(0, 1, 2),
    rates=(0.01,),
    diverged=False,
  )

  def spread(result):  # intervals of 99 and 2 percent, wide
    score = (
      (0.96, 1.0, 1.0)[result['cell']['seed']]
      if result['cell']['method'] != 'linear'
      else (0.0, 0.04, 0.0)[result['cell']['seed']]
    )
    result['test'] |= {'accuracy': score}

  change_runs(tmp_path, spread)
  names = [drawing.name for drawing in figures.make(folder.load(tmp_path))]
  for name in ('accuracy', 'freezing', 'parameters', 'seconds', 'learning'):
    for ax in drawn[names.index(name)].axes:
      assert 0 <= ax.get_ylim()[0] < ax.get_ylim()[1] <= 100
      bars = []
      for collection in ax.collections:
        for path in collection.get_paths():
          bars += path.vertices[:, 1].tolist()
      assert bars and min(bars) >= 0 and max(bars) <= 100
      assert any(np.array_equal(np.unique(line.get_ydata()), [10.0]) for line in ax.lines)


def test_equal_curves_lie_beside_each_other_and_are_named(tmp_path, make_study, drawn):
  make_study(
    tmp_path,
    targets=('x',),
    methods=('scratch', 'full', 'freeze2'),
    shots=(1,),
    seeds=(0, 1),
    rates=(0.01,),
    diverged=False,
  )
  for path in tmp_path.glob('runs/*freeze2*/metrics.jsonl'):
    path.write_text(pathlib.Path(str(path).replace('freeze2', 'full')).read_text())
  made = figures.make(folder.load(tmp_path))
  assert 'The same everywhere: full and freeze2.' in made[-1].caption
  curves = [line for line in drawn[-1].axes[0].lines if len(line.get_xdata()) == 5]
  full, freeze2 = curves[1], curves[2]
  assert np.array_equal(full.get_ydata(), freeze2.get_ydata())
  assert (full.get_xdata() < freeze2.get_xdata()).all()
  assert full.get_marker() != freeze2.get_marker()


def test_the_figures_of_time_say_what_they_hold(tmp_path, make_study, change_runs, drawn):
  make_study(
    tmp_path,
    targets=('x',),
    methods=('scratch', 'full'),
    shots=(1,),
    seeds=(0, 1),
    rates=(0.01,),
    diverged=False,
  )
  captions = {drawing.name: drawing.caption for drawing in figures.make(folder.load(tmp_path))}
  assert 'Validation during training is among them' in captions['seconds']
  assert 'does not tell validation' in captions['time']
  costs = {
    'eval_seconds': 1.0,
    'feature_seconds': 2.0,
    'compile_seconds': 4.0,
    'train_seconds': 8.0,
  }
  change_runs(tmp_path, lambda result: result['cost'].update(costs))
  drawn.clear()
  made = figures.make(folder.load(tmp_path))
  captions = {drawing.name: drawing.caption for drawing in made}
  assert 'Training steps alone' in captions['seconds'] and 'does not tell' not in captions['time']
  figure = drawn[[drawing.name for drawing in made].index('time')]
  bars = sorted((patch.get_x(), patch.get_width()) for patch in figure.axes[0].patches)
  assert bars == [(0.0, 8.0)] * 2 + [(8.0, 1.0)] * 2 + [(9.0, 2.0)] * 2 + [(11.0, 4.0)] * 2


def test_a_source_without_a_digest_leaves_no_comma(tmp_path, make_study, change_runs):
  make_study(
    tmp_path,
    targets=('x',),
    methods=('scratch', 'full'),
    shots=(1,),
    seeds=(0, 1),
    rates=(0.01,),
    diverged=False,
  )
  digests = {'random': '', 'source': 'ab' * 32}
  change_runs(tmp_path, lambda result: result.update(source_sha256=digests[result['init']]))
  page, _, _ = check(report.write(tmp_path))
  assert f'>{"ab" * 32}<' in page and f', {"ab" * 32}' not in page


def test_the_page_says_classes_notes_and_what_was_assumed(tmp_path, make_study, change_runs):
  make_study(
    tmp_path,
    targets=('x',),
    methods=('scratch', 'full'),
    shots=(1,),
    seeds=(0, 1),
    rates=(0.01,),
    diverged=False,
  )
  study = json.loads((tmp_path / 'study.json').read_text())
  counts = {'train': 1200, 'val': 30, 'test': 9}
  data = {'class_names': ['ant', HOSTILE], 'num_examples': counts, 'notes': ['2 copies.']}
  (tmp_path / 'study.json').write_text(json.dumps(study | {'data': {'mnist/x': data}}))
  jax = ('0.10.2', '0.12')
  change_runs(tmp_path, lambda result: result.update(versions={'jax': jax[result['cell']['seed']]}))
  (tmp_path / 'sources' / 'mnist').mkdir(parents=True)
  (tmp_path / 'sources' / 'mnist' / 'result.json').write_text('{"assumed": ["tanh GELU."]}')
  (tmp_path / 'time.json').write_text('[{"wall_seconds": 9.0, "train_seconds": 9.0}]')
  _, text, _ = check(report.write(tmp_path))
  for words in (
    f'2: ant, {HOSTILE}',
    '1,200 train, 30 val, 9 test',
    'mnist → x: 2 copies.',
    'Source mnist: assumed: tanh GELU.',
    'jax 0.12 instead of 0.10.2',
    'Where the time of the study went',
  ):
    assert words in text


def test_cells_carry_the_names_of_their_columns(written):
  page, _, _ = check(written)
  assert (
    '<div class="table many" tabindex="0" role="region" aria-label="' in page
    and '<td role="cell" data-column="95% interval">' in page
  )


def test_the_command(tmp_path, make_study):
  make_study(
    tmp_path,
    targets=('x',),
    methods=('scratch', 'full'),
    shots=(1,),
    seeds=(0, 1),
    rates=(0.01,),
    diverged=False,
  )
  run = functools.partial(
    subprocess.run,
    cwd=pathlib.Path(__file__).parents[2],
    capture_output=True,
    text=True,
    encoding='utf-8',
  )
  command = [sys.executable, '-W', 'error', '-m', 'experiments.report']
  done = run([*command, f'--workdir={tmp_path}'])
  assert done.returncode == 0
  assert 'Test accuracy in %' in done.stdout
  assert done.stdout.endswith('report.html\n')
  missing = run([*command, f'--workdir={tmp_path / "nowhere"}'])
  assert missing.returncode == 2
  assert missing.stderr.count('\n') == 1
  assert 'no such folder' in missing.stderr
  for misuse in ([], [f'--workdir={tmp_path}', 'stray']):
    bad = run([*command, *misuse])
    assert bad.returncode == 1 and 'Traceback' not in bad.stderr and 'workdir' in bad.stderr


def test_all_at_once_is_what_each_gives(make_study, tmp_path):
  make_study(tmp_path, methods=('scratch', 'full'), shots=(5,), rates=(0.003,))
  wanted = report.summary(tmp_path), report.write(tmp_path).read_text()
  said, path = report.written(tmp_path)
  assert (said, path.read_text()) == wanted


def test_what_is_remembered_is_of_these_results(make_study, tmp_path):
  for name in ('one', 'other'):
    make_study(tmp_path / name, methods=('scratch', 'full'), shots=(5,), rates=(0.003,))
  one, other = (folder.load(tmp_path / name) for name in ('one', 'other'))
  found = numbers.means(one)
  found['mean'] = 0.0  # of the caller alone
  assert (numbers.means(one)['mean'] > 0).all()
  less = one._replace(runs=one.runs[one.runs.method == 'full'])
  assert set(numbers.means(less).method) == {'full'} and len(numbers.means(other)) == len(found)
  assert set(numbers.means(one).method) == {'scratch', 'full'}


def test_a_report_reads_each_curve_once_and_draws_each_figure_twice(
  make_study, tmp_path, monkeypatch
):
  make_study(tmp_path, methods=('scratch', 'full', 'linear'), rates=(0.003,))
  read, drawn = collections.Counter(), collections.Counter()
  file, draw = folder._file, Figure.draw

  def counted_file(path):
    read[path] += path.name == 'metrics.jsonl'
    return file(path)

  def counted_draw(figure, renderer):
    drawn[id(figure)] += 1
    return draw(figure, renderer)

  monkeypatch.setattr(folder, '_file', counted_file)
  monkeypatch.setattr(Figure, 'draw', counted_draw)
  report.written(tmp_path)
  curves = [count for path, count in read.items() if path.name == 'metrics.jsonl']
  assert len(curves) == 3 * 2 * 2 * 5 - 1 and set(curves) == {1}  # one run diverged at once
  assert len(drawn) > 3 and set(drawn.values()) == {2}  # as SVG and as PNG


def test_figures_are_those_that_matplotlib_saves():
  def made():
    figure, axes = drawing.panels(3, 2)
    for ax in axes:
      ax.plot([1, 10, 100], [0.1, 0.4, 0.2], label='a line')
      ax.set(title='title', xlabel='x', xscale='log')
    drawing.legend(figure, axes)
    return figure

  with matplotlib.rc_context(drawing.STYLE):
    found, figure = drawing.render(made()), made()
    svg, png = io.BytesIO(), io.BytesIO()
    nothing = dict.fromkeys(('Creator', 'Date', 'Format', 'Type'))
    figure.savefig(svg, format='svg', metadata=nothing)
    figure.set_layout_engine('none')
    figure.savefig(png, format='png', dpi=200, facecolor='white', metadata={'Software': None})
  assert found == (svg.getvalue().decode(), png.getvalue())


def test_a_report_waits_for_no_statistics_that_it_does_not_need():
  code = 'import sys, tlx.report.page; sys.exit("scipy.stats" in sys.modules)'
  assert subprocess.run([sys.executable, '-c', code], cwd=ROOT).returncode == 0
