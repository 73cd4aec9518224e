"""What does not fit is refused before hours are lost; what may just not fit is said.

A forecast is never exact. Refused is only what would not fit though the forecast were wrong by as much as it is known to be; between
that and the forecast itself there is a warning. Both say the figures.
"""

from __future__ import annotations

from autoseg.errors import ResourceError

# What is needed at least, as a share of the forecast
TRAINING_AT_LEAST = 0.85  # forecasts that were measured on a CPU were at most 6 % too high; memory that others free may come on top
DISK_AT_LEAST = 0.5  # of prepared voxels that are not 0; whole images of CT, MR and EM took .77 to .99 of their float32 values
PREDICTION_AT_LEAST = 0.5  # forecasts that were measured on a CPU were up to 1.7 times what it took


def require(what: str, needed_gb: float, there_gb: float, *, at_least: float, where: str, remedy: str) -> str | None:
    """Refuse what surely does not fit; the warning about what may not, else None.

    Args:
        what: what is to be done, as the beginning of a sentence.
        needed_gb: by forecast. there_gb: what is free.
        at_least: the share of the forecast that is surely needed.
        where: what is free, as in "RAM" or "disk space".

    Raises:
        ResourceError: even that share is not there.
    """
    figures = f"{what} is forecast to take {needed_gb:.1f} GB of {where}, {there_gb:.1f} GB are free"
    if at_least * needed_gb > there_gb:
        raise ResourceError(figures, remedy=remedy)
    return f"{figures}: it may not fit. {remedy}" if needed_gb > there_gb else None
