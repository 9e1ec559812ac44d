"""Faults of schedule and resuming, written without knowledge of the criteria and planted in the default case.

certify power --defects benchmarks/faults_of_december/schedule_and_resume.py --clean 0 --out faults.json
"""

from pathlib import Path

import numpy as np

from harness.defects import defect
from harness.defects.data import Remembering
from harness.defects.planting import Array, overwrite
from harness.defects.resume import Restores
from harness.runners.mindspore_subject import MindSporeSubject
from qwen3_model.modeling_qwen3_train import Qwen3Trainer
from qwen3_model.optimizer import step_scalars


@defect(
    area="schedule",
    imitates="A step counter in bfloat16, in which 256 + 1 is 256",
    source="https://docs.pytorch.org/docs/stable/type_info.html",
    since="2026-12-01",
)
class ScheduleStuckAt256(MindSporeSubject):
    """The schedule counts no further than 256 updates, so from step 257 on the rate stays as it is."""

    class trainer(Qwen3Trainer):
        def learning_rate(self, step: int) -> float:
            return super().learning_rate(min(step, 257))


@defect(
    area="schedule",
    imitates="Hyperparameters that are cast to the precision of the model",
    source="https://docs.pytorch.org/docs/stable/type_info.html",
    since="2026-12-01",
)
class UsedRateFloat16(MindSporeSubject):
    """Every update uses the rate rounded to float16, at most 0.3 % off at the end; the right one is reported."""

    class trainer(Qwen3Trainer):
        def scalars(self, step: int) -> Array:
            return step_scalars(self.optimizer_config, step, float(np.float16(self.learning_rate(step))))


@defect(
    area="schedule",
    imitates="A callback that steps the scheduler to store its next rate with the checkpoint",
    source="https://docs.pytorch.org/docs/stable/optim.html",
    since="2026-12-01",
)
class ScheduleSteppedBySaving(MindSporeSubject):
    """Each saved checkpoint advances the schedule by one step more; a resumed run starts with the right step."""

    class trainer(Qwen3Trainer):
        ahead = 0

        def save_checkpoint(self, directory: str | Path) -> None:
            super().save_checkpoint(directory)
            self.ahead += 1

        def learning_rate(self, step: int) -> float:
            return super().learning_rate(step + self.ahead)


@defect(
    area="resume",
    imitates="model.half() before saving, which changes the model in place",
    source="https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html",
    since="2026-12-01",
)
class SavingRoundsToFloat16(MindSporeSubject):
    """Saving a checkpoint rounds the weights of the run to float16, also where the run just continues."""

    class trainer(Qwen3Trainer):
        def save_checkpoint(self, directory: str | Path) -> None:
            for parameter in self._parameters:
                overwrite(parameter, parameter.asnumpy().astype(np.float16))
            super().save_checkpoint(directory)


@defect(
    area="resume",
    imitates="A loader whose prefetched batch is given out twice after it was restored",
    source="https://github.com/pytorch/data",
    since="2026-12-01",
)
class BatchesLateAfterResuming(Remembering):
    """After resuming, every step but the first trains on the batch of the step before."""

    resumed = False

    def load(self, directory: Path) -> None:
        super().load(directory)
        self.resumed = True

    def repeats(self, step: int) -> bool:
        return self.resumed


@defect(
    area="resume",
    imitates="An optimizer's state that is restored by the order of parameters, which has changed",
    source="https://docs.pytorch.org/docs/stable/generated/torch.optim.Optimizer.load_state_dict.html",
    since="2026-12-01",
)
class HeadNormMomentsExchanged(MindSporeSubject):
    """After resuming, the q norm and the k norm of layer 1 have each other's moments."""

    class trainer(Restores):
        def restored(self) -> None:
            places = [f"model.layers.1.self_attn.{norm}.weight" for norm in ("q_norm", "k_norm")]
            one, other = (self.names().index(name) for name in places)
            for moments in (self._optimizer.exp_avg, self._optimizer.exp_avg_sq):
                kept = moments[one].asnumpy().copy()
                overwrite(moments[one], moments[other].asnumpy().copy())
                overwrite(moments[other], kept)


@defect(
    area="resume",
    imitates="Parameter groups that are built again with other defaults when the state is loaded",
    source="https://docs.pytorch.org/docs/stable/generated/torch.optim.Optimizer.load_state_dict.html",
    since="2026-12-01",
)
class DecayLostByResuming(MindSporeSubject):
    """After resuming, no weight decays."""

    class trainer(Restores):
        resumed = False

        def restored(self) -> None:
            self.resumed = True

        def scalars(self, step: int) -> Array:
            rate, eps, decay = super().scalars(step)
            return np.array([rate, eps, 0.0 if self.resumed else decay], np.float32)
