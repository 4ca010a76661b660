"""Linear probes solved, not trained: logistic and ridge regression for all runs of a study at once.

Both solvers divide the centred features [N, D] by one number, the root of their mean variance over
the run's own examples, and penalise the kernel of the result: so a penalty means the same for every
backbone, layer and number of examples, and the shape of the features stays. (To standardise each
column by itself blows up those that are next to constant: of EfficientNet-Lite0 at one example a
class it costs 13 points, at 156 two.) What they return applies to the features as given. For a run
of n examples x they find what scikit-learn finds in float64 on
(x - x.mean(0)) / sqrt(x.var(0).mean()) with

  logistic  LogisticRegression(C=1 / (n * penalty)); for two classes C=2 / (n * penalty)
  ridge     RidgeClassifier(alpha=n * penalty)

(of two classes we keep a column each, scikit-learn one, their difference).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh

from tlx.train import cohort, feed, memory
from tlx.train import mesh as meshes
from tlx.train.job import Job
from tlx.train.spread import Spread
from tlx.train.step import minimised
from tlx.tree import map_named, merge, num_bytes
from tlx.types import Array, Batch, Form, Network, PyTree, RunState, Variables, num_logits

BATCH = 32  # examples whose features are computed at a time
TOLERANCE = 1e-5  # norm of the gradient at which a probe is solved
# By so much more it may be found afterwards: on the way, outputs are moved along, which rounds
# otherwise than computing them anew.
SLACK = 1.1
MAX_STEPS = 1000  # of L-BFGS
MEMORY = 5  # pairs that L-BFGS keeps
SEARCH_STEPS = 20  # of one line search
REFINEMENTS = 5  # of ridge
NULL = 1e-10  # an axis with at most this multiple of the largest variance is none


class Probe(NamedTuple):
  """A solved head (features @ kernel + bias), and how well it is solved; of several, stacked.

  `grad_norm` is the norm of the gradient by kernel and bias of the scaled features.
  """

  kernel: Array  # [D, K]
  bias: Array  # [K]
  steps: Array  # of L-BFGS, or refinements
  grad_norm: Array
  converged: Array  # grad_norm <= SLACK * TOLERANCE


class _Axes(NamedTuple):
  """Scaled features along their A = min(N, D) principal axes, and a column of ones for the bias."""

  features: Array  # [N, A + 1], rows of weight 0.0 are 0.0 but for the ones
  variance: Array  # [A + 1, 1]
  basis: Array  # [D, A], by which a kernel [A, K] becomes that of the features as given
  mean: Array  # [D], of the features as given
  share: Array  # [N, 1], the weights, summing to one

  def decay(self, penalty: Array) -> Array:
    """The penalty of each row [A + 1, 1] of the parameters: none of the bias."""
    return penalty * (jnp.arange(len(self.variance)) < len(self.variance) - 1)[:, None]


def _scaled(features: Array, weights: Array) -> tuple[Array, Array, Array]:
  """(centred features over their deviation, mean [D], deviation []).

  Rows of weight 0.0 are 0.0; without any deviation it is inf.
  """
  counted, share = weights[:, None] > 0, weights / jnp.sum(weights)
  origin = features[jnp.argmax(weights > 0)].astype(
    jnp.float32
  )  # large means lose no digits, constant columns are exact zeros
  x = jnp.where(counted, features.astype(jnp.float32) - origin, 0)
  unit = jnp.max(
    jnp.abs(x)
  )  # the squares of very large and very small features stay in float32's range
  x = x / jnp.where(unit > 0, unit, 1)
  mean = share @ x
  x = jnp.where(counted, x - mean, 0)
  std = jnp.sqrt(jnp.mean(share @ x**2))
  return (
    x / jnp.where(std > 0, std, 1),
    origin + unit * mean,
    jnp.where(std > 0, unit * std, jnp.inf),
  )


def _principal(features: Array, weights: Array) -> _Axes:
  """Along these axes both problems are well conditioned, and few-shot ones small.

  The bases are orthonormal: float32 suffices.
  """
  x, mean, std = _scaled(features, weights)
  share = (weights / jnp.sum(weights))[:, None]
  wide = x.shape[0] < x.shape[1]
  if wide:
    basis, triangle = jnp.linalg.qr(x.T)  # [D, N], [N, N]
    x = triangle.T
  turn = jnp.linalg.eigh(x.T @ (share * x))[1]
  basis = basis @ turn if wide else turn
  x = x @ turn
  variance = jnp.sum(share * x**2, 0)
  x = jnp.where(variance <= NULL * jnp.max(variance), 0, x)
  x = jnp.concatenate([x, jnp.ones_like(share)], 1)
  return _Axes(x, jnp.sum(share * x**2, 0)[:, None], basis / std, mean, share)


def _probe(axes: _Axes, params: Array, steps: Array, grads: Array) -> Probe:
  kernel, grad_norm = axes.basis @ params[:-1], jnp.sqrt(jnp.sum(grads**2))
  bias, solved = params[-1] - axes.mean @ kernel, grad_norm <= SLACK * TOLERANCE
  return Probe(kernel, bias, steps, grad_norm, solved)


class _State(NamedTuple):
  """Of L-BFGS; kernel and bias are one matrix [A + 1, K]."""

  step: Array
  params: Array
  outputs: Array  # [N, K], before the softmax
  grads: Array
  moves: Array  # [MEMORY, A + 1, K], the latest last
  turns: Array  # changes of the gradient along them
  inverses: Array  # [MEMORY], 1 / <move, turn>; 0.0 where there is none


def _direction(state: _State, variance: Array, decay: Array) -> Array:
  """Minus L-BFGS's inverse Hessian times the gradient; steepest descent where that climbs.

  Nocedal and Wright 2006, algorithm 7.4, but from the Hessian c * variance + decay, which has the
  curvature of the latest move, instead of c * identity.
  """
  towards, factors = state.grads, [jnp.zeros(())] * MEMORY
  for i in reversed(range(MEMORY)):
    factors[i] = state.inverses[i] * jnp.vdot(state.moves[i], towards)
    towards = towards - factors[i] * state.turns[i]
  move = state.moves[-1]
  spread = jnp.vdot(variance * move, move)
  scale = (jnp.vdot(move, state.turns[-1]) - jnp.vdot(decay * move, move)) / jnp.where(
    spread > 0, spread, 1
  )
  scale = jnp.where(spread > 0, jnp.clip(scale, 1e-8, 1), 0.1)
  towards = towards / (scale * jnp.maximum(variance, NULL * jnp.max(variance)) + decay)
  for i in range(MEMORY):
    towards = (
      towards
      + (factors[i] - state.inverses[i] * jnp.vdot(state.turns[i], towards)) * state.moves[i]
    )
  return -jnp.where(jnp.vdot(state.grads, towards) > 0, towards, state.grads)


def _search(slopes: Callable[[Array], tuple[Array, Array]]) -> Array:
  """The step t > 0 that takes a convex function near its minimum, by guarded Newton.

  slopes(t) = (first, second) are the function's derivatives.
  """
  first, _ = slopes(jnp.zeros(()))

  def narrow(carry):
    count, low, high, t, slope, curvature = carry
    low, high = jnp.where(slope < 0, t, low), jnp.where(slope < 0, high, t)
    t = t - slope / curvature
    furthest = jnp.where(jnp.isfinite(high), high, 10 * low)
    t = jnp.where(
      (t > low) & (t < furthest), t, jnp.where(jnp.isfinite(high), (low + high) / 2, furthest)
    )
    return count + 1, low, high, t, *slopes(t)

  begin = (
    jnp.zeros((), jnp.int32),
    jnp.zeros(()),
    jnp.full((), jnp.inf),
    jnp.ones(()),
    *slopes(jnp.ones(())),
  )
  return jax.lax.while_loop(
    lambda c: (c[0] < SEARCH_STEPS) & (jnp.abs(c[4]) > 0.1 * jnp.abs(first)), narrow, begin
  )[3]


def logistic(
  features: Array, targets: Array, weights: Array, penalties: Array, num_classes: int
) -> Probe:
  """The minima of sum_i w_i CE_i / sum_i w_i + penalty / 2 ||kernel||^2 for all penalties [P].

  The bias is free. L-BFGS whose line search costs no product with the features: along a line the
  outputs are linear. It ends where the norm of the gradient is at most TOLERANCE, or after
  MAX_STEPS. A class without examples is left out; it gets kernel 0 and a bias by which its
  probability is at most TOLERANCE on every example.

  Args:
    weights: [N], of the examples; 0.0 leaves one out.
  """
  with jax.default_matmul_precision('highest'):
    axes = _principal(features, weights)
    return jax.vmap(lambda penalty: _logistic(axes, jax.nn.one_hot(targets, num_classes), penalty))(
      penalties
    )


def _logistic(axes: _Axes, labels: Array, penalty: Array) -> Probe:
  counts, decay = jnp.sum(axes.share * labels, 0), axes.decay(penalty)
  present = counts > 0
  masked = lambda outputs: jnp.where(present, outputs, -jnp.inf)
  transposed = axes.features.T  # its rows are what the gradient reads

  def gradient(params: Array, outputs: Array) -> Array:
    return transposed @ (axes.share * (jax.nn.softmax(masked(outputs)) - labels)) + decay * params

  def slopes(state: _State, direction: Array, change: Array, t: Array) -> tuple[Array, Array]:
    probs = jax.nn.softmax(masked(state.outputs + t * change))
    mean = jnp.sum(probs * change, 1, keepdims=True)
    first = jnp.sum(axes.share * (probs - labels) * change) + jnp.vdot(
      decay * direction, state.params + t * direction
    )
    return first, jnp.sum(axes.share * probs * (change - mean) ** 2) + jnp.vdot(
      decay * direction, direction
    )

  def step(state: _State) -> _State:
    direction = _direction(state, axes.variance, decay)
    change = axes.features @ direction
    t = _search(lambda t: slopes(state, direction, change, t))
    move, outputs = t * direction, state.outputs + t * change
    grads = gradient(state.params + move, outputs)
    turn = grads - state.grads
    along = jnp.vdot(move, turn)
    latest = lambda kept, new: jnp.concatenate([kept[1:], new[None]])
    return _State(
      state.step + 1,
      state.params + move,
      outputs,
      grads,
      latest(state.moves, move),
      latest(state.turns, turn),
      latest(state.inverses, jnp.where(along > 0, 1 / along, 0)),
    )

  prior = jnp.log(jnp.where(present, counts, 1))
  params = jnp.zeros((len(decay), len(counts))).at[-1].set(prior)
  outputs = axes.features @ params
  memory = jnp.zeros((MEMORY, *params.shape))
  state = _State(
    jnp.zeros((), jnp.int32),
    params,
    outputs,
    gradient(params, outputs),
    memory,
    memory,
    jnp.zeros(MEMORY),
  )
  unsolved = lambda state: (jnp.sum(state.grads**2) > TOLERANCE**2) & (state.step < MAX_STEPS)
  state = jax.lax.while_loop(unsolved, step, state)
  outputs = axes.features @ state.params
  least = jnp.min(jnp.where(axes.share[:, 0] > 0, jax.nn.logsumexp(masked(outputs), 1), jnp.inf))
  params = state.params.at[-1].set(jnp.where(present, state.params[-1], least + jnp.log(TOLERANCE)))
  return _probe(axes, params, state.step, gradient(state.params, outputs))


def ridge(
  features: Array, targets: Array, weights: Array, penalties: Array, num_classes: int
) -> Probe:
  """The minima of sum_i w_i ||outputs_i - y_i||^2 / (2 sum_i w_i) + penalty / 2 ||kernel||^2.

  For all penalties [P], the bias being free. y_i is 1 for the class and -1 for the others. One
  eigendecomposition serves all penalties; each solution is refined by its own gradient, since
  float32's eigenvectors are not quite orthogonal where variances are small.

  Args:
    weights: [N], of the examples; 0.0 leaves one out.
  """
  with jax.default_matmul_precision('highest'):
    axes = _principal(features, weights)
    labels = 2 * jax.nn.one_hot(targets, num_classes) - 1
    return jax.vmap(lambda penalty: _ridge(axes, labels, penalty))(penalties)


def _ridge(axes: _Axes, labels: Array, penalty: Array) -> Probe:
  decay, smallest = axes.decay(penalty), jnp.finfo(jnp.float32).eps * jnp.max(axes.variance)
  gradient = lambda params: (
    axes.features.T @ (axes.share * (axes.features @ params - labels)) + decay * params
  )
  refine = lambda _, params: (
    params - gradient(params) / (jnp.maximum(axes.variance, smallest) + decay)
  )
  params = jax.lax.fori_loop(0, REFINEMENTS, refine, jnp.zeros((len(decay), labels.shape[1])))
  return _probe(axes, params, jnp.int32(REFINEMENTS), gradient(params))


SOLVERS = {'logistic': logistic, 'ridge': ridge}


@functools.cache
def solver_program(solver: str, num_classes: int, mesh: Mesh) -> cohort.Program:
  """The program of `solve`; compiles once a shape and keeps account of it."""

  def run(_: tuple[()], group: tuple[Array, Array, Array], shared: tuple[Array, Array]) -> Probe:
    rows, mask, penalties = group
    features, targets = shared
    return SOLVERS[solver](features[rows], targets[rows], mask, penalties, num_classes)

  return cohort.Program(run, mesh)


def solve(
  solver: str,
  features: Array,
  targets: Array,
  rows: np.ndarray,
  mask: np.ndarray,
  penalties: np.ndarray,
  num_classes: int,
  between: Callable[[], None] = lambda: None,
) -> Probe:
  """The probes of R runs on shared features [N, D], on the host, each field stacked [R, ...].

  Runs with the same examples are solved together, whatever their penalties; such groups are spread
  over this process's devices. A program is compiled for each n and largest number of penalties in a
  group (on accelerators also for each number of groups).

  Args:
    solver: 'logistic' or 'ridge'.
    rows: int [R, n], the examples of each run, filled up where `mask` [R, n] is 0.0.
    penalties: [R].
    between: called after every program that ran; it may raise to end.

  Raises:
    ValueError: an unknown solver, shapes that do not fit, rows or targets out of range, a run
      without examples, a negative penalty, or features that a device does not hold.
  """
  rows, mask, penalties = (
    np.asarray(rows),
    np.asarray(mask, np.float32),
    np.asarray(penalties, np.float32),
  )
  _check(solver, features, np.asarray(targets), rows, mask, penalties, num_classes)
  _, first, group = np.unique(
    np.where(mask > 0, rows, -1), axis=0, return_index=True, return_inverse=True
  )
  members = [np.flatnonzero(group.reshape(-1) == index) for index in range(len(first))]
  devices = np.asarray(jax.local_devices()[: len(first)])
  mesh = Mesh(devices[:, None], ('run', 'data'), axis_types=(AxisType.Auto,) * 2)
  members += members[-1:] * (-len(first) % len(devices))  # every device has as many groups
  places = np.stack(
    [np.resize(runs, max(map(len, members))) for runs in members]
  )  # [G, P], the run that each place computes
  at_once = (
    len(devices) if jax.default_backend() == 'cpu' else len(places)
  )  # on CPU a device takes them one by one anyway
  shared = meshes.put((features, targets), meshes.spec(mesh))
  solved = []
  for some in np.split(places, range(at_once, len(places), at_once)):
    leads = some[:, 0]
    groups = meshes.put(
      (rows[leads].astype(np.int32), mask[leads], penalties[some]), meshes.spec(mesh, 'run')
    )
    solved.append(jax.device_get(solver_program(solver, num_classes, mesh)((), groups, shared)))
    between()
  _, place = np.unique(places, return_index=True)
  return jax.tree.map(
    lambda *leaves: np.concatenate(leaves).reshape(-1, *leaves[0].shape[2:])[place], *solved
  )


def solve_phase(
  job: Job, index: int, phased: Any, spread: Spread, between: Callable[[], None] = lambda: None
) -> tuple[RunState, PyTree, list[bool]]:
  """(the state at each run's exact solution, its sums of metrics, [R] whether it was found).

  The sums are the loss on the run's examples and the norm of the gradient there. Every view of
  every example counts; runs with equal sets of examples are solved once. Where stages before the
  head were trained by earlier phases, each run has features of its own, and is solved by itself.

  Args:
    phased: of fit.py, the leaves on the devices.
  """
  plan, state = job.phases[index], phased.state
  if plan.phase.start < len(job.network.stages) - 1:
    return _solve_apart(job, index, phased, spread, between)
  data, num_views = feed.whole(job.train(plan.phase)), max(1, plan.phase.views)
  first = feed.length(data) // num_views * np.arange(num_views)[:, None]
  rows = [np.sort((first + examples).reshape(-1)) for examples in job.examples]
  found: dict[str, list] = {
    name: [None] * len(rows) for name in ('kernel', 'bias', 'loss', 'grad_norm', 'converged')
  }
  for length in {len(own) for own in rows}:  # few-shot problems are small ones
    runs = [run for run, own in enumerate(rows) if len(own) == length]
    penalties = np.asarray(job.weight_decays)[runs]
    probe = solve(
      plan.phase.solver,
      data.inputs,
      data.targets,
      np.stack([rows[run] for run in runs]),
      np.ones((len(runs), length)),
      penalties,
      num_logits(plan.task),  # a task with solvers has a linear head
      between,
    )
    for i, run in enumerate(runs):
      outputs = np.asarray(data.inputs[rows[run]], np.float32) @ probe.kernel[i] + probe.bias[i]
      batch = Batch(None, data.targets[rows[run]], np.ones(length, np.float32))
      total, weight = minimised(plan.task, outputs, batch)
      solution = (
        probe.kernel[i],
        probe.bias[i],
        total / weight,
        probe.grad_norm[i],
        probe.converged[i],
      )
      for name, value in zip(found, solution):
        found[name][run] = value
  return _solved(state, {name: np.asarray(v, np.float32) for name, v in found.items()}, spread)


def _solved(
  state: RunState, stacked: dict[str, np.ndarray], spread: Spread
) -> tuple[RunState, PyTree, list[bool]]:
  """What `solve_phase` gives of the solutions of all runs."""
  trainable = map_named(
    lambda name, _: spread.pad(stacked[name.rpartition('/')[2]]), state.trainable
  )
  num_runs = len(stacked['loss'])
  state = state._replace(step=spread.pad(np.ones(num_runs, np.int32)), trainable=trainable)
  sums = {name: stacked[name] for name in ('loss', 'grad_norm')}
  return (
    spread.place(state),
    spread.place(spread.pad(sums)),
    stacked['converged'].astype(bool).tolist(),
  )


def _solve_apart(
  job: Job, index: int, phased: Any, spread: Spread, between: Callable[[], None]
) -> tuple[RunState, PyTree, list[bool]]:
  """As `solve_phase`, run by run on the features that its own stages make of its examples."""
  plan, state = job.phases[index], phased.state
  data = job.train(plan.phase)
  program = _features(job.network, job.form, plan.phase.start)
  of_runs = spread.unpad((phased.runs.frozen, state.stats))
  shared = meshes.get(phased.frozen)
  found: dict[str, list] = {}
  for run, rows in enumerate(job.examples):
    own, stats = jax.tree.map(lambda leaf, run=run: leaf[run], of_runs)
    variables = Variables(merge(own, shared), stats)
    features, targets = [], feed.take(data.targets, rows)
    for first in range(0, len(rows), BATCH):
      some = rows[np.minimum(np.arange(first, first + BATCH), len(rows) - 1)]
      features.append(np.asarray(program(variables, feed.take(data.inputs, some))))
    x = jnp.asarray(np.concatenate(features)[: len(rows)].astype(np.float32))
    penalties, mask = np.asarray(job.weight_decays)[run : run + 1], np.ones((1, len(rows)))
    places = np.arange(len(rows))[None]
    probe = solve(plan.phase.solver, x, targets, places, mask, penalties, num_logits(plan.task))
    between()
    batch = Batch(None, targets, mask[0].astype(np.float32))
    total, weight = minimised(plan.task, x @ probe.kernel[0] + probe.bias[0], batch)
    values = probe.kernel[0], probe.bias[0], total / weight, probe.grad_norm[0], probe.converged[0]
    for name, value in zip(('kernel', 'bias', 'loss', 'grad_norm', 'converged'), values):
      found.setdefault(name, []).append(np.asarray(value, np.float32))
  return _solved(state, {name: np.stack(of_all) for name, of_all in found.items()}, spread)


@functools.cache
def _features(network: Network, form: Form, start: int) -> Callable:
  """(variables, what enters stage `start`) -> what enters the head [B, D]."""
  head = len(network.stages) - 1

  def run(variables: Variables, x: PyTree) -> Array:
    x = x if start else form.enter(x)
    return network.apply(variables, x, train=False, start=start, stop=head)[0]

  return jax.jit(run)


def _check(
  solver: str,
  features: Array,
  targets: np.ndarray,
  rows: np.ndarray,
  mask: np.ndarray,
  penalties: np.ndarray,
  num_classes: int,
) -> None:
  if solver not in SOLVERS:
    raise ValueError(f'Unknown solver {solver!r}; have {", ".join(SOLVERS)}.')
  if features.ndim != 2 or targets.shape != features.shape[:1]:
    raise ValueError(
      f'An exact probe wants features [N, D] and targets [N], got {features.shape} and '
      f'{targets.shape}. Flatten or pool the activations first.'
    )
  needed, available = num_bytes((features, targets)), memory.available_bytes()
  if available and needed > available:
    raise ValueError(
      f'An exact probe wants all its features on a device: they take {needed / 1e9:,.1f} GB, and '
      f"{available / 1e9:,.1f} GB are there. Train it (solver 'sgd', which reads them in windows), "
      'or give it fewer examples or views.'
    )
  if rows.ndim != 2 or mask.shape != rows.shape or penalties.shape != rows.shape[:1]:
    raise ValueError(
      f'An exact probe wants rows [R, n], mask [R, n] and penalties [R], got {rows.shape}, '
      f'{mask.shape} and {penalties.shape}.'
    )
  if rows.min() < 0 or rows.max() >= len(targets):
    raise ValueError(
      f'Rows from {rows.min()} to {rows.max()} of {len(targets)} examples: they must be from 0 to '
      f'{len(targets) - 1}.'
    )
  if targets.min() < 0 or targets.max() >= num_classes:
    raise ValueError(
      f'Targets from {targets.min()} to {targets.max()} for {num_classes} classes: they must be '
      f'from 0 to {num_classes - 1}.'
    )
  if not (mask > 0).any(1).all():
    raise ValueError(
      f'Run {int(np.argmin((mask > 0).any(1)))} has no examples: its mask is 0.0 everywhere.'
    )
  if not (np.isfinite(penalties) & (penalties >= 0)).all():
    raise ValueError(f'Penalties must be finite and at least 0, got {penalties.tolist()}.')
