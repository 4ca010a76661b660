"""Every score of the room: official values, invariances, and what it says of odd examples."""

import numpy as np
import pytest
from scipy import optimize, stats
from scipy.spatial.distance import cdist

from tests.scores.golden import GOLDEN, drawn
from tlx.plug import available, plug

DRAWN = drawn()
LABELS, FEATURES, PROBS = DRAWN['labels'], DRAWN['features'], DRAWN['probs']
SOURCE = {
  'source_features': np.random.RandomState(5).randn(300, FEATURES.shape[1]),
  'source_labels': np.arange(300) % 4,
}
WANTED = GOLDEN['scores']
# of a value an example; what is about a whole network has a test of its own
NAMES = [name for name in available('scores') if 'fisher' not in plug('scores', name).NEEDS]


def scored(name: str, labels=LABELS, rows=slice(None), **options) -> float:
  module = plug('scores', name)
  evidence = {'features': FEATURES[rows], 'probs': PROBS[rows], **SOURCE}
  return module.score(labels[rows], **{n: evidence[n] for n in module.NEEDS}, **options)


def of_source(module, width: int) -> dict:
  """Examples of a source, for those scores that want them."""
  if 'source_features' not in module.NEEDS:
    return {}
  return {
    'source_features': SOURCE['source_features'][:, :1].repeat(width, 1),
    'source_labels': SOURCE['source_labels'],
  }


@pytest.mark.parametrize(
  ('name', 'options', 'golden'),
  [
    ('nce', {}, 'nce'),
    ('leep', {}, 'leep'),
    ('nleep', {}, 'nleep'),
    ('logme', {}, 'logme'),
    ('h_score', {}, 'h_score'),
    ('h_score', {'shrinkage': True}, 'h_score shrinkage'),
    ('transrate', {}, 'transrate'),
    ('transrate', {'epsilon': 0.1}, 'transrate epsilon=.1'),
    ('gbc', {}, 'gbc'),
    ('sfda', {}, 'sfda'),
    ('knn', {}, 'knn'),
    ('knn', {'k': 5}, 'knn k=5'),
    ('energy', {}, 'energy'),
  ],
)
def test_official_values(name, options, golden):
  np.testing.assert_allclose(scored(name, **options), WANTED[golden], rtol=1e-9)


@pytest.mark.parametrize('strength', ['10', '1', '0.1'])
def test_pactran_is_the_official_bound(strength):
  """That code stops after 100 iterations at a tolerance of 1e-6: the fourth digit is its own."""
  wanted = WANTED['pactran'][strength]
  found = [
    -scored('pactran', strength=float(strength), variance=variance) for variance in (100, 10)
  ]
  np.testing.assert_allclose(found, wanted, rtol=3e-4)


def test_logme_counts_every_feature_where_examples_are_fewer():
  found = plug('scores', 'logme').score(np.arange(12) % 5, FEATURES[:12])
  np.testing.assert_allclose(
    found, WANTED['logme exact of the first 12, labels 0 to 4 in turn'], rtol=1e-6
  )


def test_logme_is_the_evidence_of_the_normal_distribution():
  """log N(t; 0, I / beta + F F^T / alpha) / N at the alpha and beta that it arrives at."""
  from tlx.scores import logme

  rng = np.random.RandomState(3)
  features, target = rng.randn(9, 14), rng.randn(9)
  left, singular, _ = np.linalg.svd(features, full_matrices=False)
  found = logme.evidence(left, singular**2, 14, target)
  grid = np.exp(np.linspace(-6, 6, 61))
  best = max(
    stats.multivariate_normal.logpdf(
      target, np.zeros(9), np.eye(9) / beta + features @ features.T / alpha
    )
    for alpha in grid
    for beta in grid
  )
  assert best / 9 - 0.02 < found < best / 9 + 0.02


