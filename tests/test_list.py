"""What there is can be listed, every file of every room."""

import pytest

from experiments import list as command
from tlx.plug import available

FILES = [(room, name) for room in command.ROOMS for name in available(room)]


@pytest.mark.parametrize('room, name', FILES)
def test_every_file_says_what_it_is(room, name, capsys):
  command.main(['', room])
  line = next(line for line in capsys.readouterr().out.splitlines() if line.split()[0] == name)
  assert len(line.split(None, 1)[1]) > 10 and not line.endswith('et al')
  assert command.describe(room, name)


def test_a_backbone_shows_its_options_and_stages(capsys):
  command.main(['', 'backbones/bert'])
  said = capsys.readouterr().out
  assert '  vocab_size = 30522' in said and 'minilm_l6' in said
  assert 'embed, block0, block1, pool, head' in said


def test_what_there_is_not_is_one_line():
  with pytest.raises(SystemExit, match="Error: Got 'nonsense'; name one of backbones"):
    command.main(['', 'nonsense'])
  with pytest.raises(SystemExit, match='Did you mean'):
    command.main(['', 'backbones/brt'])
