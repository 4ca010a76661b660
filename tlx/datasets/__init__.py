"""Data sets by name: images as arrays, or decoded when they are taken; texts as they are.

mnist_5k, uci_digits           digits that ship in installed packages: one file each in this folder
tfds:NAME[/config][:version]   any TFDS data set of images with a label; a bare TFDS name works too
vtab1k:TASK                    one of the tasks of VTAB-1k that are an image and its class
folder:PATH                    PATH/<class>/<image> or PATH/{train,val,test}/<class>/<image>
csv:PATH/labels.csv            a table of image files, labels and perhaps splits; or of pixels
csv:PATH, jsonl:PATH           texts or pairs of texts with labels, a number or any number of
                               labels each (_values.py): a file, or one for each part
                               also dialogues (messages, or prompt and answer); of jsonl words
                               with tags (tokens, tags)
coco:PATH, voc:FOLDER,         images with boxes around objects: COCO's annotations, XML files of
yolo:FOLDER                    Pascal VOC, text files of YOLO; also TFDS sets with `objects`
text:PATH                      running text: a document a line of a file, or a file of a folder
udhr:LANGUAGE                  running text: the Universal Declaration of Human Rights
"""

import functools
import hashlib
import json
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tlx.datasets import (
  _boxes,
  _coco,
  _copies,
  _csv,
  _dialogues,
  _folder,
  _groups,
  _images,
  _lines,
  _running,
  _shifts,
  _splits,
  _tagged,
  _texts,
  _udhr,
  _voc,
  _vtab,
  _yolo,
)
from tlx.datasets._boxes import frame, size_of
from tlx.datasets._copies import overlap, trained_elsewhere
from tlx.datasets._images import PART_BYTES, Raw
from tlx.datasets._near import across as nearly_across
from tlx.datasets._near import prints
from tlx.datasets._near import seen as nearly_seen
from tlx.datasets._near import taken as taken_prints
from tlx.datasets._splits import check_folds, num_held
from tlx.datasets._subsets import subsets
from tlx.datasets._types import (
  HEIF,
  MOST_NAMED,
  PDF,
  Dataset,
  Examples,
  Form,
  Info,
  Looked,
  Published,
  Split,
  listing,
  rows_of,
)
from tlx.datasets._unlabelled import Unlabelled, of_texts, unlabelled
from tlx.plug import available, closest, plug

__all__ = [
  'HEIF',
  'PDF',
  'Dataset',
  'Info',
  'Looked',
  'Split',
  'Unlabelled',
  'check',
  'check_folds',
  'check_kind',
  'class_counts',
  'decoded',
  'frame',
  'info',
  'is_valued',
  'keep_out',
  'kind',
  'load',
  'load_text',
  'nearly_across',
  'nearly_seen',
  'num_held',
  'of_texts',
  'overlap',
  'prints',
  'raw_images',
  'roles',
  'rows_of',
  'sha256',
  'size_of',
  'subsets',
  'taken_prints',
  'trained_elsewhere',
  'unlabelled',
  'unread',
]

_ANNOTATED = {'coco': _coco, 'voc': _voc, 'yolo': _yolo}
_FILES: dict[str, Any] = {
  'folder': _folder,
  'csv': _csv,
  'jsonl': _texts,
  'text': _running,
  'udhr': _udhr,
  **_ANNOTATED,
}
_RUNNING = ('text', 'udhr')
_IMAGES = ('image', 'annotated image')  # kinds of data sets
# (a digest of the files or '', what decodes them) -> what that finds
Once = Callable[[Callable[[], str], Callable[[], Looked]], Looked]
DataDir = str | os.PathLike | None  # None is TFDS's own: TFDS_DATA_DIR or ~/tensorflow_datasets


def _at_every_call(stamp: Callable[[], str], look: Callable[[], Looked]) -> Looked:
  """What `look` finds."""
  del stamp
  return look()