def test_parc_does_not_depend_on_rounding():
  """The official value orders tied pairs of labels by rounding errors of numpy's corrcoef."""
  standard = (FEATURES - FEATURES.mean(0)) / FEATURES.std(0)
  upper = np.triu_indices(300, 1)
  far = (1 - np.corrcoef(standard))[upper]
  other = (1 - np.corrcoef(np.eye(5)[LABELS]))[upper]
  as_coded = stats.spearmanr(far, other).statistic * 100
  np.testing.assert_allclose(as_coded, WANTED['parc as coded'], rtol=1e-3)
  tied = stats.spearmanr(far, other.round(9)).statistic * 100
  np.testing.assert_allclose(scored('parc'), tied, rtol=1e-12)


def test_gbc_of_two_spheres_by_hand():
  """Two classes at distance d, each of variance v on both axes: D_B = d^2 / (8 v)."""
  around = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])  # variance 1/2 on each axis
  features = np.concatenate([around, around + np.array([2.0, 0])])
  labels = np.repeat([0, 1], 4)
  wanted = -2 * np.exp(-(2.0**2) / (8 * 0.5))
  for spherical in (False, True):
    found = plug('scores', 'gbc').score(labels, features, spherical=spherical)
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_gbc_of_spheres_of_other_sizes_counts_each_axis():
  around = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
  features = np.concatenate([around, 2 * around])
  apart = 2 * 0.5 * np.log((0.5 + 2.0) / 2 / np.sqrt(0.5 * 2.0))
  found = plug('scores', 'gbc').score(np.repeat([0, 1], 4), features, spherical=True)
  np.testing.assert_allclose(found, -2 * np.exp(-apart), rtol=1e-12)


def test_what_is_known_beforehand():
  perfect = np.eye(5)[LABELS]
  assert plug('scores', 'leep').score(LABELS, perfect) == pytest.approx(0)
  assert plug('scores', 'nce').score(LABELS, perfect) == pytest.approx(0)
  shares = np.bincount(LABELS) / len(LABELS)
  nothing = np.ones((300, 8)) / 8
  entropy = stats.entropy(shares)
  assert plug('scores', 'leep').score(LABELS, nothing) == pytest.approx(-entropy)
  assert plug('scores', 'nce').score(LABELS, nothing) == pytest.approx(-entropy)
  same = np.tile(np.random.RandomState(0).randn(20, 4), (5, 1))
  assert plug('scores', 'gbc').score(np.repeat(range(5), 20), same) == pytest.approx(-20)
  wide = np.random.RandomState(0).randn(40, 100)
  assert plug('scores', 'h_score').score(np.arange(40) % 4, wide) == pytest.approx(3)


@pytest.mark.parametrize('name', NAMES)
def test_order_and_names_of_classes_do_not_matter(name):
  order = np.random.RandomState(1).permutation(len(LABELS))
  renamed = np.array([7, 2, 40, 3, 9])[LABELS]
  wanted = scored(name)
  # clusters and folds depend on the order in which examples come
  loose = {'nleep': 0.2, 'linear_probe': 0.03}.get(name, 1e-8)
  np.testing.assert_allclose(scored(name, rows=order), wanted, rtol=loose)
  np.testing.assert_allclose(scored(name, labels=renamed), wanted, rtol=loose)


@pytest.mark.parametrize('name', NAMES)
def test_constant_and_wide_features_get_a_finite_answer(name):
  module = plug('scores', name)
  rng = np.random.RandomState(0)
  labels = np.arange(24) % 3
  part = np.full((24, 4), 0.25)
  wide = rng.rand(24, 60)
  for values in (part, np.column_stack([wide, np.ones(24)])):
    if module.NEEDS == ('probs',):
      values = values / values.sum(1, keepdims=True)
    assert np.isfinite(module.score(labels, values, **of_source(module, values.shape[1])))


@pytest.mark.parametrize('name', NAMES)
def test_inputs_are_left_as_they_are(name):
  module = plug('scores', name)
  values = {'features': FEATURES.copy(), 'probs': PROBS.copy()}[module.NEEDS[0]]
  before = values.copy()
  module.score(LABELS, values, **of_source(module, values.shape[1]))
  np.testing.assert_array_equal(values, before)


