"""What a study will see of its data, before it runs: counts, raw files, what to mind, a sheet."""

import io
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from tlx import datasets, pictures
from tlx.study import config as configs
from tlx.study import pair as pairs
from tlx.study.cells import base
from tlx.study.run import data_of
from tlx.train import feed

PARTS = ('train', 'val', 'test')
FEW = 20  # test examples of a class, of which the share found is uncertain by 20 points or more
UNEVEN = 3  # times the smallest class


class Look(NamedTuple):
  """Of one source and target: text, and the pictures that the network will see as PNG or b''."""

  text: str
  sheet: bytes


def look(config: Mapping[str, Any]) -> dict[str, Look]:
  """{'source/target': what a study sees of its data}. Writes nothing.

  Raises:
    ValueError: what is wrong with the config or the data, as the study would.
  """
  study = configs.resolve(config)
  described, _ = data_of(study)
  found = {}
  for name, about in described.items():
    source, target = name.split('/')
    data = pairs.load(study, study['targets'][target], study['sources'][source])
    form = configs.form_module(study['sources'][source])
    fields = study['sources'][source]['input']
    lines = [
      f'{source} -> {target}: {study["targets"][target]["dataset"]}',
      *_counts(data),
      *_of_boxes(data),
      *_raw(study, study['targets'][target], fields, form.KIND),
      *(
        f'  - {note}'
        for note in (
          *about['notes'],
          *(pairs.near_copies(study, source, target) or (_NONE_NEAR,)),
          *_findings(study, target, data),
        )
      ),
    ]
    draw = _SHEETS.get(form.KIND)
    found[name] = Look('\n'.join(lines), draw(data) if draw else b'')
  return found


_NONE_NEAR = (
  'No example of one part is nearly one of another: the same but for compression, size or '
  'brightness, or in 70% of its words. Crops and mirror images are not looked for.'
)


def _counts(data: datasets.Dataset) -> list[str]:
  """A line a part: examples, classes, and how many the smallest, median and largest class has."""
  lines = [
    f'  {"part":<6}{"examples":>10}{"classes":>9}{"smallest":>10}{"median":>8}{"largest":>9}'
  ]
  for part in PARTS:
    counts = np.bincount(getattr(data, part).labels, minlength=len(data.class_names))
    there = counts[counts > 0]
    lines.append(
      f'  {part:<6}{counts.sum():>10,}{len(there):>9,}{there.min():>10,}'
      f'{np.median(there):>8,.0f}{there.max():>9,}'
    )
  return lines


def _of_boxes(data: datasets.Dataset) -> list[str]:
  """Of images with boxes a line a class: its boxes in each part, and their median longer side as a
  share of the image's.
  """
  if not isinstance(data.train.values, dict):
    return []
  lines = [f'  {"boxes of":<20}' + ''.join(f'{part:>9}' for part in PARTS) + '  median side']
  for label, name in enumerate(data.class_names):
    counts, shares = [], []
    for part in PARTS:
      values = getattr(data, part).values
      mine = (values['valid'] > 0) & (values['labels'] == label)
      counts.append(f'{int(mine.sum()):>9,}')
      sides = (values['boxes'][..., 2:] - values['boxes'][..., :2]).max(-1)
      longer = values['frame'][:, 3:].max(-1) * values['frame'][:, 0]
      shares += (sides / longer[:, None])[mine].tolist()
    middle = f'{100 * np.median(shares):>11.0f}%' if shares else f'{"-":>12}'
    lines.append(f'  {name[:20]:<20}' + ''.join(counts) + f'  {middle}')
  return lines


def _raw(
  study: Mapping[str, Any],
  target: Mapping[str, Any],
  fields: Mapping[str, Any],
  kind: str,
) -> list[str]:
  """What the files of a set of images are, before they are resized."""
  if kind not in _SHEETS:
    return []
  files = datasets.raw_images(target['dataset'], study['data_dir'] or None, target['group'])
  if not files:
    return []
  sides = np.array([min(file.size) for file in files])
  low, middle, high = np.percentile(sides, (0, 50, 100))
  size = fields['image_size']
  formats = sorted({file.format for file in files})
  modes = sorted({file.mode for file in files})
  lines = [
    f'  files: {", ".join(formats)}; modes {", ".join(modes)}; shorter sides {low:.0f} to '
    f'{high:.0f} pixels, median {middle:.0f} (of {len(files):,} files)'
  ]
  if middle < size:
    lines.append(
      f'  - Half of the files are smaller than image_size = {size} and are enlarged: right '
      'for weights of that size, for others a cost without a gain '
      '(sources.<name>.input.image_size).'
    )
  if fields['channels'] == 3 and set(modes) <= {'L', '1', 'I;16', 'I'}:
    lines.append('  - All files are grey; the three channels will be equal.')
  if fields['channels'] == 1 and set(modes) & {'RGB', 'P', 'CMYK', 'YCbCr'}:
    lines.append('  - Files have colour, which is lost: input.channels is 1.')
  return lines


