"""Examples that two parts have, whatever they are called.

Images are compared byte for byte at the study's size and before the shift, texts but for case and
spaces.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from tlx.datasets._types import Dataset, Split, listing, noun

DUPLICATES = ('keep', 'drop')
_WORDS = {'train': 'training', 'val': 'validation', 'test': 'test'}


def check(duplicates: str) -> None:
  """Raises ValueError where this is no way to treat copies."""
  if duplicates not in DUPLICATES:
    raise ValueError(f'Unknown duplicates {duplicates!r}; have {" and ".join(DUPLICATES)}.')


def across(
  parts: dict[str, Split], duplicates: str, class_names: Sequence[str]
) -> tuple[dict[str, Split], tuple[str, ...]]:
  """(the parts, what to say of copies). With 'drop', training has no copy of validation or test,
  validation none of test.

  Raises:
    ValueError: copies were all that training had of a class.
  """
  notes = []
  for name, other in (('val', 'test'), ('train', 'test'), ('train', 'val')):
    copied = np.isin(parts[other].digests, parts[name].digests)
    if not copied.any():
      continue
    note = _sentence(parts, name, other, copied)
    if duplicates == 'keep':
      notes.append(f"{note} duplicates = 'drop' leaves them out of {_WORDS[name]}.")
      continue
    before = parts[name]
    parts = parts | {
      name: before.take(np.flatnonzero(~np.isin(before.digests, parts[other].digests)))
    }
    left_out = len(before.ids) - len(parts[name].ids)
    notes.append(
      f"{note} duplicates = 'drop' left {left_out:,} {noun(before)} out of {_WORDS[name]}."
    )
    if lost := sorted(set(before.labels.tolist()) - set(parts[name].labels.tolist())):
      raise ValueError(
        f"duplicates = 'drop' leaves {_WORDS[name]} without the classes "
        f'{listing([class_names[k] for k in lost])}: '
        f'all their {noun(before)} are in {_WORDS[other]} too. Add others.'
      )
  return parts, tuple(notes)


def _sentence(parts: dict[str, Split], name: str, other: str, copied: np.ndarray) -> str:
  """How many of `other` are in `name` too, which, and how many of them under another label."""
  first: dict[int, int] = {}
  labels: dict[int, set[int]] = {}
  for row, digest in enumerate(parts[name].digests.tolist()):
    first.setdefault(digest, row)
    labels.setdefault(digest, set()).add(int(parts[name].labels[row]))
  classes = len(np.union1d(parts[name].labels, parts[other].labels))
  pairs, relabelled = [], 0
  for row in np.flatnonzero(copied).tolist():
    digest = int(parts[other].digests[row])
    pairs.append(f'{parts[other].ids[row]} is {parts[name].ids[first[digest]]}')
    relabelled += labels[digest] != {int(parts[other].labels[row])}
  return (
    f'{len(pairs):,} of {len(copied):,} {_WORDS[other]} {noun(parts[other])} are also in '
    f'{_WORDS[name]}, {_alike(parts[name])}'
    + (f', {relabelled:,} of them under another label' if classes > 1 else '')
    + f': {listing(pairs)}.'
  )


def _alike(split: Split) -> str:
  """How examples are compared."""
  return 'byte for byte' if noun(split) == 'images' else 'but for case and spaces'


def keep_out(source: Split, targets: Iterable[Dataset]) -> tuple[Split, str]:
  """(a source's training part without the examples of the targets' validation and test parts, what
  to say of it or '').
  """
  held = np.zeros(len(source.ids), bool)
  for target in targets:  # one at a time, so that not all are in memory
    for part in (target.val, target.test):
      held |= _among(source, part)
  if not held.any():
    return source, ''
  kept = source.take(np.flatnonzero(~held))
  if lost := set(source.labels.tolist()) - set(kept.labels.tolist()):
    raise ValueError(
      f'{held.sum():,} of the {len(held):,} training {noun(source)} of the source are in '
      'validation or test parts of targets; '
      f"without them {len(lost)} of its classes have no example. Lower the targets' val_fraction "
      'and test_fraction; folds hold out every image once, so the source wants images of its own.'
    )
  return kept, (
    f"{held.sum():,} of the source's {len(held):,} training {noun(source)} were left out of its "
    'training: they are in the validation or test part of a target.'
  )


def trained_elsewhere(other: Split, name: str, target: Dataset) -> tuple[str, ...]:
  """What to say of examples that judge on a target where runs trained on `other`, the training part
  of the target `name`, go into its own.
  """
  judges = ('validation', target.val), ('test', target.test)
  found = {words: int(np.count_nonzero(_among(part, other))) for words, part in judges}
  if not any(found.values()):
    return ()
  counts = ' and '.join(f'{number:,} {words}' for words, number in found.items())
  return (
    f'Runs on {name} are merged with those on this target, and may have been trained on '
    f'{counts} {noun(other)} of it, {_alike(other)}.',
  )


def _among(split: Split, other: Split) -> np.ndarray:
  """Which examples [N] of a split are, or have a text that is, in another too."""
  found = np.asarray(np.isin(split.digests, other.digests))
  return np.any(found.reshape(len(split.ids), -1), axis=1)


def overlap(source_train: Split, target: Dataset) -> tuple[str, ...]:
  """What to say of target examples that the source was trained on.

  The rule: training examples may be among them, which is said; validation and test examples may
  not.

  Args:
    source_train: what the source was trained on, in the form that the target has, as
      `study.pair.source_data` gives it.

  Raises:
    ValueError: how many of the target's validation or test examples the source was trained on.
  """
  for name, part in (('validation', target.val), ('test', target.test)):
    if count := np.count_nonzero(_among(part, source_train)):
      raise ValueError(
        f'The source was trained on {count:,} of the {len(part.ids):,} {name} {noun(part)} of the '
        f'target, {_alike(part)}. Train it without them, or choose another target.'
      )
  if count := np.count_nonzero(_among(target.train, source_train)):
    return (
      f'The source was trained, with its own labels, on {count:,} of the '
      f'{len(target.train.ids):,} training {noun(source_train)} of the target '
      f'(before any shift), and on none of its validation and test {noun(source_train)}.',
    )
  return ()
