"""Every evaluator: flat columns, nothing changed; values by hand, and scikit-learn's."""

import fnmatch
import hashlib
import importlib.util
import math
import sys

import numpy as np
import pytest
from sklearn import metrics as sk_metrics
from sklearn import neighbors as sk_neighbors

from tlx.evaluators import (
  Answer,
  Finished,
  Line,
  Part,
  Recalled,
  Speed,
  _scores,
  answers,
  auroc,
  barrier,
  calibration,
  class_mean,
  confusion,
  corruptions,
  drift,
  f1,
  forgetting,
  knn,
  ood,
  other_text,
  top_k,
)
from tlx.plug import available, plug
from tlx.similarity import cka
from tlx.tasks import classification, language

OPTIONS = {
  'ood': {'dataset': 'uci_digits'},
  'other_text': {'dataset': 'text:README.md', 'rows': 3},
  'top_k': {'k': 2},
  'corruptions': {'severities': (1, 3)},
}


_MISSING = [name for name in ('rouge_score', 'sacrebleu') if not importlib.util.find_spec(name)]
with_answers = pytest.mark.skipif(
  bool(_MISSING), reason=f"{', '.join(_MISSING)} not installed: pip install '.[answers]'"
)
EVALUATORS = [
  pytest.param(name, marks=with_answers if name == 'answers' else ())
  for name in available('evaluators')
]


def finished(logits, labels, **changes):
  """A run whose outputs on every part are `logits`, and so are its features."""
  logits, labels = np.asarray(logits, np.float32), np.asarray(labels)
  inputs = np.random.default_rng(0).integers(0, 256, (len(labels), 8, 8, 1)).astype(np.uint8)
  made = Finished(
    predict=lambda part: {'logits': logits},
    features=lambda part: logits,
    by_stage=lambda part, stages, source=False: dict.fromkeys(stages, logits),
    data=lambda part: Part(inputs, labels),
    task=classification.task(logits.shape[1]),
    on_source=lambda: Recalled(logits, logits[::-1], labels),
    on_text=lambda name, rows: ({'bits_per_byte': 2.0 + rows}, {'bits_per_byte': 1.5}),
    load=lambda name: inputs,
    speed=lambda batch_size: Speed(10.0 * batch_size, 5.0, 'cpu'),
    answers=lambda prompts, tokens: said(),
    line=lambda points: line([1.0, 3.0, 2.0]),
    stages=('a', 'b'),
    params={'a': {'kernel': np.ones(3)}, 'head': {'kernel': np.ones(2)}},
    source_params={'a': {'kernel': np.zeros(3)}},
  )
  return made._replace(**changes)


# ROUGE-L (rouge_score 0.1.2) and chrF (sacrebleu 2.6.0) of these, by the libraries themselves
HYPOTHESES = (
  'The cat sat on the mat .',
  'Hello world',
  'The quick brown fox jumped over the lazy dog',
  'El niño comió una manzana.',
  '',
  'the the the the',
)
REFERENCES = (
  'The cat is on the mat .',
  'Hello there world',
  'The quick brown fox jumps over the lazy dog.',
  'El niño se comió la manzana.',
  'something',
  'the cat',
)
ROUGE_L = (5 / 6, 0.8, 8 / 9, 10 / 13, 0.0, 1 / 3)
CHRF = 63.02004438046289


def said():
  prompt = (('user', 'Well?'),)
  return [
    Answer(str(i), prompt, reference, text, ended=i > 0)
    for i, (text, reference) in enumerate(zip(HYPOTHESES, REFERENCES))
  ]


def line(losses):
  """Between seeds 3 and 5, half as accurate where the loss is twice as large."""
  return Line((3, 5), 2.5, [{'loss': loss, 'accuracy': 1 / loss} for loss in losses])


# probabilities .5 .25 .25 / .1 .8 .1 / .25 .25 .5 / .6 .3 .1
HAND = np.log([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.25, 0.25, 0.5], [0.6, 0.3, 0.1]])
LABELS = np.array([0, 1, 0, 1])


def random_case(seed):
  random = np.random.default_rng(seed)
  classes, number = int(random.integers(2, 8)), int(random.integers(20, 200))
  logits = np.round(random.normal(size=(number, classes)) * 2, 1)  # with ties
  labels = np.concatenate([np.arange(classes), random.integers(0, classes, number - classes)])
  return random, logits, labels


