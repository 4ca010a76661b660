"""A cache of its own for every test of this folder, and a canary that shows whether a file ran
code.
"""

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  monkeypatch.setenv('TLX_CACHE', str(tmp_path / 'cache'))
  return tmp_path / 'cache'


@pytest.fixture
def canary(tmp_path):
  """A path that poisoned files try to create; it must not be there in the end."""
  path = tmp_path / 'canary'
  yield path
  assert not path.exists(), 'the file ran code'
