"""tfds:NAME and our own builders, through TFDS without TensorFlow. Importing this file imports TFDS
(0.6 s).
"""

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from tlx.datasets import _boxes, _groups
from tlx.datasets._builder import builder_class
from tlx.datasets._types import Examples, Info, Published
from tlx.plug import closest

CHUNK = 512  # records in memory while ids and labels are read
_SPLITS = {
  'train': 'train',
  'validation': 'val',
  'val': 'val',
  'valid': 'val',
  'dev': 'val',
  'test': 'test',
}


@functools.cache
def known_names() -> tuple[str, ...]:
  """The data sets that the installed TFDS has code for."""
  # the community's list is a download
  return tuple(tfds.list_builders(with_community_datasets=False))


def package_builder(name: str, data_dir: str | os.PathLike | None) -> tfds.core.DatasetBuilder:
  """The builder of one of our own data sets, prepared."""
  return _prepare(lambda: builder_class(name)(data_dir=data_dir, file_format='array_record'))


def tfds_builder(
  name: str, data_dir: str | os.PathLike | None, prepare: bool
) -> tfds.core.DatasetBuilder:
  """The builder of 'NAME[/config][:version]' of images; prepared if asked (`prepared`).

  Raises:
    ValueError: as `opened` and `prepared`, or it holds no images with a class or objects.
  """
  builder = opened(name, data_dir)
  if not annotated(builder):
    _keys(builder)  # before a download that would be of no use
  return prepared(name, data_dir) if prepare else builder


def opened(name: str, data_dir: str | os.PathLike | None) -> tfds.core.DatasetBuilder:
  """The builder of 'NAME[/config][:version]'.

  Raises:
    ValueError: TFDS does not know it or wants TensorFlow for it, with TFDS's own words.
  """
  with _explained('open', name):
    return tfds.builder(name, data_dir=data_dir, file_format='array_record')


def prepared(name: str, data_dir: str | os.PathLike | None) -> tfds.core.DatasetBuilder:
  """The builder of a data set that is there, or was downloaded to `data_dir`.

  Raises:
    ValueError: it cannot be, with TFDS's own words.
  """
  make = functools.partial(tfds.builder, name, data_dir=data_dir, file_format='array_record')
  with _explained('prepare', name):
    return _prepare(make)


@contextlib.contextmanager
def _explained(step: str, name: str) -> Iterator[None]:
  try:
    yield
  except tfds.core.DatasetNotFoundError as error:
    raise ValueError(
      f'TFDS has neither code nor prepared data for {name!r}.{closest(name, known_names())} '
      'Some of its data sets show only where TensorFlow is installed; folder:PATH takes any images.'
    ) from error
  # TFDS raises AssertionError, ImportError, OSError, its own kinds and those of HTTP clients
  except Exception as error:
    raise ValueError(
      f'Cannot {step} tfds:{name}: {type(error).__name__}: {str(error)[:400]}\n'
      'Check the name; or prepare it where TensorFlow and the network are, with `tfds build '
      f'{name} --file_format=array_record`, and give that folder as data_dir.'
    ) from error


def _prepare(make: Callable[[], tfds.core.DatasetBuilder]) -> tfds.core.DatasetBuilder:
  tfds.disable_progress_bar()
  builder = make()
  try:
    builder.download_and_prepare(file_format='array_record')  # nothing where it is prepared
  except OSError:
    # TFDS writes to a folder of its own and renames it when complete, which fails where another
    # process was first.
    builder = make()
    if not builder.is_prepared():
      raise
  return builder


def _keys(builder: tfds.core.DatasetBuilder) -> tuple[str, str]:
  """The names of the image and of the label feature."""
  features = builder.info.features
  image, label = keys = builder.info.supervised_keys or ('image', 'label')
  is_pair = (
    isinstance(image, str) and isinstance(label, str) and image in features and label in features
  )
  kinds = ((image, tfds.features.Image), (label, tfds.features.ClassLabel))
  if not is_pair or not all(isinstance(features[key], kind) for key, kind in kinds):
    raise ValueError(
      f'tfds:{builder.name} has the features {", ".join(features)}, supervised {keys}; '
      'wanted an Image and a ClassLabel, an image and objects with a bbox and a ClassLabel, or '
      'texts. Use another data set, or write it out as folder:PATH, coco:PATH or jsonl:PATH.'
    )
  return image, label


