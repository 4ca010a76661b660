"""One code path for any number of devices, and the same losses.

However runs, batches and parameters are laid out on them.
"""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from tlx.train import mesh

ROOT = pathlib.Path(__file__).parents[2]


def on_devices(number, folder, *layouts):
  """What tests/train/on_devices.py finds on that many virtual devices.

  A layout is 'runs,run,data,fsdp,interrupt', perhaps with ',device_bytes'.
  """
  env = os.environ | {'XLA_FLAGS': f'--xla_force_host_platform_device_count={number}'}
  done = subprocess.run(
    [sys.executable, '-m', 'tests.train.on_devices', str(folder), *layouts],
    cwd=ROOT,
    env=env,
    capture_output=True,
    text=True,
    timeout=600,
  )
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout.splitlines()[-1])


def losses(found):
  return np.array(
    [[line['loss'], line['grad_norm'], line['val_loss']] for line in found['history']]
  )


def test_every_layout_finds_the_losses_of_one_device(tmp_path):
  """Tolerance 2e-6, relative: sums over a split batch are added in another order."""
  one = on_devices(1, tmp_path / 'one', '3,0,0,0,0', '1,0,0,0,0')
  layouts = {
    '3,8,1,0,0': (8, 1),
    '3,0,0,0,0': (2, 4),
    '3,2,4,1,0': (2, 4),
    '1,0,0,0,0': (1, 8),
    '1,0,0,1,0': (1, 8),
    '3,2,4,1,0,7000': (2, 4),
  }
  eight = on_devices(8, tmp_path / 'eight', *layouts)
  for layout, (run, data) in layouts.items():
    assert eight[layout]['mesh'] == {'run': run, 'data': data}
    np.testing.assert_allclose(
      losses(eight[layout]),
      losses(one[f'{layout[0]},0,0,0,0']),
      rtol=2e-6,
      atol=1e-6,
      err_msg=layout,
    )
  windowed, whole = eight['3,2,4,1,0,7000'], eight['3,2,4,1,0']
  assert windowed['history'] == whole['history']
  assert (
    one['bytes on a device'] == 24 * 5 * 4 and eight['bytes on a device'] == 24 * 5 * 4 / 8
  )  # fsdp splits the parameters


def test_a_checkpoint_goes_on_on_other_devices(tmp_path):
  whole = on_devices(2, tmp_path / 'whole', '3,0,0,0,0')['3,0,0,0,0']
  assert (
    on_devices(2, tmp_path, '3,0,0,0,1')['3,0,0,0,1'] is None
  )  # interrupted after the first phase's steps
  (tmp_path / '3-1').rename(tmp_path / '3-2')
  rest = on_devices(8, tmp_path, '3,2,4,1,2')['3,2,4,1,2']
  np.testing.assert_allclose(losses(rest), losses(whole), rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize(
  'wanted, words', [({'run': 3, 'data': 0}, '3 x 2'), ({'run': 5, 'data': 5}, '5 x 5 devices')]
)
def test_a_mesh_that_does_not_fit_is_refused(wanted, words):
  with pytest.raises(ValueError, match=f'{words}.*there are 8'):
    mesh.shape(4, 8, wanted)


def test_arrays_come_back_as_they_went():
  made = mesh.make(1, jax.device_count())
  tree = {'a': np.arange(8.0).reshape(2, 4), 'b': np.arange(3)}
  back = mesh.get(
    mesh.put(
      tree,
      lambda leaf: mesh.spec(
        made, *(None,) * (leaf.ndim - 1), 'data' if leaf.shape[-1] % 2 == 0 else None
      ),
    )
  )
  for name, leaf in tree.items():
    np.testing.assert_array_equal(back[name], leaf)
  assert mesh.on_first(lambda: 'told') == 'told' and mesh.is_first()
