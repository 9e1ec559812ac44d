"""Which part of the model computes in which dtype."""

from dataclasses import dataclass

from qwen3_model.config_problems import Qwen3ConfigError

DTYPES = ("float32", "bfloat16")
PLAIN_OPERATORS = "plain operators"


@dataclass(frozen=True, kw_only=True)
class PrecisionPolicy:
    """The dtype of each part of the model, with mindformers' names; the default is float32 throughout.

    `compute_dtype` is the dtype of every matrix product: inputs are rounded to it and the result is in it. `fused`:
    where the device has one operator for a part, that operator computes it, and rounds once; otherwise the plain
    operators round in between. A CPU has no such operators.
    """

    params_dtype: str = "float32"
    compute_dtype: str = "float32"
    layernorm_compute_dtype: str = "float32"
    softmax_compute_dtype: str = "float32"
    rotary_dtype: str = "float32"
    residual_dtype: str = "float32"
    fused: bool = True

    def __post_init__(self) -> None:
        problems = [
            f"{name}: expected one of {', '.join(DTYPES)}, got {value!r}"
            for name, value in self.dtypes.items()
            if value not in DTYPES
        ]
        if not isinstance(self.fused, bool):
            problems.append(f"fused: expected true or false, got {self.fused!r}")
        if problems:
            raise Qwen3ConfigError(problems)

    @property
    def dtypes(self) -> dict[str, str]:
        """The dtype of each part, by its name."""
        return {name: value for name, value in vars(self).items() if name != "fused"}

    def __str__(self) -> str:
        """The dtype of the products, and whether the operators are plain ones wherever they run."""
        return self.compute_dtype if self.fused else f"{self.compute_dtype}, {PLAIN_OPERATORS}"
