"""What a study's results say of the gain that advice may expect."""

import json

import numpy as np
from scipy import stats

from tlx.report import advice
from tlx.report.folder import load


def test_the_expected_gain_is_the_paired_difference_of_scipy(make_study, tmp_path):
  make_study(tmp_path, methods=('scratch', 'full'), targets=('digits',), rates=(0.003,),
             diverged=False)  # fmt: skip
  found = {}
  for path in tmp_path.glob('runs/*/result.json'):
    result = json.loads(path.read_text())
    cell = result['cell']
    found[cell['method'], cell['shots'], cell['seed']] = result['test']['accuracy']
  ours, theirs = (np.array([found[m, 5, seed] for seed in range(5)]) for m in ('full', 'scratch'))
  ends = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
  said = advice.expected(load(tmp_path), 'mnist', 'digits')
  gain, low, high = (100 * (ours - theirs).mean(), 100 * ends.low, 100 * ends.high)
  wanted = f'  full, 5 per class: {gain:+.1f} [{low:+.1f}, {high:+.1f}] over 5 pairs'
  assert wanted.replace('-', '−') in said.splitlines()
  assert 'from scratch (scratch) in accuracy in %' in said
  assert 'nothing is known' in advice.expected(load(tmp_path), 'mnist', 'elsewhere')
