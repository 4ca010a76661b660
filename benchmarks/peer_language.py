"""The other side of language.py: the same training with torch, transformers and peft, once for each
line of stdin, answered with `seconds N WEIGHTS`. Imports nothing of tlx.
"""

import sys
import time
from pathlib import Path

import peft
import torch
import transformers


def main() -> None:
  job, file = sys.argv[1], Path(sys.argv[2])
  runs, steps, batch, length, rows = map(int, sys.argv[3:])
  model = transformers.AutoModelForCausalLM.from_pretrained(
    file.parent, gguf_file=file.name, dtype=torch.float32
  )
  ids = torch.randint(5, 40000, (rows, length), generator=torch.Generator().manual_seed(0))
  one_run(model, job, ids[:batch], 1, batch)  # takes the memory that later runs have
  for _ in sys.stdin:
    seconds = 0.0
    for _ in range(runs):
      of_run, weights = one_run(model, job, ids, steps, batch)
      seconds += of_run
    print('seconds', seconds, weights, flush=True)


def one_run(
  model: torch.nn.Module, job: str, ids: torch.Tensor, steps: int, batch: int
) -> tuple[float, int]:
  """(seconds of the steps, weights trained); adapters are taken off again."""
  trained = prepared(model, job)
  leaves = [leaf for leaf in trained.parameters() if leaf.requires_grad]
  seconds = train(trained, leaves, ids, steps, batch)
  if job == 'adapters':
    trained.unload()
  return seconds, sum(leaf.numel() for leaf in leaves)


def prepared(model: torch.nn.Module, job: str) -> torch.nn.Module:
  """The model with what the job trains."""
  if job == 'adapters':
    of_lora = peft.LoraConfig(r=8, lora_alpha=16, target_modules=['q_proj', 'v_proj'])
    return peft.get_peft_model(model, of_lora)
  model.requires_grad_(False)
  for part in (*model.model.layers[-10:], model.model.norm):
    part.requires_grad_(True)
  return model


def train(model: torch.nn.Module, leaves: list, ids: torch.Tensor, steps: int, batch: int) -> float:
  """Seconds of the steps, over the rows again and again."""
  adam = torch.optim.AdamW(leaves, lr=1e-4, weight_decay=0.0, fused=True)
  begin = time.perf_counter()
  for step in range(steps):
    rows = torch.arange(step * batch, (step + 1) * batch) % len(ids)
    loss = model(input_ids=ids[rows], labels=ids[rows], use_cache=False).loss
    loss.backward()
    adam.step()
    adam.zero_grad()
  return time.perf_counter() - begin


if __name__ == '__main__':
  main()
