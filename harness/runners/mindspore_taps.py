"""Taps inside a step on MindSpore: inputs and outputs of each cell, and their gradients. Taps do not change the step.

Cells are wrapped in place, so the step is compiled as it is trained: in GRAPH mode, with every custom derivative. A tap
returns its tensor unchanged and assigns the value to a parameter. A second parameter is an unused input of the tap. The
derivative of the tap returns the incoming gradient for both inputs, so the gradient of that second parameter is the
gradient at this place. No arithmetic is added.

The parameters of the taps are not part of the model: they have their own names, and the trainer's list of parameters
was made before. A cell that is missing where the shipped model has one gets no tap, and neither does a place that the
step never reaches. If a cell is called twice in a step, because two layers share it, the tap keeps the first call.

Tried on MindSpore 2.9.0 without success: a `bprop` may not use a parameter of its cell; an `assign` in
`InsertGradientOf` works for four taps, and with all of them the compiler finds a cycle in its graph; a hook of a cell
is compiled in GRAPH mode, so its only output could be such an `assign`.
"""

from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

import mindspore as ms
import numpy as np
import numpy.typing as npt
from mindspore import Parameter, Tensor, nn, ops

from harness.runners.protocol import Taps
from harness.runs.places import HEAD, LOSS, TABLES, TapPoint, places
from qwen3_model.modeling_qwen3_train import Qwen3Trainer

Array = npt.NDArray[Any]
RESIDUAL = ".residual"  # taken by the norm of the MLP, and added to what the MLP gives


class Keeps(nn.Cell):
    """Returns its input unchanged, and keeps the first one."""

    def __init__(self, place: TapPoint) -> None:
        super().__init__(auto_prefix=False)
        self.value = Parameter(Tensor(np.zeros(place.shape, np.float32)), name=f"tap.{place.name}", requires_grad=False)
        self.shown = Parameter(Tensor(False), name=f"tap.shown.{place.name}", requires_grad=False)

    def keep(self, x: Tensor) -> bool:
        """Within a compiled step."""
        ops.assign(self.value, ops.where(self.shown, self.value, ops.cast(x, ms.float32)))
        ops.assign(self.shown, Tensor(True))
        return True

    def read(self) -> Array | None:
        """The value since the last reading; None if the step did not reach it."""
        found, shown = self.value.asnumpy().copy(), bool(self.shown.asnumpy())
        self.shown.set_data(Tensor(False))
        return found if shown else None


class Tap(Keeps):
    """x -> x. `gradient` is the parameter whose gradient is that of x."""

    def __init__(self, place: TapPoint) -> None:
        super().__init__(place)
        self.gradient = Parameter(Tensor(np.zeros(place.shape, np.float32)), name=f"tap.gradient.{place.name}")
        self.twice = GradientTwice()

    def construct(self, x: Tensor) -> Tensor:
        self.keep(x)
        return self.twice(x, self.gradient)

    def whole(self, gradient: Array) -> Array:
        """The gradient of x, given that of `gradient`."""
        return gradient


class HookedTap(Tap):
    """A tap in PYNATIVE mode of a tensor that others take too, past the tap. There the derivative of a tap gets only
    what comes back through it, where a compiled graph adds all first; a hook of the tensor gets all."""

    def __init__(self, place: TapPoint) -> None:
        super().__init__(place)
        self.arrived: list[Array] = []

    def construct(self, x: Tensor) -> Tensor:
        x.register_hook(self._note)
        return super().construct(x)

    def _note(self, gradient: Tensor) -> None:
        self.arrived.append(ops.cast(gradient, ms.float32).asnumpy().copy())

    def whole(self, gradient: Array) -> Array:
        return self.arrived.pop() if self.arrived else gradient


class GradientTwice(nn.Cell):
    """x and whatever -> x, whose gradient goes to both."""

    def construct(self, x: Tensor, other: Tensor) -> Tensor:
        return x

    def bprop(self, x: Tensor, other: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor, Tensor]:
        return dout, ops.cast(dout, ms.float32)