@pytest.mark.parametrize('name', NAMES)
def test_what_cannot_be_scored_is_refused(name):
  module = plug('scores', name)
  more = of_source(module, FEATURES.shape[1])
  with pytest.raises(ValueError, match='two classes or more, got 1'):
    module.score(np.zeros(300, int), FEATURES, **more)
  with pytest.raises(ValueError, match=r'labels \[N\]'):
    module.score(LABELS[:10], FEATURES, **more)
  broken = FEATURES.copy()
  broken[3, 2] = np.nan
  with pytest.raises(ValueError, match='1 examples are not finite, the first is 3'):
    module.score(LABELS, broken, **more)


def test_a_probe_wants_two_examples_of_each_class():
  labels = np.array([0, 0, 0, 1])
  with pytest.raises(ValueError, match='two examples of each class'):
    plug('scores', 'linear_probe').score(labels, FEATURES[:4])


def test_knn_by_hand():
  features = np.array([[0.0], [1.0], [1.9], [3.5]])
  # nearest others: of 0 is 1, of 1 is 2 (at 0.9), of 2 is 1, of 3 is 2
  assert plug('scores', 'knn').score(np.array([0, 0, 1, 1]), features) == 0.5


def test_otce_is_the_entropy_under_the_linear_program_of_transport():
  rng = np.random.RandomState(0)
  labels, source_labels = np.arange(14) % 3, np.arange(14) % 2
  ours, theirs = rng.randn(14, 3) + labels[:, None], rng.randn(14, 3) + source_labels[:, None]
  far = cdist(ours, theirs, 'sqeuclidean')
  sums = np.concatenate([np.kron(np.eye(14), np.ones(14)), np.kron(np.ones(14), np.eye(14))])
  plan = optimize.linprog(far.ravel(), A_eq=sums, b_eq=np.full(28, 1 / 14)).x.reshape(14, 14)
  joint = np.eye(2)[source_labels].T @ plan.T @ np.eye(3)[labels]
  wanted = stats.entropy(joint.sum(1)) - stats.entropy(joint.ravel())
  otce = plug('scores', 'otce')
  assert otce.score(labels, ours, theirs, source_labels) == pytest.approx(wanted, abs=1e-9)
  near = otce.score(labels, ours * 100, ours * 100 + 0.1, labels)
  assert near == pytest.approx(0, abs=1e-12)  # each example beside itself: classes tell classes
  # of more examples on one side as many are drawn
  both = np.concatenate([theirs, theirs]), np.concatenate([source_labels, source_labels])
  assert -np.log(3) <= otce.score(labels, ours, *both) <= 0
  with pytest.raises(ValueError, match='3 and 2 wide'):
    otce.score(labels, ours, theirs[:, :2], source_labels)


def test_task2vec_is_the_official_distance_of_what_matters_to_two_tasks():
  task2vec = plug('scores', 'task2vec')
  labels, ours, theirs = np.arange(8) % 2, *np.abs(DRAWN['after']) + 0.1
  assert task2vec.score(labels, ours, theirs) == pytest.approx(-WANTED['task2vec'], rel=1e-7)
  for scale in (1e-12, 1e6):  # which its 1e-8 would feel
    found = task2vec.score(labels, scale * ours, scale * theirs)
    assert found == pytest.approx(task2vec.score(labels, ours, theirs), rel=1e-12)
  assert task2vec.score(labels, ours, ours) == pytest.approx(0, abs=1e-12)
  # (1, 1/2, 0) and (0, 1/2, 1) have the cosine 1/4 / (5/4); what matters to neither changes nothing
  by_hand = task2vec.score(labels, np.array([3.0, 2, 0, 0]), np.array([0.0, 2, 5, 0]))
  assert by_hand == pytest.approx(-0.8, rel=1e-12)
  assert task2vec.score(labels, np.ones(3), np.zeros(3)) == -1
  with pytest.raises(ValueError, match='two classes or more, got 1'):
    task2vec.score(np.zeros(8, int), ours, theirs)
  with pytest.raises(ValueError, match=r'same filters, got \(30,\), \(29,\)'):
    task2vec.score(labels, ours, theirs[1:])
  with pytest.raises(ValueError, match='finite and at least 0'):
    task2vec.score(labels, ours, -theirs)
