"""Writes on from a file of prompts, with a language model that a study trained or bare weights.

    python -m experiments.generate --workdir=runs/chat --inputs=prompts.txt --out=written.jsonl
    python -m experiments.generate --backbone=llama:smollm2_135m --weights=URI --inputs=p.jsonl

A prompt is a line of a .txt, or of a .jsonl its field prompt or text, or messages ([{"role",
"content"}, ...]) that a model of dialogues answers: one that was trained to chat wants messages,
and continues a prompt as if it were text. Without --temperature the most probable tokens are
written.
"""

import json
import pathlib
import sys

from absl import app, flags, logging

from tlx.command import run_command

from . import embed

flags.adopt_module_key_flags(embed)
TEMPLATE = flags.DEFINE_string('template', '', 'The chat template, where the weights bring none.')
TOKENS = flags.DEFINE_integer('tokens', 128, 'At most so many are written.', lower_bound=1)
TEMPERATURE = flags.DEFINE_float('temperature', 0.0, 'Of drawn tokens; 0 takes the most probable.')
TOP_P = flags.DEFINE_float('top_p', 1.0, 'Of drawn tokens, the most probable up to this share.')
SEED = flags.DEFINE_integer('seed', 0, 'Of drawn tokens.')


def load(form: str):
  """The model that the flags name."""
  return embed.load({'template': TEMPLATE.value} if TEMPLATE.value else {}, form)


def sampling():
  """How tokens are drawn, None where they are not."""
  from tlx.study import write

  return write.Sampling(TEMPERATURE.value, top_p=TOP_P.value) if TEMPERATURE.value else None


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected {" ".join(argv[1:])!r}; see --help.')
  logging.set_verbosity(logging.ERROR)
  from tlx.study import write

  try:
    prompts = write.prompts_of(INPUTS.value)
    model = load('language' if prompts and isinstance(prompts[0], str) else 'dialogue')
    print(model.about, file=sys.stderr)
    pathlib.Path(OUT.value).parent.mkdir(parents=True, exist_ok=True)
    texts = write.write(model, prompts, TOKENS.value, sampling(), SEED.value)
    with open(OUT.value, 'w', encoding='utf-8') as file:
      for prompt, text in zip(prompts, texts):
        print(json.dumps({'prompt': prompt, 'text': text}, ensure_ascii=False), file=file)
  except (ValueError, OSError) as error:
    sys.exit(f'Error: {error}')


if __name__ == '__main__':
  INPUTS = flags.DEFINE_string('inputs', None, 'A .txt or .jsonl file of prompts.', required=True)
  OUT = flags.DEFINE_string('out', '/dev/stdout', 'A .jsonl file.')
  run_command(main)
