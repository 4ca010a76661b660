"""How far a study is: a bar on a terminal, plain lines elsewhere."""
import sys
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

LINE_SECONDS = 5.0


class Reporter:
  """Counts steps over all runs of a study and says what is left."""

  def __init__(self, total_steps: int, total_runs: int, aloud: bool = True):
    self.total_steps, self.total_runs = max(total_steps, 1), total_runs
    self.steps = self.runs = self.counted = 0  # counted: steps taken by this process, which its speed is judged by
    self.began = self.told = time.monotonic()
    self.console = Console(quiet=not aloud)
    self.bar = None
    if aloud and sys.stdout.isatty():
      self.bar = Progress(BarColumn(), TextColumn('{task.percentage:3.0f}%'), TextColumn('{task.description}'), console=self.console)
      self.bar.start()
      self.task = self.bar.add_task('', total=self.total_steps)

  def skip(self, runs: int, steps: int) -> None:
    """Counts runs that an earlier process finished."""
    self.runs, self.steps = self.runs + runs, self.steps + steps

  def say(self, name: str, steps: int, rate: float) -> None:
    """`steps` of the cohort `name` are done, over all its runs, at `rate` steps a second."""
    self.counted = max(self.counted, 1)
    now = time.monotonic()
    done = self.steps + steps
    pace = (self.counted + steps) / max(now - self.began, 1e-9)
    left = (self.total_steps - done) / pace
    text = f'{name}  runs {self.runs}/{self.total_runs}  {rate:,.0f} steps/s  {int(left) // 60}:{int(left) % 60:02d} left'
    if self.bar:
      self.bar.update(self.task, completed=done, description=text)
    elif now - self.told >= LINE_SECONDS:
      self.told = now
      self.line(f'{done / self.total_steps:4.0%}  {text}')

  def finish(self, runs: int, steps: int) -> None:
    """A cohort is done and its results are written."""
    self.runs, self.steps, self.counted = self.runs + runs, self.steps + steps, self.counted + steps

  def line(self, text: str) -> None:
    """Prints a line above the bar."""
    self.console.print(text, highlight=False, markup=False, soft_wrap=True)

  def close(self) -> None:
    """Takes the bar away."""
    if self.bar:
      self.bar.stop()
