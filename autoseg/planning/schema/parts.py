"""What every part of a plan is made of."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Kind = Literal["hu", "windowed", "arbitrary"]
Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Range = tuple[float, float]


class Part(BaseModel):
    """A part of a plan: frozen, without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)