@pytest.mark.parametrize('name', EVALUATORS)
def test_columns_are_flat_and_nothing_is_changed(name):
  _, logits, labels = random_case(1)
  run = finished(logits, labels, **({'task': language.task()} if name == 'other_text' else {}))
  arrays = [run.predict('test')['logits'], *run.data('test'), run.params['a']['kernel']]
  before = [hashlib.sha256(array.tobytes()).hexdigest() for array in arrays]
  module = plug('evaluators', name)
  options = OPTIONS.get(name, {})
  if hasattr(module, 'check'):
    module.check(run.task, **options)
  columns = module.evaluate(run, **options)
  assert columns and module.KEPT in ('', 'logits')
  for column, value in columns.items():
    assert column.replace('_', 'a').isalnum() and isinstance(value, (int, float, list))
    if not isinstance(value, list):
      assert any(fnmatch.fnmatch(column, known) for known in module.COLUMNS)
  assert before == [hashlib.sha256(array.tobytes()).hexdigest() for array in arrays]
  assert repr(module.evaluate(run, **options)) == repr(columns)


def test_no_two_evaluators_give_one_column():
  _, logits, labels = random_case(1)
  run = finished(logits, labels)
  columns = []
  there = [name for name in available('evaluators') if name != 'answers' or not _MISSING]
  for name in there:
    columns += plug('evaluators', name).evaluate(run, **OPTIONS.get(name, {}))
  assert len(set(columns)) == len(columns)


@with_answers
def test_answers_are_scored_as_the_libraries_do():
  columns = answers.evaluate(finished(HAND, LABELS))
  assert columns['rouge_l'] == pytest.approx(sum(ROUGE_L) / 6)
  assert columns['chrf'] == pytest.approx(CHRF)
  assert (columns['ended'], columns['prompts']) == (pytest.approx(5 / 6), 6)
  assert columns['answers'][1][:4] == ['1', 'user: Well?', 'Hello there world', 'Hello world']
  assert [row[4] for row in columns['answers']] == pytest.approx(ROUGE_L)
  nothing = answers.evaluate(finished(HAND, LABELS, answers=lambda prompts, tokens: []))
  assert nothing['prompts'] == 0 and math.isnan(nothing['chrf']) and nothing['answers'] == []


def test_answers_want_their_libraries(monkeypatch):
  for name in ('rouge_score', 'sacrebleu'):
    monkeypatch.setitem(sys.modules, name, None)
  with pytest.raises(ValueError, match=r"not installed. pip install '.\[answers\]'"):
    answers.check(classification.task(3))
  with pytest.raises(ValueError, match='at least one of prompts and tokens, got 0 and 64'):
    answers.check(classification.task(3), prompts=0)


def test_calibration_by_hand():
  columns = calibration.evaluate(finished(HAND, LABELS), bins=3)
  # none in (0, 1/3]; .5 (right), .5 and .6 (wrong) in (1/3, 2/3]; .8 (right) in (2/3, 1]
  (empty, middle, last) = columns['reliability']
  assert empty[0] == 0 and math.isnan(empty[1]) and math.isnan(empty[2])
  assert middle == [3, pytest.approx(1.6 / 3), pytest.approx(1 / 3)]
  assert last == [1, pytest.approx(0.8), 1]
  assert columns['ece'] == pytest.approx(3 / 4 * (1.6 / 3 - 1 / 3) + 1 / 4 * 0.2, abs=1e-6)
  assert columns['nll'] == pytest.approx(-np.log([0.5, 0.8, 0.25, 0.3]).mean(), abs=1e-6)


def test_the_temperature_is_where_the_likelihood_is_largest():
  """Three of four right with a logit of 4 over 0: the best is 3/4, so 4 / T = log 3."""
  logits = np.array([[4.0, 0.0]] * 4)
  fitted = calibration.temperature(logits, np.array([0, 0, 0, 1]))
  assert fitted == pytest.approx(4 / math.log(3), rel=1e-5)
  # there the probability of the first class is its share of the labels
  table = calibration.reliability(logits / fitted, np.array([0, 0, 0, 1]), 10)
  assert calibration.error(table) == pytest.approx(0, abs=1e-5)
  # nothing wrong on validation: the colder the better, so there is none
  assert calibration.temperature(logits, np.zeros(4, int)) == 1.0