def info(
  name: str,
  data_dir: DataDir = None,
  shift: str = 'none',
  group: str = '',
  skip_bad: bool = False,
  answers: str = _dialogues.ANSWERS,
) -> Info:
  """Classes (of the shifted labels) and counts, without decoding; imports TFDS for its own only.

  Raises:
    ValueError: an unknown name, shift or group, or a data set that cannot be used; the message says
      why.
  """
  place, rest = _parse(name)
  if (of_kind := kind(name, data_dir)) != 'image' and shift != 'none':
    raise ValueError(f'{name} has {of_kind}s, and shift {shift!r} changes images. Leave it out.')
  if place == 'package':
    _groups.check(group)
    module = plug('datasets', rest)
    found = Info(module.CLASS_NAMES, dict(module.NUM_EXAMPLES))
  elif (
    place == 'tfds'
    and of_kind not in _IMAGES
    and not (builder := _opened(rest, data_dir)).is_prepared()
  ):
    from tlx.datasets import _tfds_texts

    return _tfds_texts.describe(builder)
  elif place in _FILES or of_kind not in _IMAGES:
    listed = _published(name, data_dir, group, skip_bad, answers)
    counts = {split: len(examples.ids) for split, examples in listed.splits.items()}
    if _is_valued(listed):
      return Info(listed.class_names, counts)
    found = Info(listed.class_names, {} if of_kind == 'document' else counts)
  else:
    from tlx.datasets import _tfds

    rest, splits = _vtab.splits(rest) if place == 'vtab1k' else (rest, None)
    builder = _tfds.tfds_builder(rest, data_dir, prepare=False)
    found = _tfds.describe(builder, splits, group)
    if _tfds.annotated(builder):
      return found
  return found._replace(class_names=_class_names(name, shift, found.class_names))


def class_counts(
  name: str, group: str = '', skip_bad: bool = False, answers: str = _dialogues.ANSWERS
) -> dict[str, list[int]]:
  """{part as published, 'all' where nothing divides it: the examples of each class of `info`},
  without decoding; with `skip_bad` not those of `unread`.

  Raises:
    ValueError: as `info`.
  """
  found = _published(name, None, group, skip_bad, answers)
  of_images = skip_bad and kind(name) in _IMAGES
  counts = {}
  for part, examples in found.splits.items():
    labels = examples.labels
    if of_images:
      labels = labels[[not _images.lacking(_ending(image)) for image in examples.ids]]
    counts[part] = np.bincount(labels, minlength=len(found.class_names)).tolist()
  return counts


def unread(name: str, group: str = '') -> dict[str, tuple[int, str]]:
  """{ending of its name: (how many images of a set have it, what to do so that they are read)} of
  the images that nothing installed reads.

  Raises:
    ValueError: as `info`.
  """
  published = _published(name, None, group, skip_bad=True)
  images = [image for examples in published.splits.values() for image in examples.ids]
  counts = Counter(map(_ending, images))
  found = {ending: (count, _images.lacking(ending)) for ending, count in sorted(counts.items())}
  return {ending: (count, how) for ending, (count, how) in found.items() if how}


def _ending(image: str) -> str:
  return os.path.splitext(image)[1].lower()


def roles(name: str) -> tuple[str, ...]:
  """Who speaks in the first dialogues of `name`, in the order of their first words."""
  place, path = _parse(name)
  return _dialogues.roles(_lines.files(place, path)[0])


def is_valued(name: str, group: str = '', skip_bad: bool = False, data_dir: DataDir = None) -> bool:
  """Whether examples have a number, any number of labels, tags or boxes instead of a class.

  Raises:
    ValueError: as `info`.
  """
  place, rest = _parse(name)
  of_kind = kind(name, data_dir)
  if place == 'tfds' and of_kind == 'text':
    from tlx.datasets import _tfds_texts

    return _tfds_texts.is_valued(_opened(rest, data_dir))
  return of_kind in ('tagged sentence', 'annotated image') or (
    of_kind == 'text' and _is_valued(_published(name, data_dir, group, skip_bad))
  )


