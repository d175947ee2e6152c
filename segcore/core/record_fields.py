"""Types of the fields of a run file: numbers are finite and have a range, text is printable and has a length."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from segcore.core.text import bounded

Text = Annotated[str, AfterValidator(bounded)]
"""Any text; what cannot be printed becomes a space, and what is too long is cut off."""
MOST = 1e15
"""Larger than any figure of a run; sums, products and ratios of such numbers stay finite."""
LEAST = 1e-12
"""Smaller than any positive figure of a run."""
Number = Annotated[float, Field(ge=-MOST, le=MOST, allow_inf_nan=False)]
Amount = Annotated[float, Field(ge=0, le=MOST, allow_inf_nan=False)]
Positive = Annotated[float, Field(ge=LEAST, le=MOST, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1 + 1e-9, allow_inf_nan=False)]
"""Of a whole, 0 to 1; a mean of shares may be rounded up."""
Count = Annotated[int, Field(ge=0, lt=2**63)]
PositiveCount = Annotated[int, Field(ge=1, le=10**9)]
Device = Annotated[str, Field(pattern=r"^(cpu|cuda|mps)(:[0-9]{1,3})?$")]
Precision = Literal["fp32", "bf16", "fp16", "int8"]


class Record(BaseModel):
    """Base of all records: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")
