"""Defects of resuming: a run that goes on from its checkpoint is not the run that was saved.

A run that is never taken up again shows none of them.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from harness.defects import defect
from harness.defects.planting import Array, bfloat16, overwrite
from harness.runners.mindspore_subject import MindSporeSubject
from qwen3_model.modeling_qwen3_train import Qwen3Trainer


class Restores(Qwen3Trainer, ABC):
    """Changes what was restored."""

    @abstractmethod
    def restored(self) -> None: ...

    def load_checkpoint(self, directory: str | Path) -> None:
        super().load_checkpoint(directory)
        self.restored()


@defect(
    area="resume",
    imitates="A checkpoint of the weights alone",
    source="https://docs.pytorch.org/tutorials/beginner/saving_loading_models.html",
)
class MomentsLost(MindSporeSubject):
    """Both moments start from zero."""

    class trainer(Restores):
        def restored(self) -> None:
            for moment in (*self._optimizer.exp_avg, *self._optimizer.exp_avg_sq):
                overwrite(moment, np.zeros(moment.shape))


@defect(
    area="resume",
    imitates="One of two lists of optimizer states left out of the checkpoint",
    source="https://docs.pytorch.org/tutorials/beginner/saving_loading_models.html",
)
class SecondMomentLost(MindSporeSubject):
    """The second moment starts from zero."""

    class trainer(Restores):
        def restored(self) -> None:
            for moment in self._optimizer.exp_avg_sq:
                overwrite(moment, np.zeros(moment.shape))


@defect(
    area="resume",
    imitates="A step counter that the checkpoint does not hold",
    source="https://docs.pytorch.org/tutorials/beginner/saving_loading_models.html",
)
class StepLost(MindSporeSubject):
    """Schedule and bias correction begin again at step 1."""

    class trainer(Restores):
        def restored(self) -> None:
            self.step = 0


@defect(
    area="resume",
    imitates="A scheduler whose state is not restored",
    source="https://github.com/PolymathicAI/the_well/pull/63",
)
class ScheduleRestarted(MindSporeSubject):
    """The schedule begins again, the bias correction goes on."""

    class trainer(Restores):
        restored_at = 0

        def restored(self) -> None:
            self.restored_at = self.step

        def learning_rate(self, step: int) -> float:
            return super().learning_rate(step - self.restored_at)


@defect(
    area="resume",
    imitates="A scheduler that is saved before it is stepped and comes back one behind",
    source="https://github.com/allenai/allennlp/pull/1650",
)
class ScheduleOneBehind(MindSporeSubject):
    """Every learning rate after a resumption comes one step late."""

    class trainer(Restores):
        behind = 0

        def restored(self) -> None:
            self.behind = 1

        def learning_rate(self, step: int) -> float:
            return super().learning_rate(max(1, step - self.behind))


@defect(
    area="resume",
    imitates="A shard of a checkpoint that is not read, and nothing says so",
    source="https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html",
)
class LastLayerNotRestored(MindSporeSubject):
    """The weights of layer 1 are those of the start."""

    class trainer(Restores):
        def load_checkpoint(self, directory: str | Path) -> None:
            self.start = self.parameters()
            super().load_checkpoint(directory)

        def restored(self) -> None:
            for parameter in self._parameters:
                if parameter.name.startswith("model.layers.1."):
                    overwrite(parameter, self.start[parameter.name])


@defect(
    area="resume",
    imitates="Master weights saved in the precision of the model",
    source="https://arxiv.org/abs/1710.03740",
)
class WeightsRestoredBfloat16(MindSporeSubject):
    """The weights come back rounded to bfloat16."""

    class trainer(Restores):
        def restored(self) -> None:
            for parameter in self._parameters:
                overwrite(parameter, bfloat16(parameter.asnumpy()))


@defect(
    area="resume",
    imitates="A checkpoint copied in the background that is overtaken, or the second newest taken for the newest",
    source="https://arxiv.org/abs/2506.14813",
)
class StaleCheckpoint(MindSporeSubject):
    """Weights and moments come back as they were one step before the checkpoint; the step count is right."""

    class trainer(Qwen3Trainer):
        older: Sequence[Array] = ()

        def scalars(self, step: int) -> Array:
            self.older = self.values()
            return super().scalars(step)

        def save_checkpoint(self, directory: str | Path) -> None:
            newest = self.values()
            self.overwrite(self.older or newest)
            super().save_checkpoint(directory)
            self.overwrite(newest)

        def values(self) -> list[Array]:
            return [parameter.asnumpy().copy() for parameter in self._state()]

        def overwrite(self, values: Sequence[Array]) -> None:
            for parameter, value in zip(self._state(), values, strict=True):
                overwrite(parameter, value)