def kind(name: str, data_dir: DataDir = None) -> str:
  """What the examples are, one of `_KINDS`; of a table or records their columns say it, of TFDS's
  their features.

  Raises:
    ValueError: an unknown name, or a file that is not there or may be either.
  """
  place, rest = _parse(name)
  if place in _RUNNING:
    return 'document'
  if place in _ANNOTATED:
    return 'annotated image'
  if place == 'jsonl':
    return _texts.contents(rest)
  if place == 'tfds':
    from tlx.datasets import _tfds, _tfds_texts

    builder = _opened(rest, data_dir)
    return 'annotated image' if _tfds.annotated(builder) else _tfds_texts.kind(builder)
  return _texts.of_table(rest) if place == 'csv' else 'image'


def _opened(name: str, data_dir: DataDir) -> Any:
  """TFDS's builder of that name."""
  from tlx.datasets import _tfds

  return _tfds.opened(name, data_dir)


_KINDS = {  # of examples, and what takes them
  'image': 'a backbone of images (datasets.load)',
  'text': 'a backbone of texts (datasets.load_text)',
  'document': "task = 'language'",
  'dialogue': "task = 'dialogue'",
  'tagged sentence': "task = 'tagging'",
  'annotated image': "task = 'detection'",
}


def decoded(
  files: Sequence[Any],
  image_size: int,
  channels: int,
  interpolation: str = 'bicubic',
  fit: str = 'squeeze',
  crop: float = 1.0,
) -> tuple[np.ndarray, dict[int, str]]:
  """(image files as uint8 [N, image_size, image_size, channels], {row: why} of those that cannot
  be read, whose pixels mean nothing).
  """
  rows = tuple(map(str, range(len(files))))
  labels = np.zeros(len(files), np.int32)
  examples = Examples(rows, labels, lambda some: [files[row] for row in some])
  form = Form(image_size, channels, interpolation, fit, crop)
  split, bad = _images.decode_all(examples, form, 'none')
  return split.inputs, {int(row): why for row, why in bad.items()}


