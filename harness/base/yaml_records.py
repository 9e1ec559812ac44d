"""The base of what a person writes in YAML: frozen, and nothing in it is ignored."""

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """Frozen; an unknown key is an error, never ignored, and so is a number that is not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