def test_the_temperature_comes_from_validation():
  val = np.array([[4.0, 0.0]] * 4)
  run = finished(HAND[:, :2], [0, 1, 0, 1])
  parts = {'val': (val, np.array([0, 0, 0, 1])), 'test': (np.array([[0.0, 0.0]]), np.array([0]))}
  run = run._replace(
    predict=lambda part: {'logits': parts[part][0]}, data=lambda part: Part(None, parts[part][1])
  )
  columns = calibration.evaluate(run)
  assert columns['temperature'] == pytest.approx(4 / math.log(3), rel=1e-5)
  assert columns['nll_scaled'] == pytest.approx(math.log(2))


def test_barriers_by_hand():
  columns = barrier.evaluate(finished(HAND, LABELS), points=3)
  assert columns == {
    'line_distance': 2.5,
    'line_seeds': [3, 5],
    'loss_barrier': 1.5,  # 3 at a chord of 1.5
    'line_loss': [1.0, 3.0, 2.0],
    'accuracy_barrier': pytest.approx(0.75 - 1 / 3),  # 1/3 at a chord of .75
    'line_accuracy': [1.0, 1 / 3, 0.5],
  }
  better = barrier.evaluate(finished(HAND, LABELS, line=lambda points: line([2.0, 1.0, 2.0])))
  assert better['loss_barrier'] == better['accuracy_barrier'] == 0.0
  lost = barrier.evaluate(finished(HAND, LABELS, line=lambda points: line([2.0, math.nan, 2.0])))
  assert math.isnan(lost['loss_barrier'])
  assert barrier.evaluate(finished(HAND, LABELS, line=lambda points: None)) == {}
  with pytest.raises(ValueError, match='3 points on the line or more, got 2'):
    barrier.check(classification.task(3), points=2)


def test_top_k_by_hand():
  run = finished(HAND, [2, 0, 1, 1])
  # of equal logits the lower class is first: .25 .25 of the first and third run
  assert top_k.evaluate(run, k=1) == {'top_1_accuracy': 0.0}
  assert top_k.evaluate(run, k=2) == {'top_2_accuracy': 0.5}


@pytest.mark.parametrize('seed', range(8))
def test_values_are_scikit_learns(seed):
  random, logits, labels = random_case(seed)
  number, classes = logits.shape
  train, test = random.normal(size=(50, 5)), random.normal(size=(number, 5))
  seen = random.integers(0, classes, 50)
  run = finished(
    logits,
    labels,
    features=lambda part: train if part == 'train' else test,
    data=lambda part: Part(None, seen if part == 'train' else labels),
  )
  share = _scores.probabilities(logits.astype(np.float32))
  wanted = sk_metrics.roc_auc_score(
    labels, share if classes > 2 else share[:, 1], multi_class='ovr', average='macro'
  )
  assert auroc.evaluate(run)['auroc'] == pytest.approx(wanted, abs=1e-12)
  wanted = sk_metrics.f1_score(labels, logits.argmax(-1), average='macro')
  assert f1.evaluate(run)['macro_f1'] == pytest.approx(wanted, abs=1e-12)
  wanted = sk_metrics.log_loss(labels, share, labels=range(classes))
  assert calibration.log_loss(logits, labels) == pytest.approx(wanted, abs=1e-6)
  wanted = sk_metrics.confusion_matrix(labels, logits.argmax(-1), labels=range(classes))
  assert confusion.evaluate(run)['confusion'] == wanted.tolist()
  nearest = sk_neighbors.NearestCentroid().fit(train, seen)
  wanted = (nearest.predict(test) == labels).mean()
  assert class_mean.evaluate(run)['class_mean_accuracy'] == pytest.approx(wanted, abs=1e-12)
  voting = sk_neighbors.KNeighborsClassifier(
    7, metric='cosine', weights=lambda distance: np.exp((1 - distance) / 0.07), algorithm='brute'
  )
  wanted = (voting.fit(train, seen).predict(test) == labels).mean()
  assert knn.evaluate(run, k=7)['knn_accuracy'] == pytest.approx(wanted, abs=1e-12)