def raw_images(name: str, data_dir: DataDir = None, group: str = '', most: int = 1000) -> list[Raw]:
  """What files of a set of images are, `most` at most and evenly over each split; none unreadable.

  Raises:
    ValueError: as `load`, for what is no matter of single images.
  """
  splits = _published(name, data_dir, group, skip_bad=True).splits.values()
  found = []
  for examples in splits:
    rows = np.unique(np.linspace(0, len(examples.ids) - 1, most // len(splits)).astype(int))
    found += [_images.raw(file) for file in examples.read(rows.tolist())]
  return [file for file in found if file]


def check_kind(name: str, wanted: str, data_dir: DataDir = None) -> None:
  """Raises ValueError where a data set has examples of another kind than `wanted`."""
  if (found := kind(name, data_dir)) != wanted:
    place, rest = _parse(name)
    more = {
      'document': f' Its texts without their labels are text:{rest}.',
      'dialogue': " A dialogue has 'messages', or a 'prompt' and its 'answer': rename its columns.",
    }
    told = more.get(wanted, '') if place in _FILES and found == 'text' else ''
    raise ValueError(f'{name} has {found}s, wanted {wanted}s. Take it with {_KINDS[found]}.{told}')


def check(
  image_size: int,
  channels: int,
  interpolation: str = 'bicubic',
  fit: str = 'squeeze',
  crop: float = 1.0,
) -> None:
  """Raises ValueError where `load` would not take these arguments, without reading data."""
  _images.check(Form(image_size, channels, interpolation, fit, crop))


def load(
  name: str,
  image_size: int,
  channels: int,
  shift: str = 'none',
  val_fraction: float = 0.2,
  test_fraction: float = 0.3,
  data_dir: DataDir = None,
  data_bytes: float = 4 * 2**30,
  interpolation: str = 'bicubic',
  fit: str = 'squeeze',
  crop: float = 1.0,
  group: str = '',
  val_examples: int = 0,
  duplicates: str = 'keep',
  skip_bad: bool = False,
  fold: int = 0,
  folds: int = 0,
  wanted: str = 'image',
  once: Once = _at_every_call,
) -> Dataset:
  """The data set as uint8 images of `image_size` x `image_size` x `channels`, the same bytes at
  every call.

  How an image becomes square, `scaled` being image_size / crop rounded down:
    fit 'squeeze': all of it is resized to scaled x scaled, whose centre is taken (crop 1.0: all of
      it)
    fit 'crop': its shorter side is resized to `scaled`, then the centre is taken, as timm and
      torchvision evaluate
    fit 'pad': its longer side is resized to image_size, and it stands in the middle of black, as
      face-api does it
  Interpolation is nearest, bilinear, bicubic or lanczos; all but nearest are antialiased.

  Published splits are kept. Where there is none, test is taken from the whole (`test_fraction`) and
  val from train (`val_fraction`), of each class alike and by hash of the ids; with groups, by hash
  of the groups, which stay whole. The shift comes last and applies to every split.

  Args:
    group: what names the group of an example: a column (csv), a feature (TFDS), or a regular
      expression with one capture group over its id. '' takes what the data set says: a column such
      as 'subject', or groups.csv in the folder.
    val_examples: at most so many of the validation part are used, of each class alike; 0 is all.
    duplicates: 'drop' keeps copies of test images, byte for byte, out of the other parts, and
      copies of validation out of training.
    skip_bad: leave out images that cannot be read and lines of a table that lack something, as if
      they were not there.
    fold, folds: of a data set without a test part, the fold that is it, from 1 to `folds`, in place
      of `test_fraction`; of each class alike, and groups stay whole. Every example is in one.
    data_bytes: a set of more decoded images is not kept in memory: all are decoded once, for their
      digests and to find those that cannot be read, and then again whenever they are taken.
    once: of a streamed set, how that is had which decoding all of it finds.
    wanted: the kind of examples. An 'annotated image' wants fit 'pad'; its values are a dict of
      arrays [N, ...] of its boxes in pixels of the square, and labels are 0 (tlx/inputs/boxes.py).

  Raises:
    ValueError: an unknown name or shift, what `check` does not take, unusable or damaged data, or a
      class too small to divide.
  """
  form = Form(image_size, channels, interpolation, fit, crop)
  _images.check(form)
  _shifts.check(shift)
  _copies.check(duplicates)
  check_kind(name, wanted, data_dir)
  published = _published(name, data_dir, group, skip_bad)
  class_names = published.class_names
  if not _is_valued(published):
    class_names = _class_names(name, shift, class_names)
  _check_ids(name, published.splits)

  while True:
    shares = (val_fraction, test_fraction, val_examples, fold, folds)
    parts, notes = _divided(published, shares, 'images')
    if wanted == 'annotated image':
      parts = _boxes.letterboxed(parts, form.image_size)
    count = sum(len(part.ids) for part in parts.values())
    if count * image_size**2 * channels <= data_bytes:
      (splits, bad), digest = _decoded(parts, form, shift), ''
    else:
      splits, bad, digest = _streamed(parts, form, shift, once)
    if not bad:
      break
    published = _without(name, published, bad, skip_bad)
  said = (*published.notes, *notes)
  return _dataset(splits, duplicates, class_names, said, digest, once)


def load_text(
  name: str,
  val_fraction: float = 0.2,
  test_fraction: float = 0.3,
  group: str = '',
  val_examples: int = 0,
  duplicates: str = 'keep',
  skip_bad: bool = False,
  fold: int = 0,
  folds: int = 0,
  wanted: str = 'text',
  answers: str = _dialogues.ANSWERS,
  data_dir: DataDir = None,
) -> Dataset:
  """The data set as texts, just as they are written; arguments and parts are as in `load`.

  Args:
    wanted: the kind of examples. A 'text' is a str or a pair of them, a 'document' a str; a
      'dialogue' is messages, ((role, content), ...), and a 'tagged sentence' (words, tags). The
      last three have no class to balance over: all labels are 0.
    answers: the role of dialogues that answers; where it is not 'assistant', all others but the
      system are users.

  Raises:
    ValueError: an unknown name, a set of another kind, a class too small to divide, or what is
      wrong in which lines.
  """
  _copies.check(duplicates)
  check_kind(name, wanted, data_dir)
  published = _published(name, data_dir, group, skip_bad, answers)
  class_names = published.class_names
  if not _is_valued(published):
    class_names = _class_names(name, 'none', class_names)
  _check_ids(name, published.splits)
  shares = (val_fraction, test_fraction, val_examples, fold, folds)
  parts, notes = _divided(published, shares, 'texts')
  splits = {part: _lines.split_of(examples) for part, examples in parts.items()}
  return _dataset(splits, duplicates, class_names, (*published.notes, *notes))


def _divided(
  published: Published, shares: tuple[float, float, int, int, int], called: str
) -> tuple[dict[str, Examples], tuple[str, ...]]:
  """(the three parts, what to say of groups and of a capped validation part)."""
  val_fraction, test_fraction, val_examples, fold, folds = shares
  parts = _splits.complete(
    published.splits,
    val_fraction,
    test_fraction,
    names=published.class_names,
    fold=fold,
    folds=folds,
  )
  notes = _splits.group_notes(parts, called)
  if 0 < val_examples < (count := len(parts['val'].ids)):
    parts['val'] = _splits.capped(parts['val'], val_examples)
    notes += (
      f'Validation uses {val_examples:,} of its {count:,} {called} (val_examples), of each class '
      'alike.',
    )
  return parts, notes


def _dataset(
  splits: dict[str, Split],
  duplicates: str,
  class_names: tuple[str, ...],
  notes: tuple[str, ...],
  digest: str = '',
  once: Once = _at_every_call,
) -> Dataset:
  """The data set of these parts, after copies across them are dropped or said; `digest` is theirs
  where it is known, else it is had as `once` says.
  """
  kept, of_copies = _copies.across(splits, duplicates, class_names)
  train, val, test = kept['train'], kept['val'], kept['test']
  digest = digest if digest and kept is splits else _digest((train, val, test), once)
  return Dataset(train, val, test, class_names, digest, (*notes, *of_copies))


def _digest(splits: Sequence[Split], once: Once) -> str:
  """`sha256` of splits; of those that are streamed as `once` has it, by the digests of images."""
  if not all(hasattr(split.inputs, 'sha256') for split in splits):
    return sha256(*splits)

  def stamp() -> str:
    digest = hashlib.sha256(b'a set without some of its images\n')
    for split in splits:
      if not (own := split.inputs.sha256()):
        return ''
      digest.update(own.encode() + _beside_inputs(split))
    return digest.hexdigest()

  return once(stamp, lambda: Looked({}, {}, sha256(*splits))).sha256


def keep_out(source: Dataset, targets: Iterable[Dataset], once: Once = _at_every_call) -> Dataset:
  """What a source is trained on: `source` without the training images that are in a target's
  validation or test part.

  Images are compared byte for byte before any shift, so all are given in the source's form; texts
  but for case and spaces.

  Raises:
    ValueError: a class that nothing is left of.
  """
  train, note = _copies.keep_out(source.train, targets)
  if not note:
    return source
  digest = _digest((train, source.val, source.test), once)
  return source._replace(train=train, sha256=digest, notes=(*source.notes, note))


def _decoded(
  parts: dict[str, Examples], form: Form, shift: str
) -> tuple[dict[str, Split], dict[str, str]]:
  """(the parts, shifted; {id: what is wrong with it} of the images that cannot be read)."""
  _, of_labels = _shifts.SHIFTS[shift]
  splits: dict[str, Split] = {}
  bad: dict[str, str] = {}
  for name, examples in parts.items():
    decoded, wrong = _images.decode_all(examples, form, shift)
    splits[name] = decoded._replace(labels=of_labels(decoded.labels))
    bad |= wrong
  return splits, bad


def _streamed(
  parts: dict[str, Examples], form: Form, shift: str, once: Once
) -> tuple[dict[str, Split], dict[str, str], str]:
  """As `_decoded`, of images that are decoded when they are taken; and the digest of the set."""
  _, of_labels = _shifts.SHIFTS[shift]
  shifted = {
    name: parts[name]._replace(labels=of_labels(parts[name].labels))
    for name in ('train', 'val', 'test')
  }
  found = once(
    functools.partial(_images.stamp, shifted, form, shift),
    functools.partial(_looked, shifted, form, shift),
  )
  splits = {}
  for name, examples in shifted.items():
    inputs = _images.Images(examples, form, shift, found.digests[name])
    about = examples.groups, examples.values
    splits[name] = Split(inputs, examples.labels, examples.ids, inputs.digests, *about)
  return splits, found.bad, found.sha256


def _looked(parts: dict[str, Examples], form: Form, shift: str) -> Looked:
  """What decoding all of them finds."""
  digests: dict[str, np.ndarray] = {}
  bad: dict[str, str] = {}
  digest = hashlib.sha256()
  for name, examples in parts.items():
    shape = len(examples.ids), form.image_size, form.image_size, form.channels
    digest.update(_about('', shape, np.dtype(np.uint8), examples.labels))
    split, wrong = _images.decode_all(examples, form, shift, digest)
    digest.update(_beside_inputs(split))
    digests[name] = split.digests
    bad |= wrong
  return Looked(digests, bad, digest.hexdigest())


def _without(name: str, published: Published, bad: Mapping[str, str], skip: bool) -> Published:
  """The data set without its bad images, and a note of them; an error that lists them where they
  may not be skipped.
  """
  count = sum(len(examples.ids) for examples in published.splits.values())
  lines = [f'{image}: {reason}' for image, reason in sorted(bad.items())]
  if not skip:
    more = f'\n  and {len(lines) - MOST_NAMED:,} more' if len(lines) > MOST_NAMED else ''
    raise ValueError(
      f'Cannot read {len(lines):,} of the {count:,} images of {name}:\n  '
      + '\n  '.join(lines[:MOST_NAMED])
      + more
      + '\nRepair or remove them, or leave them out: skip_bad = True in the target.'
    )
  splits = {}
  for split, examples in published.splits.items():
    splits[split] = kept = examples.take(
      np.array([row for row, image in enumerate(examples.ids) if image not in bad], int)
    )
    if lost := sorted(set(examples.labels.tolist()) - set(kept.labels.tolist())):
      raise ValueError(
        f'No image of the classes {", ".join(published.class_names[k] for k in lost)} in {split} '
        f'of {name} can be read. Repair some, or remove the class.'
      )
  note = f'{len(lines):,} of {count:,} images cannot be read and are left out: {listing(lines)}.'
  return published._replace(splits=splits, notes=(*published.notes, note))


def _parse(name: str) -> tuple[str, str]:
  """(where a data set comes from, its name there)."""
  place, colon, rest = name.partition(':')
  if colon and place in ('tfds', 'vtab1k', *_FILES):
    return place, rest
  names = available('datasets')
  if name in names:
    return 'package', name
  from tlx.datasets import _tfds  # only here: TFDS takes 0.6 s to import

  if re.split('[/:]', name)[0] in _tfds.known_names():
    return 'tfds', name
  raise ValueError(
    f'Unknown data set {name!r}; have {", ".join(names)}, tfds:NAME, vtab1k:TASK, folder:PATH, '
    'csv:FILE, jsonl:FILE, text:FILE, udhr:LANGUAGE, coco:PATH, voc:FOLDER and yolo:FOLDER.'
    f'{closest(name, (*names, *_tfds.known_names()))}'
  )


def _published(
  name: str, data_dir: DataDir, group: str, skip_bad: bool, answers: str = _dialogues.ANSWERS
) -> Published:
  place, rest = _parse(name)
  found = kind(name, data_dir)
  if place in _RUNNING:
    return _FILES[place].published(rest, group, skip_bad)
  if found not in _IMAGES:
    readers: dict[str, Callable[..., Published]] = {
      'document': _running.of_rows,
      'tagged sentence': _tagged.published,
      'dialogue': functools.partial(_dialogues.published, answers=answers),
    }
    read = readers.get(found, _texts.published)
    if place != 'tfds':
      return read(_lines.files(place, rest), group, skip_bad)
    from tlx.datasets import _tfds, _tfds_texts

    return _tfds_texts.published(_tfds.prepared(rest, data_dir), read, group, skip_bad)
  if place in _FILES:
    return _FILES[place].published(rest, group, skip_bad)
  from tlx.datasets import _tfds

  rest, splits = _vtab.splits(rest) if place == 'vtab1k' else (rest, None)
  builder = (
    _tfds.package_builder(rest, data_dir)
    if place == 'package'
    else _tfds.tfds_builder(rest, data_dir, prepare=True)
  )
  if found == 'annotated image':
    return _tfds.published_boxes(builder, group, skip_bad)
  return _tfds.published(builder, splits, group)


def _class_names(name: str, shift: str, names: tuple[str, ...]) -> tuple[str, ...]:
  """The names of the shifted labels, of which there are two at least."""
  shifted = _shifts.class_names(shift, names)
  if len(shifted) < 2 and names not in (_running.CLASS_NAMES, _dialogues.CLASS_NAMES):
    raise ValueError(
      f'{name} has the classes {", ".join(shifted)}; there is nothing to tell apart. Want two at '
      'least.'
    )
  return shifted


def _is_valued(published: Published) -> bool:
  """Whether examples have values, which need no two classes to be told apart."""
  return any(examples.values is not None for examples in published.splits.values())


def _check_ids(name: str, splits: dict[str, Examples]) -> None:
  ids = [i for split in splits.values() for i in split.ids]
  if len(set(ids)) < len(ids):
    raise ValueError(
      f'{name} has {len(ids) - len(set(ids))} examples whose id another has too; ids decide '
      'splits. Write the data out as folder:PATH.'
    )


def sha256(*splits: Split) -> str:
  """A digest of the inputs, labels and ids of splits."""
  digest = hashlib.sha256()
  for split in splits:
    leaves = split.inputs if isinstance(split.inputs, dict) else {'': split.inputs}
    for name, leaf in leaves.items():
      digest.update(_about(name, leaf.shape, leaf.dtype, split.labels))
      if leaf.dtype == object:
        digest.update(json.dumps(leaf.tolist()).encode())
      elif isinstance(leaf, np.ndarray):
        digest.update(leaf.data)  # not tobytes(), which copies
      else:
        size = max(1, PART_BYTES // math.prod(leaf.shape[1:]))
        for first in range(0, len(leaf), size):
          digest.update(leaf.take(np.arange(first, min(first + size, len(leaf)))).data)
    digest.update(_beside_inputs(split))
  return digest.hexdigest()


def _about(name: str, shape: tuple[int, ...], dtype: np.dtype, labels: np.ndarray) -> bytes:
  """What `sha256` sees before the values of a leaf of inputs."""
  return f'{name}{shape} {dtype} {labels.dtype}\n'.encode()


def _beside_inputs(split: Split) -> bytes:
  """What `sha256` sees of a split after its inputs."""
  values = split.values if isinstance(split.values, dict) else {'': split.values}
  of_values = [b'' if value is None else value.tobytes() for value in values.values()]
  return b''.join([split.labels.tobytes(), *of_values, '\n'.join(split.ids).encode()])
