"""vtab1k:TASK: tasks of VTAB-1k (Zhai et al. 2019, arXiv:1910.04867): 800 examples to train, 200 to
choose by, the whole test part.

The splits are those of the official code (task_adaptation/data), first examples of a TFDS data set.
Of the 19 tasks these are the 12 that are an image and its class; the others compute a label from
coordinates, counts or boxes.
"""

from tlx.plug import closest

TRAIN = 'train[:800]'
# task -> (TFDS name, the 200, the test part)
_TASKS = {
  'caltech101': ('caltech101', 'train[2753:2953]', 'test'),
  'cifar100': ('cifar100', 'train[45000:45200]', 'test'),
  'dtd': ('dtd', 'validation[:200]', 'test'),
  'flowers': ('oxford_flowers102', 'validation[:200]', 'test'),
  'pets': ('oxford_iiit_pet', 'train[2944:3144]', 'test'),
  'sun397': ('sun397', 'validation[:200]', 'test'),
  'svhn': ('svhn_cropped', 'train[65931:66131]', 'test'),
  'camelyon': ('patch_camelyon', 'validation[:200]', 'test'),
  'eurosat': ('eurosat', 'train[16200:16400]', 'train[21600:]'),
  'resisc45': ('resisc45', 'train[18900:19100]', 'train[25200:]'),
  'retinopathy': ('diabetic_retinopathy_detection/btgraham-300', 'validation[:200]', 'test'),
  'dmlab': ('dmlab', 'validation[:200]', 'test'),
}
TASKS = tuple(_TASKS)


def splits(task: str) -> tuple[str, dict[str, str]]:
  """(TFDS name, {our split: the slice of TFDS's}).

  Raises:
    ValueError: no such task.
  """
  if task not in _TASKS:
    raise ValueError(
      f'Unknown VTAB-1k task {task!r}; have {", ".join(TASKS)}.{closest(task, TASKS)}'
    )
  name, val, test = _TASKS[task]
  return name, {'train': TRAIN, 'val': val, 'test': test}