def test_an_absent_class_has_a_stated_answer():
  logits, labels = np.eye(4)[[0, 1, 0, 1]] * 5, np.array([0, 1, 1, 1])
  run = finished(logits, labels)
  # classes 2 and 3 are neither there nor answered: F1 of 0 is 2/3, of 1 is 4/5
  assert f1.evaluate(run)['macro_f1'] == pytest.approx((2 / 3 + 4 / 5) / 2)
  # of 0: its positive 5 against 0, 5, 0 -> (1 + .5 + 1) / 3; the same of 1
  assert auroc.evaluate(run)['auroc'] == pytest.approx(2.5 / 3)
  assert math.isnan(auroc.evaluate(finished(logits, np.zeros(4, int)))['auroc'])
  # a class without training examples is never the answer
  parts = {'train': np.array([0, 0, 1, 1]), 'test': np.array([2, 0, 1, 1])}
  run = run._replace(data=lambda part: Part(None, parts[part]), features=lambda part: logits)
  assert class_mean.evaluate(run)['class_mean_accuracy'] <= 0.75


def test_neighbours_that_are_fewer_than_k_all_vote():
  """Cosines .8 of one of class 0, .6 of two of class 1: the nearer wins where votes are cold."""
  train = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
  parts = {'train': train, 'test': np.array([[0.8, 0.6]])}
  run = finished(np.zeros((1, 2)), [0], features=lambda part: parts[part])
  run = run._replace(data=lambda part: Part(None, np.array([0, 1, 1] if part == 'train' else [0])))
  assert knn.evaluate(run, k=20, temperature=0.07) == {'knn_accuracy': 1.0}
  assert knn.evaluate(run, k=20, temperature=10.0) == {'knn_accuracy': 0.0}
  assert knn.evaluate(run, k=1, temperature=10.0) == {'knn_accuracy': 1.0}


def test_drift_by_hand():
  random = np.random.default_rng(0)
  features = {
    ('a', False): random.normal(size=(40, 3)),
    ('b', False): np.ones((40, 3)),
    ('b', True): random.normal(size=(40, 3)),
  }
  turn = np.linalg.qr(random.normal(size=(3, 3)))[0]
  features['a', True] = 4 * features['a', False] @ turn + 1
  run = finished(
    HAND,
    LABELS,
    by_stage=lambda part, stages, source: {stage: features[stage, source] for stage in stages},
    params={
      'b': {'kernel': np.ones(1)},
      'a': {'kernel': np.array([3.0, 0.0]), 'bias': np.array([4.0]), 'added': {'lora': np.ones(9)}},
      'head': {'kernel': np.ones(2)},
    },
    source_params={'a': {'kernel': np.zeros(2), 'bias': np.zeros(1)}},
  )
  columns = drift.evaluate(run)
  assert columns['cka_a'] == pytest.approx(1.0) and math.isnan(columns['cka_b'])
  assert columns['l2_a'] == pytest.approx(5.0) and 'l2_head' not in columns
  assert drift.evaluate(run._replace(source_params=None)) == {}
  # against the Gram matrices of the definition (Kornblith et al. 2019, eq. 1 and 3)
  x, y = random.normal(size=(20, 4)), random.normal(size=(20, 6))
  middle = np.eye(20) - 1 / 20
  gram_x, gram_y = middle @ x @ x.T @ middle, middle @ y @ y.T @ middle
  wanted = (gram_x * gram_y).sum() / np.sqrt((gram_x**2).sum() * (gram_y**2).sum())
  assert cka.similarity(x, y) == pytest.approx(wanted)


def test_other_text_by_hand():
  """The stand-in says 2 + rows bits of the run and 1.5 of its source."""
  columns = other_text.evaluate(finished(HAND, LABELS), dataset='text:README.md', rows=3)
  assert columns == {'other_bits_per_byte': 5.0, 'forgotten_bits_per_byte': 3.5}
  at_random = finished(HAND, LABELS, on_text=lambda name, rows: ({'bits_per_byte': 2.0}, None))
  columns = other_text.evaluate(at_random, dataset='text:README.md')
  assert columns == {'other_bits_per_byte': 2.0}
  with pytest.raises(ValueError, match='for language models'):
    other_text.check(classification.task(3), dataset='text:README.md')
  with pytest.raises(
    ValueError, match='reads running text.*uci_digits holds examples of kind image'
  ):
    other_text.check(language.task(), dataset='uci_digits')