class TableTap(Keeps):
    """Two tables, kept one over the other; they have no gradient."""

    def construct(self, tables: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        self.keep(ops.stack(tables))
        return tables


class Wrapped(nn.Cell):
    """A cell with taps on its inputs and outputs; every other attribute is that of the cell itself."""

    def __init__(self, cell: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.cell = cell
        self.given: Any = Nothing()

    def construct(self, *taken: Any) -> Any:
        return self.given(self.cell(*taken))

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "bprop":  # the cell's own derivative is the cell's, not that of cell and taps
                raise
            return getattr(super().__getattr__("cell"), name)


class WrappedWithInput(Wrapped):
    """And a tap on its first operand."""

    def __init__(self, cell: nn.Cell) -> None:
        super().__init__(cell)
        self.taken: Any = Nothing()

    def construct(self, first: Any, *others: Any) -> Any:
        return self.given(self.cell(self.taken(first), *others))


class WrappedAttention(Wrapped):
    """And taps on query and key."""

    def __init__(self, cell: nn.Cell) -> None:
        super().__init__(cell)
        self.query: Any = Nothing()
        self.key: Any = Nothing()

    def construct(self, query: Any, key: Any, *others: Any) -> Any:
        return self.given(self.cell(self.query(query), self.key(key), *others))


class Nothing(nn.Cell):
    """No tap."""

    def construct(self, x: Any) -> Any:
        return x


class MindSporeTaps:
    """The taps of a trainer, from now on. Built before anything of it is compiled."""

    def __init__(self, trainer: Qwen3Trainer, rows: int, length: int) -> None:
        self._trainer = trainer
        micro_rows = rows // trainer.gradient_accumulation_steps
        self._places = {place.name: place for place in places(trainer.config, micro_rows, length)}
        self._taps: dict[str, Tap] = {}
        self._tables: TableTap | None = None
        self._values: list[dict[str, Array | None]] = []
        self._gradients: list[list[Array]] = []
        self._wrap_model()
        self._watch()

    def step(self, tokens: Array, loss_mask: Array) -> Taps:
        """What is inside the gradients of a global batch."""
        self._values, self._gradients = [], []
        gradients = self._trainer.gradients(tokens, loss_mask)
        backward = [dict(zip(self._taps, part, strict=True)) for part in self._gradients]
        reached = {name for name in self._taps if all(part[name] is not None for part in self._values)}
        tables = self._tables.read() if self._tables else None
        return Taps(
            forward=_whole(self._values, reached, np.sum) | ({} if tables is None else {TABLES: tables}),
            backward=_whole(backward, reached, np.mean),
            gradients=gradients,
        )

    def _watch(self) -> None:
        """Computes the gradients of the taps with those of the parameters; keeps those of a micro batch before the next
        one starts."""
        trainer: Any = self._trainer
        extra = [tap.gradient for tap in self._taps.values()]
        whole = ms.ParameterTuple([*trainer._parameters, *extra])
        trainer._gradients.grad = ms.value_and_grad(trainer._gradients.forward, None, whole)
        if trainer.gradient_accumulation_steps == 1:
            trainer._gradients = _Once(trainer._gradients, len(trainer._parameters), self._note)
            return
        step = trainer._accumulate_step
        sums = [Parameter(Tensor(np.zeros(p.shape, np.float32)), name=f"sum.{p.name}") for p in extra]
        parameters = step.sums
        step.sums = ms.ParameterTuple([*parameters, *sums])
        trainer._accumulate_step = _Accumulating(step, parameters, sums, self._note)

    def _note(self, gradients: Sequence[Array]) -> None:
        self._values.append({name: tap.read() for name, tap in self._taps.items()})
        self._gradients.append([tap.whole(one) for tap, one in zip(self._taps.values(), gradients, strict=True)])

    def _wrap_model(self) -> None:
        forward = self._trainer._gradients.forward
        model = forward.model.model
        for name in ("embed_tokens", "norm"):
            self._wrap(model, name, f"model.{name}")
        self._wrap_tables(model)
        for number in range(self._trainer.config.num_hidden_layers):
            self._wrap_layer(model.layers[number], f"model.layers.{number}")
            self._wrap(model.layers, str(number), f"model.layers.{number}")
        self._wrap(forward, "model", HEAD)
        self._wrap(forward, "loss", LOSS)

    def _wrap_tables(self, model: nn.Cell) -> None:
        cell = _child(model, "rotary_emb")
        if cell is not None:
            self._tables, wrapped = TableTap(self._places[TABLES]), Wrapped(cell)
            wrapped._cells["given"] = self._tables
            model._cells["rotary_emb"] = wrapped

    def _wrap_layer(self, layer: nn.Cell, name: str) -> None:
        attention, mlp = _child(layer, "self_attn"), _child(layer, "mlp")
        for part in ("q_proj", "k_proj", "v_proj", "q_norm", "k_norm"):
            self._wrap(attention, part, f"{name}.self_attn.{part}")
        self._wrap(_child(attention, "attend"), "softmax", f"{name}.self_attn.softmax")
        rotated = {"query": f"{name}.self_attn.rotary_emb.q", "key": f"{name}.self_attn.rotary_emb.k"}
        self._wrap(attention, "attend", None, WrappedAttention, **rotated)
        self._wrap(attention, "o_proj", f"{name}.self_attn.o_proj", WrappedWithInput, taken=f"{name}.self_attn.mix")
        for part in ("gate_proj", "up_proj"):
            self._wrap(mlp, part, f"{name}.mlp.{part}")
        self._wrap(mlp, "down_proj", f"{name}.mlp.down_proj", WrappedWithInput, taken=f"{name}.mlp.act")
        for part in ("input_layernorm", "self_attn", "mlp"):
            self._wrap(layer, part, f"{name}.{part}")
        norm = "post_attention_layernorm"
        self._wrap(layer, norm, f"{name}.{norm}", WrappedWithInput, taken=f"{name}{RESIDUAL}")

    def _wrap(
        self, parent: nn.Cell | None, slot: str, given: str | None, kind: type[Wrapped] = Wrapped, **taken: str
    ) -> None:
        """Puts a wrapped cell in the place of a child; a cell set as an attribute would have its parameters renamed."""
        cell = _child(parent, slot)
        if parent is None or cell is None:
            return
        if isinstance(cell, Wrapped):  # another layer's
            return
        wrapped = kind(cell)
        for attribute, place in {**({"given": given} if given else {}), **taken}.items():
            trainer: Any = self._trainer
            beside = attribute == "taken" and kind is WrappedWithInput and place.endswith(RESIDUAL)
            tap = HookedTap if beside and trainer._mode == ms.PYNATIVE_MODE else Tap
            self._taps[place] = tap(self._places[place])
            wrapped._cells[attribute] = self._taps[place]
        parent._cells[slot] = wrapped


def _child(parent: nn.Cell | None, slot: str) -> nn.Cell | None:
    cells: Mapping[str, nn.Cell] = parent._cells if parent is not None else {}
    return cells.get(slot)


def _whole(
    parts: Sequence[Mapping[str, Array | None]], names: Set[str], scalars: Callable[[Sequence[Array]], Any]
) -> dict[str, Array]:
    """Rows of the micro batches one after the other; of the loss, what `scalars` makes of its parts."""
    found = {name: [np.asarray(part[name]) for part in parts] for name in parts[0] if name in names}
    return {
        name: np.concatenate(a) if a[0].ndim else np.asarray(scalars(a), np.float32).reshape(())
        for name, a in found.items()
    }


class _Once:
    """Replaces the compiled cell: returns the gradients of the parameters, and reports those of the taps."""

    def __init__(self, cell: nn.Cell, parameters: int, report: Callable[[Sequence[Array]], None]) -> None:
        self._cell, self._parameters, self._report = cell, parameters, report

    def __call__(self, *batch: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        loss, found = self._cell(*batch)
        self._report([gradient.asnumpy().copy() for gradient in found[self._parameters :]])
        return loss, found[: self._parameters]


class _Accumulating:
    """Replaces the compiled cell: has the sums of the parameters, and reports those of the taps after each part."""

    def __init__(
        self,
        cell: nn.Cell,
        sums: ms.ParameterTuple,
        of_taps: Sequence[Parameter],
        report: Callable[[Sequence[Array]], None],
    ) -> None:
        self.sums, self._cell, self._of_taps, self._report = sums, cell, of_taps, report

    def __call__(self, *batch: Tensor) -> Tensor:
        loss = self._cell(*batch)
        self._report([total.asnumpy().copy() for total in self._of_taps])
        for total in self._of_taps:
            total.set_data(ops.zeros_like(total))
        return loss