def annotated(builder: tfds.core.DatasetBuilder) -> dict[str, str]:
  """Of a set of images with `objects`: the features of an object that are its 'label', and perhaps
  'crowd' and 'area'. {} of others, and where an image and its class are what TFDS supervises by.
  """
  features = builder.info.features
  if builder.info.supervised_keys or not {'image', 'objects'} <= set(features):
    return {}
  objects = dict(getattr(features['objects'], 'feature', None) or {})
  labels = [key for key, kind in objects.items() if isinstance(kind, tfds.features.ClassLabel)]
  if not labels or not isinstance(objects.get('bbox'), tfds.features.BBoxFeature):
    return {}
  found = {'label': 'label' if 'label' in labels else labels[0]}
  wanted = (('crowd', 'is_crowd'), ('crowd', 'is_difficult'), ('area', 'area'))
  return found | {name: key for name, key in wanted if key in objects}


def _check_group(builder: tfds.core.DatasetBuilder, group: str) -> None:
  """Raises ValueError where `group` is neither a feature that can name groups nor a pattern."""
  features = builder.info.features
  _groups.check(group, tuple(features))
  if group in features and (
    features[group].shape != () or np.dtype(features[group].np_dtype).kind == 'f'
  ):
    raise ValueError(
      f'group {group!r} of tfds:{builder.name} is no text and no whole number. Choose another '
      'feature.'
    )


def split_names(builder: tfds.core.DatasetBuilder) -> dict[str, str]:
  """{our split: TFDS's}; a data set with one split has 'all'; other names are left aside."""
  theirs = list(builder.info.splits)
  ours = {_SPLITS[split]: split for split in theirs if split in _SPLITS}
  if len(theirs) == 1:
    return {'all': theirs[0]}
  if theirs and 'train' not in ours:
    raise ValueError(
      f'tfds:{builder.name} has the splits {", ".join(theirs)}; wanted train. Write it out as '
      'folder:PATH.'
    )
  return ours


def _slice(builder: tfds.core.DatasetBuilder, spec: str) -> tuple[str, range]:
  """('train', its rows) for 'train' or 'train[:800]'."""
  try:
    (part,) = tfds.core.ReadInstruction.from_spec(spec).to_absolute(builder.info.splits)
  except ValueError as error:
    raise ValueError(
      f'tfds:{builder.info.full_name} has no {spec}: {error} Prepare the whole data set.'
    ) from None
  return part.splitname, range(builder.info.splits[part.splitname].num_examples)[
    part.from_ : part.to
  ]


def records(
  builder: tfds.core.DatasetBuilder, split: str
) -> Callable[[Sequence[int]], Iterator[Any]]:
  """rows of a split of a prepared data set -> {feature: its proto} of each."""
  source = builder.as_data_source(split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)

  lock = threading.Lock()  # images are decoded in several threads

  def read(rows: Sequence[int]) -> Iterator[Any]:
    with lock:  # a list at a time, which ArrayRecord reads in parallel
      found = source.__getitems__(rows)
    for record in found:
      yield tf_example_pb2.Example.FromString(record).features.feature

  return read


def describe(
  builder: tfds.core.DatasetBuilder, splits: Mapping[str, str] | None = None, group: str = ''
) -> Info:
  """Class names, and counts where the data is prepared; of the published splits, or of {our split:
  a slice of TFDS's}.
  """
  of_objects = annotated(builder)
  if of_objects:
    label = builder.info.features['objects'].feature[of_objects['label']]
  else:
    label = builder.info.features[_keys(builder)[1]]
  _check_group(builder, group)
  splits = splits if splits and builder.info.splits else split_names(builder)
  return Info(
    tuple(label.names),
    {ours: len(_slice(builder, spec)[1]) for ours, spec in splits.items()},
  )


