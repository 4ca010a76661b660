"""Talks with a model of dialogues in the terminal: a run of a study, or bare weights.

    python -m experiments.chat --workdir=runs/chat [--run=NAME] [--temperature=0.7]
    python -m experiments.chat --backbone=llama:smollm2_135m --weights=URI

/reset begins anew, /quit ends. No model here is a medical, legal or other professional's advice.
"""

import sys

from absl import app, flags, logging

from tlx.command import run_command

from . import generate

flags.adopt_module_key_flags(generate)
SYSTEM = flags.DEFINE_string('system', '', 'What the system says before all.')


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected {" ".join(argv[1:])!r}; see --help.')
  logging.set_verbosity(logging.ERROR)
  from tlx.study import write

  try:
    model = generate.load('dialogue')
    write.check(model)
    print(f'{model.about}\n/reset begins anew, /quit ends. What it says may be wrong.')
    begin = [('system', SYSTEM.value)] if SYSTEM.value else []
    said = list(begin)
    while True:
      try:
        line = input('> ').strip()
      except EOFError:
        return
      if line == '/quit':
        return
      if line == '/reset':
        said = list(begin)
      elif line:
        said.append(('user', line))
        answer = ''
        seed = generate.SEED.value + len(said)
        for piece in write.stream(model, said, generate.TOKENS.value, generate.sampling(), seed):
          print(piece, end='', flush=True)
          answer += piece
        print()
        said.append(('assistant', answer))
  except (ValueError, OSError) as error:
    sys.exit(f'Error: {error}')
  except KeyboardInterrupt:
    print()


if __name__ == '__main__':
  run_command(main)
