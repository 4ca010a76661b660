"""What stands beside tensors and says how they compute: config.json of transformers and timm,
GGUF's metadata, a timm name.

Tensors of many networks fit ours whose maths is another. A backbone's `told(config)` gives the
options that a config asks for, {option: (the field, its value)}, and refuses what it does not
compute with the field's name.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

Told = dict[str, tuple[str, Any]]

# Fields of transformers and timm that change no output of a network in evaluation.
HARMLESS = re.compile(
  r'(_.*|architectures|num_classes|num_features|pretrained_cfg|model_type|architecture|'
  r'torch_dtype|dtype|transformers_version|use_cache|initializer_\w+|init_std|id2label|label2id|'
  r'num_labels|problem_type|finetuning_task|output_(attentions|hidden_states|scores|past)|'
  r'return_dict\w*|is_encoder_decoder|\w*token_id|\w*token_index|\w*drop\w*|\w*_prob|\w*pdrop|'
  r'gradient_checkpointing|torchscript|language|license|tags|out_\w+|stage_names|'
  r'encoder_stride|task_specific_params|pretraining_tp|reshape_hidden_states|use_mask_token|'
  r'mask_ratio|summary_\w+|tie_word_embeddings|bos_token|eos_token|pooler_\w+|'
  r'max_position_embeddings|n_ctx)'
)


def only(config: Mapping[str, Any], choices: Mapping[str, Sequence[Any]], network: str) -> None:
  """Nothing, where each of these fields is missing or has one of its choices.

  Raises:
    ValueError: one has another; the message names it.
  """
  for field, values in choices.items():
    if field in config and config[field] not in values:
      raise refused(
        field, config[field], f'{network} computes {field} = {" or ".join(map(repr, values))} only'
      )


def refused(field: str, value: Any, why: str) -> ValueError:
  """The error for a field whose value no option of ours stands for."""
  return ValueError(f'{field} = {value!r}, but {why}.')


def given(config: Mapping[str, Any], fields: Mapping[str, str]) -> Told:
  """{option: (field, value)} for those of {option: field} that the config has."""
  return {
    option: (field, config[field])
    for option, field in fields.items()
    if config.get(field) is not None
  }


def hashable(told: Told) -> Told:
  """`told` with tuples for the lists that JSON has."""
  found = {}
  for option, (field, value) in told.items():
    found[option] = (field, tuple(value) if isinstance(value, list) else value)
  return found


def unread(config: Mapping[str, Any], read: Iterable[str]) -> list[str]:
  """The fields, with a value, that nobody reads and that are not known to change nothing."""
  empty: tuple[Any, ...] = (None, False, '', [], {})
  return sorted(
    field
    for field, value in config.items()
    if field not in set(read) and value not in empty and not HARMLESS.fullmatch(field)
  )


def same(ours: Any, theirs: Any) -> bool:
  """Whether two values of an option are equal, numbers up to float32's rounding."""
  try:
    return np.shape(ours) == np.shape(theirs) and bool(np.allclose(ours, theirs, rtol=1e-6, atol=0))
  except TypeError:  # names, None
    return ours == theirs


def timm_args(config: Mapping[str, Any], known: Sequence[str] = ()) -> dict[str, Any]:
  """The arguments that timm's model was built with beyond its name.

  Raises:
    ValueError: one that is not among the `known` and not known to change nothing.
  """
  args = dict(config.get('model_args') or {})
  for name, value in args.items():
    if name not in known and not re.fullmatch(r'\w*drop\w*|num_classes|img_size|in_chans', name):
      raise refused(
        f'model_args.{name}', value, 'only the models of timm as they are named are computed'
      )
  return args


def timm_name(provenance: Mapping[str, Any], families: Sequence[str]) -> str:
  """The name of timm's or torchvision's model that weights go by: of their repository, or of a file
  as torch.hub names it; or ''.
  """
  package = str(provenance.get('package') or '')
  if package.startswith('timm/'):
    return package.removeprefix('timm/').split('.')[0]
  file = re.fullmatch(r'([A-Za-z]\w*)-[0-9a-f]{8,}\.(pth|pt)', str(provenance.get('file', '')))
  return file[1] if file and any(family in file[1] for family in families) else ''