def test_forgetting_by_hand():
  recalled = Recalled(np.eye(2)[[0, 0, 1, 1]], np.eye(2)[[0, 1, 1, 1]], np.array([0, 1, 0, 1]))
  columns = forgetting.evaluate(finished(HAND, LABELS, on_source=lambda: recalled))
  assert columns == {'source_accuracy': 0.5, 'forgotten_accuracy': 0.25}
  assert forgetting.evaluate(finished(HAND, LABELS, on_source=lambda: None)) == {}


def test_out_of_distribution_by_hand():
  inside, outside = np.array([[3.0, 0.0], [1.0, 0.0]]), np.array([[0.0, 2.0], [9.0, 9.0]])
  run = finished(inside, [0, 1])
  run = run._replace(predict=lambda part: {'logits': inside if isinstance(part, str) else outside})
  columns = ood.evaluate(run, 'uci_digits')
  # gaps 3, 1 against 2, 0: 3 of 4 pairs; energies 3.05, 1.31 against 2.13, 9.69: 1 of 4
  assert columns == {'ood_softmax_auroc': 0.75, 'ood_energy_auroc': 0.25}


def test_corruptions_grow_with_severity_and_are_the_same_for_all_runs():
  images = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3)).astype(np.uint8)
  for name in corruptions.CORRUPTIONS:
    changed = [corruptions.corrupted(images, name, severity) for severity in (1, 3, 5)]
    sizes = [np.abs(one.astype(float) - images).mean() for one in changed]
    assert changed[0].shape == images.shape and changed[0].dtype == np.uint8
    assert 0 < sizes[0] < sizes[1] < sizes[2], name
    np.testing.assert_array_equal(changed[1], corruptions.corrupted(images, name, 3))


def test_corruptions_by_hand():
  grey = np.full((1, 4, 4, 3), 102, np.uint8)  # 0.4
  assert (corruptions.corrupted(grey, 'brightness', 2) == 153).all()  # 0.6
  assert (corruptions.corrupted(grey, 'contrast', 5) == 102).all()
  colour = np.array([[[[102, 51, 0]]]], np.uint8)
  assert corruptions.corrupted(colour, 'brightness', 2).tolist() == [[[[153, 76, 0]]]]
  black_white = np.array([[[[0], [255]]]], np.uint8)
  # means 0.5: 0.5 +- 0.05 * 0.5
  assert corruptions.corrupted(black_white, 'contrast', 5).ravel().tolist() == [121, 133]
  noisy = corruptions.corrupted(np.full((1, 200, 200, 1), 128, np.uint8), 'gaussian_noise', 1)
  assert np.std(noisy / 255) == pytest.approx(0.08, rel=0.02)
  spots = corruptions.corrupted(np.full((1, 200, 200, 1), 128, np.uint8), 'impulse_noise', 5)
  assert np.mean(spots != 128) == pytest.approx(0.27, abs=0.01)
  assert np.mean(spots == 0) == pytest.approx(0.135, abs=0.01)
  shot = corruptions.corrupted(np.full((1, 200, 200, 1), 51, np.uint8), 'shot_noise', 1)
  assert np.mean(shot / 255) == pytest.approx(0.2, abs=0.01)
  assert np.var(shot / 255) == pytest.approx(0.2 / 60, rel=0.05)
  checks = np.indices((8, 8)).sum(0)[None, :, :, None] % 2 * 255
  coarse = corruptions.corrupted(checks.astype(np.uint8), 'pixelate', 2)
  assert np.abs(coarse.astype(int) - 127).max() <= 1


@pytest.mark.parametrize(
  'name, options, words',
  [
    ('top_k', {'k': 3}, 'from 1 to 2'),
    ('top_k', {'k': 1.5}, 'whole k'),
    ('calibration', {'bins': 0}, 'whole number of bins'),
    ('knn', {'k': 0}, 'whole k'),
    ('knn', {'temperature': 0.0}, 'above 0'),
    ('corruptions', {'names': ('fog',)}, "Unknown corruption 'fog'"),
    ('corruptions', {'severities': (0, 1)}, '1 to 5'),
    ('ood', {'dataset': 'no_such_set'}, 'Unknown data set'),
  ],
)
def test_bad_options_are_errors(name, options, words):
  with pytest.raises(ValueError, match=words):
    plug('evaluators', name).check(classification.task(3), **options)
  with pytest.raises(ValueError, match='at most 200 classes'):
    confusion.check(classification.task(201))