def _findings(study: Mapping[str, Any], target: str, data: datasets.Dataset) -> list[str]:
  """Sentences on what would mislead whoever reads the table, and which field changes it."""
  if isinstance(data.train.values, dict):
    return _few_boxes(data) + _of_groups(target, data)
  if len(np.unique(data.train.labels)) < 2:  # numbers, tags or running text: there are no classes
    return _of_groups(target, data)
  train = np.bincount(data.train.labels, minlength=len(data.class_names))
  test = np.bincount(data.test.labels, minlength=len(data.class_names))
  notes = []
  smallest = int(train.argmin())
  if train.max() >= UNEVEN * train.min():
    notes.append(
      f'Classes are unequal: {data.class_names[int(train.argmax())]} has {train.max():,} '
      f'training examples, {data.class_names[smallest]} {train.min():,}. Read '
      'balanced_accuracy beside accuracy. Shots take as many of each; of all (0) the task '
      "classification weighs them with class_weights = 'balanced'."
    )
  if few := [name for name, count in zip(data.class_names, test) if 0 < count < FEW]:
    notes.append(
      f'{len(few):,} of {len(data.class_names):,} classes have fewer than {FEW} test '
      f'examples, as {few[0]}: the recall of each says little. A larger test_fraction gives '
      'more.'
    )
  if missing := [name for name, count in zip(data.class_names, test) if not count]:
    notes.append(f'{", ".join(missing)}: no test example, so no recall.')
  if max(study['shots']) and train.min() < 2 * max(study['shots']):
    notes.append(
      f'{data.class_names[smallest]} has {train.min():,} training examples: the subsets of '
      f'{max(study["shots"])} a class of different seeds share most of them, so seeds differ '
      'by less than new samples would. Take smaller shots.'
    )
  count = int(test.sum())
  half = 196 * np.sqrt(0.09 / count)
  notes.append(
    f'{count:,} test examples: an accuracy of 90% is known to {half:.1f} points either way '
    '(95%), whatever the number of seeds.'
  )
  return notes + _of_groups(target, data)


def _few_boxes(data: datasets.Dataset) -> list[str]:
  """What would mislead in the AP of a class."""
  values = data.test.values
  judged = values['labels'][(values['valid'] > 0) & (values['crowd'] == 0)]
  counts = np.bincount(judged, minlength=len(data.class_names))
  few = [f'{name} ({count})' for name, count in zip(data.class_names, counts) if count < FEW]
  if not few:
    return []
  return [
    f'Classes with fewer than {FEW} boxes to find in the test part: {", ".join(few)}. Their AP '
    'says little. A larger test_fraction gives more.'
  ]


def _of_groups(target: str, data: datasets.Dataset) -> list[str]:
  if data.train.groups:
    return []
  return [
    'No groups are known. Where one person, document or scene gave several examples, say '
    f'what names it (targets.{base(target)}.group), or test scores will flatter.'
  ]


def _sheet(data: datasets.Dataset, rows: int = 8, columns: int = 8) -> bytes:
  """A PNG of up to so many classes, a row each, with their first training images as stored."""
  classes = range(min(rows, len(data.class_names)))
  figure = Figure(figsize=(columns, 1.3 * len(classes)), dpi=80)
  axes = figure.subplots(len(classes), columns, squeeze=False)
  for number, row in zip(classes, axes):
    places = np.flatnonzero(data.train.labels == number)[:columns]
    for place, cell in enumerate(row):
      cell.set_axis_off()
      if place < len(places):
        image = feed.take(data.train.inputs, places[place : place + 1])[0]
        cell.imshow(
          image.squeeze(),
          cmap='gray' if image.shape[-1] == 1 else None,
          vmin=0,
          vmax=255,
        )
    row[0].set_title(data.class_names[number], fontsize=7, loc='left', parse_math=False)
  buffer = io.BytesIO()
  figure.savefig(buffer, format='png', bbox_inches='tight')
  return buffer.getvalue()


def _boxes_sheet(data: datasets.Dataset, rows: int = 3, columns: int = 4) -> bytes:
  """A PNG of up to so many training images with their boxes, as stored; crowds are dashed."""
  shown = []
  for row in range(min(rows * columns, len(data.train.ids))):
    one = data.train.take(np.array([row]))
    there = one.values['valid'][0] > 0
    boxes, labels, crowd = (one.values[name][0][there] for name in ('boxes', 'labels', 'crowd'))
    (image,) = feed.whole(one.inputs)
    shown.append(pictures.drawn(image, boxes, labels.tolist(), dashed=crowd > 0))
  columns = min(columns, len(shown))
  below = pictures.legend(data.class_names, shown[0].size[0] * columns)
  buffer = io.BytesIO()
  pictures.sheet(shown, columns, below).save(buffer, 'png')
  return buffer.getvalue()


_SHEETS = {'image': _sheet, 'annotated image': _boxes_sheet}
