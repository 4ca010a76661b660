import hashlib

import pytest

from tlx.datasets import _package


@pytest.fixture
def package(tmp_path, monkeypatch):
  (tmp_path / 'shipped').mkdir()
  (tmp_path / 'shipped' / '__init__.py').write_text('raise RuntimeError("imported")')
  (tmp_path / 'shipped' / 'data.csv').write_bytes(b'1,2')
  monkeypatch.syspath_prepend(tmp_path)


def test_reads_without_importing(package):
  assert (
    _package.read('shipped', 'data.csv', hashlib.sha256(b'1,2').hexdigest(), 'shipped==1') == b'1,2'
  )


def test_another_file_is_refused(package):
  with pytest.raises(
    ValueError, match=r'has sha256 .*, wanted 00: .*pip install --force-reinstall shipped==1'
  ):
    _package.read('shipped', 'data.csv', '00', 'shipped==1')


def test_missing_file_or_package(package):
  with pytest.raises(ValueError, match=r'other.csv is missing .*pip install'):
    _package.read('shipped', 'other.csv', '00', 'shipped==1')
  with pytest.raises(
    ValueError, match=r"'not_shipped'.* is not installed. Run: pip install not-shipped"
  ):
    _package.read('not_shipped', 'data.csv', '00', 'not-shipped')