def published(
  builder: tfds.core.DatasetBuilder, splits: Mapping[str, str] | None = None, group: str = ''
) -> Published:
  """The published splits, or {our split: a slice of TFDS's}.

  An id is 'split/id' where the data set has ids, else 'split/row'. Groups are a feature, or found
  in the ids.
  """
  image, label = _keys(builder)
  features = builder.info.features
  _check_group(builder, group)
  has_ids = 'id' in features and isinstance(features['id'], tfds.features.Text)

  def examples(spec: str) -> Examples:
    split, part = _slice(builder, spec)
    read = records(builder, split)

    def rows(indices: Sequence[int]) -> Iterator[Any]:
      return read([part[i] for i in indices])

    ids, labels, groups = [], [], []
    for start in range(0, len(part), CHUNK):
      for i, row in enumerate(rows(range(start, min(start + CHUNK, len(part)))), part[start]):
        ids.append(
          f'{split}/{row["id"].bytes_list.value[0].decode()}' if has_ids else f'{split}/{i:06d}'
        )
        labels.append(row[label].int64_list.value[0])
        if labels[-1] < 0:
          raise ValueError(
            f'{ids[-1]} of tfds:{builder.name} has no label ({labels[-1]}). '
            'Write the labelled part out as folder:PATH.'
          )
        if group in features:
          texts, numbers = row[group].bytes_list.value, row[group].int64_list.value
          groups.append(texts[0].decode() if texts else str(numbers[0]))
    if group and not groups:
      groups = list(_groups.matched(group, ids))
    return Examples(
      tuple(ids),
      np.array(labels, np.int32),
      lambda some: [row[image].bytes_list.value[0] for row in rows(some)],
      tuple(groups),
    )

  return Published(
    tuple(features[label].names),
    {ours: examples(spec) for ours, spec in (splits or split_names(builder)).items()},
  )


def published_boxes(
  builder: tfds.core.DatasetBuilder, group: str = '', skip_bad: bool = False
) -> Published:
  """The published splits of a set with `objects`, as `_boxes.published` has them, which raises.

  An id is 'split/row'. Boxes are shares of the image; what is difficult or a crowd is a crowd.
  """
  keys = annotated(builder)
  names = tuple(builder.info.features['objects'].feature[keys['label']].names)
  where = f'tfds:{builder.info.full_name}'
  images = []
  for part, split in split_names(builder).items():
    read = records(builder, split)

    def image(row: int, read: Callable = read) -> bytes:
      (record,) = read([row])
      return record['image'].bytes_list.value[0]

    count = builder.info.splits[split].num_examples
    for start in range(0, count, CHUNK):
      some = range(start, min(start + CHUNK, count))
      for row, record in zip(some, read(some)):
        name = f'{split}/{row:06d}'
        boxes = _Boxes(record, keys, names, name)
        images.append(_boxes.Annotated(name, functools.partial(image, row), part, boxes))
  return _boxes.published(where, images, names, (), group, skip_bad)


class _Boxes:
  """The boxes of a record, for an image of (width, height)."""

  def __init__(self, record: Any, keys: Mapping[str, str], names: Sequence[str], id: str):
    self.sides = np.array(record['objects/bbox'].float_list.value).reshape(-1, 4)
    self.labels = [names[label] for label in record[f'objects/{keys["label"]}'].int64_list.value]
    self.values: dict[str, list[Any]] = {}
    for name in ('crowd', 'area'):
      of_name = record[f'objects/{keys.get(name)}']
      self.values[name] = [*of_name.int64_list.value, *of_name.float_list.value]
    self.id = id

  def __call__(self, width: int, height: int) -> list[_boxes.Box]:
    made = []
    for i, (name, (y0, x0, y1, x1)) in enumerate(zip(self.labels, self.sides.tolist())):
      sides = (x0 * width, y0 * height, x1 * width, y1 * height)
      crowd = bool(self.values['crowd'][i]) if self.values['crowd'] else False
      area = float(self.values['area'][i]) if self.values['area'] else None
      made.append(_boxes.Box(name, sides, f'object {i + 1}', crowd, area))
    return made
