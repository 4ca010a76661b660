"""Steps that are traced: those and no others, and no number is another."""

import jax
import numpy as np
import pytest
from etils import epath

from tlx.train import fit, profile


def test_chosen_steps_are_traced_and_no_number_changes(make_job, make_phase, tmp_path):
  said, traced = [], profile.Profile(3, 5, epath.Path(tmp_path / 'trace'))
  job = make_job([make_phase()])
  found = fit.fit(
    job, epath.Path(tmp_path / 'a'), say=lambda at, _: said.append(at), profile=traced
  )
  assert said[:2] == [3, 4] and 5 in said  # evaluations are every 4 steps
  traces = (tmp_path / 'trace').rglob('*.xplane.pb')
  assert {path.relative_to(tmp_path).parts[1] for path in traces} == {'step_3', 'step_4'}
  plain = fit.fit(job, epath.Path(tmp_path / 'b'))
  jax.tree.map(np.testing.assert_array_equal, found.own, plain.own)


@pytest.mark.parametrize('text', ['5', '5:5', '7:3', 'a:b'])
def test_what_names_no_steps_is_refused(text):
  with pytest.raises(ValueError, match='give FIRST:STOP'):
    profile.steps(text)
