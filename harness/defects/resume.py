"""Defects of resuming: a run that resumes from its checkpoint differs from the run that was saved.

They have no effect on a run that is never resumed.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from harness.defects import defect
from harness.defects.planting import Array, bfloat16, overwrite
from harness.runners.mindspore_subject import MindSporeSubject
from qwen3_model.modeling_qwen3_train import Qwen3Trainer
from qwen3_model.optimizer import step_scalars


class Restores(Qwen3Trainer, ABC):
    """Changes the restored state."""

    @abstractmethod
    def restored(self) -> None: ...

    def load_checkpoint(self, directory: str | Path) -> None:
        super().load_checkpoint(directory)
        self.restored()


@defect(
    area="resume",
    imitates="A checkpoint of the weights only",
    source="https://docs.pytorch.org/tutorials/beginner/saving_loading_models.html",
    since="2026-11-24",
)
class MomentsLost(MindSporeSubject):
    """Both moments start from zero."""

    class trainer(Restores):
        def restored(self) -> None:
            for moment in (*self._optimizer.exp_avg, *self._optimizer.exp_avg_sq):
                overwrite(moment, np.zeros(moment.shape))


@defect(
    area="resume",
    imitates="One of two lists of optimizer states missing in the checkpoint",
    source="https://docs.pytorch.org/tutorials/beginner/saving_loading_models.html",
    since="2026-11-24",
)
class SecondMomentLost(MindSporeSubject):
    """The second moment starts from zero."""

    class trainer(Restores):
        def restored(self) -> None:
            for moment in self._optimizer.exp_avg_sq:
                overwrite(moment, np.zeros(moment.shape))


@defect(
    area="resume",
    imitates="A step counter that is not in the checkpoint",
    source="https://docs.pytorch.org/tutorials/beginner/saving_loading_models.html",
    since="2026-11-24",
)
class StepLost(MindSporeSubject):
    """Schedule and bias correction restart at step 1."""

    class trainer(Restores):
        def restored(self) -> None:
            self.step = 0


@defect(
    area="resume",
    imitates="A scheduler whose state is not restored",
    source="https://github.com/PolymathicAI/the_well/pull/63",
    since="2026-11-24",
)
class ScheduleRestarted(MindSporeSubject):
    """The schedule restarts, the bias correction continues."""

    class trainer(Restores):
        restored_at = 0

        def restored(self) -> None:
            self.restored_at = self.step

        def learning_rate(self, step: int) -> float:
            return super().learning_rate(step - self.restored_at)


@defect(
    area="resume",
    imitates="A scheduler that is saved before it is stepped, and is one step behind after loading",
    source="https://github.com/Lightning-AI/pytorch-lightning/issues/1772",
    reported="2020-05-10",
    since="2026-11-24",
)
class ScheduleOneBehind(MindSporeSubject):
    """After resuming, every learning rate comes one step late."""

    class trainer(Restores):
        behind = 0

        def restored(self) -> None:
            self.behind = 1

        def learning_rate(self, step: int) -> float:
            return super().learning_rate(max(1, step - self.behind))


@defect(
    area="resume",
    imitates="A shard of a checkpoint that is not read, without an error",
    source="https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html",
    since="2026-11-24",
)
class LastLayerNotRestored(MindSporeSubject):
    """The weights of layer 1 are the initial ones."""

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
    source="https://github.com/TensorAuto/OpenTau/issues/185",
    reported="2026-04-25",
    since="2026-11-24",
)
class WeightsRestoredBfloat16(MindSporeSubject):
    """The restored weights are rounded to bfloat16."""

    class trainer(Restores):
        def restored(self) -> None:
            for parameter in self._parameters:
                overwrite(parameter, bfloat16(parameter.asnumpy()))


@defect(
    area="resume",
    imitates="A checkpoint that changes while it is copied, or the second newest checkpoint loaded as the newest",
    source="https://arxiv.org/abs/2506.14813",
    since="2026-11-24",
)
class StaleCheckpoint(MindSporeSubject):
    """The restored weights and moments are those of one step before the checkpoint; the step count is right."""

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


@defect(
    area="resume",
    imitates="A scheduler that is advanced to its step once by the checkpoint and once more by the loop",
    source="https://github.com/THUDM/slime/issues/1546",
    reported="2026-02-05",
    since="2026-11-30",
)
class ScheduleCountedTwice(MindSporeSubject):
    """After resuming, the schedule is ahead by the steps before the checkpoint."""

    class trainer(Restores):
        ahead = 0

        def restored(self) -> None:
            self.ahead = self.step

        def learning_rate(self, step: int) -> float:
            return super().learning_rate(step + self.ahead)


@defect(
    area="resume",
    imitates="An optimizer whose moments and step counter a flag leaves out of the checkpoint",
    source="https://github.com/deepspeedai/DeepSpeed/pull/7786",
    reported="2026-01-17",
    since="2026-11-30",
)
class OptimizerStateLost(MindSporeSubject):
    """Both moments start from zero and the bias correction at step 1; the schedule continues."""

    class trainer(Restores):
        restored_at = 0

        def restored(self) -> None:
            self.restored_at = self.step
            for moment in (*self._optimizer.exp_avg, *self._optimizer.exp_avg_sq):
                overwrite(moment, np.zeros(moment.shape))

        def scalars(self, step: int) -> Array:
            since = max(step - self.restored_at, 1)  # a step is compiled as if it were the first, also here
            return step_scalars(self.optimizer_config, since, self.learning_rate(step))
