"""A cascade's first stage as its second was given it: noted when a fold of the second trains, compared when the two are used together."""

from __future__ import annotations

from autoseg.errors import ModelError
from autoseg.files import FoldFolder, Work, read_json, write_json
from autoseg.inference.loading import FoldName
from autoseg.network.weights import read_about

_KIND = "first-stage"


def weights_key(work: Work, configuration: str, fold: FoldName) -> str | None:
    """The key of a fold's weights, None where it is not trained; trained anew, it has another.

    Raises:
        ModelError: the weights cannot be read.
    """
    file = work.fold(configuration, fold).weights
    return read_about(file)[1] if file.is_file() else None


def note_first_stage(folder: FoldFolder, configuration: str, weights: dict[FoldName, str]) -> None:
    """Write into the folder of a fold of the second stage which weights of the first, by fold, made what it learns from."""
    content = {"configuration": configuration, "weights": {str(fold): key for fold, key in weights.items()}}
    write_json(folder.previous_stage, _KIND, content)


def first_stage_change(work: Work, configuration: str, fold: FoldName) -> str | None:
    """In words, how the first stage differs from what a fold of the second was trained on; None: it does not, or nothing is noted."""
    note = work.fold(configuration, fold).previous_stage
    if not note.is_file():
        return None
    content = read_json(note, _KIND)
    first = content["configuration"]
    try:
        changed = [name for name, key in content["weights"].items() if weights_key(work, first, name) not in (key, None)]
    except ModelError as error:
        return f"the weights of {first} cannot be compared ({error.message})"
    if not changed:
        return None
    return f"it was trained on what {first} had found before its fold(s) {', '.join(changed)} were trained anew"
