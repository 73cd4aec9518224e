"""Given weights into a network that may have other outputs or input channels: what fits is taken, and nothing silently.

The rule, tensor by tensor, by the names of `build`:

- a head (the last convolution of a level) takes the rows of those outputs that both know, by name; the others stay fresh. Background is
  such a name. Rows of classes are never taken for regions, nor the reverse. Where names are unknown, as many outputs are taken in order.
- the first convolution takes the columns of those channels that both know, by name; a channel that the given weights don't know starts
  at 0, so that the network begins as it was. Where no name is shared, as many channels are taken in order; of another number, each channel
  gets the mean of the given ones, scaled by given / here, so that the sum over the channels keeps its size.
- any other tensor is taken if it has the same name and shape; biases and norms go with their convolution, and stay fresh where it does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autoseg.errors import ModelError
from autoseg.planning.schema import TransferPlan

HEAD = re.compile(r"heads\.\d+\.(weight|bias)")
FIRST = ("encoder.stem.conv.weight", "encoder.levels.0.0.conv.weight")


@dataclass(frozen=True)
class GivenWeights:
    """Weights of some network under our names.

    key: of their content. source: in words, without a folder.
    channels, outputs: names in the network's order, background among the outputs of classes; None: unknown.
    regions: whether the outputs overlap; None: unknown.
    trained_on: content keys of the images that they were trained on; None: unknown.
    """

    key: str
    source: str
    state: Mapping[str, Tensor]
    channels: tuple[str, ...] | None
    outputs: tuple[str, ...] | None
    regions: bool | None
    trained_on: frozenset[str] | None


@dataclass(frozen=True)
class _Result:
    """What happened to a tensor: `all`, `some` or `none` of it was taken; the rest in words."""

    how: str
    words: str = ""


@torch.no_grad()
def take_over(network: nn.Module, given: GivenWeights, *, inputs: Sequence[str], outputs: Sequence[str], regions: bool) -> TransferPlan:
    """Copy what fits into the network, by the rule above.

    Args:
        inputs, outputs: names of the network's channels and outputs, in order; of its classes background comes first.
        regions: whether its outputs overlap.

    Raises:
        ModelError: no convolution fits.
    """
    own = network.state_dict()
    first = next((name for name in FIRST if name in own), None)
    results: dict[str, _Result] = {}
    unfit: tuple[str, ...] = ()  # layers whose convolution stays fresh
    for name, fresh in sorted(own.items(), key=lambda item: -item[1].ndim):  # convolutions before what goes with them
        theirs = given.state.get(name)
        if theirs is None:
            result = _Result("none", "the given weights have no such tensor")
        elif HEAD.fullmatch(name) and theirs.shape[1:] == fresh.shape[1:]:
            result = _take_rows(fresh, theirs, given, outputs, regions)
        elif name == first and theirs.shape[0] == fresh.shape[0] and theirs.shape[2:] == fresh.shape[2:]:
            result = _take_columns(fresh, theirs, given, inputs)
        else:
            result = _take_whole(fresh, theirs, name.startswith(unfit))
        results[name] = result
        if result.how == "none" and fresh.ndim > 1:
            unfit += (name.removesuffix("weight").removesuffix("conv."),)
    if not any(result.how != "none" and own[name].ndim > 1 for name, result in results.items()):
        raise ModelError(f"nothing of {given.source} fits this network", remedy="Plan with its plan (--recipe), or give other weights")
    return TransferPlan(
        source=given.source,
        taken=[name for name in own if results[name].how == "all"],
        partly={name: results[name].words for name in own if results[name].how == "some"},
        left={name: results[name].words for name in own if results[name].how == "none"},
        unused=sorted(set(given.state) - set(own)),
    )


def _take_whole(fresh: Tensor, theirs: Tensor, of_fresh_layer: bool) -> _Result:
    if theirs.shape != fresh.shape:
        return _Result("none", f"its shape is {_shape(theirs)} in the given weights, {_shape(fresh)} here")
    if of_fresh_layer:
        return _Result("none", "its convolution stayed fresh")
    fresh.copy_(theirs)
    return _Result("all")


def _take_rows(fresh: Tensor, theirs: Tensor, given: GivenWeights, outputs: Sequence[str], regions: bool) -> _Result:
    """The rows (outputs) of a head, by name."""
    if given.outputs is None or len(given.outputs) != len(theirs):
        if theirs.shape != fresh.shape:
            return _Result("none", f"{len(theirs)} outputs of unknown names in the given weights, {len(fresh)} here")
        fresh.copy_(theirs)
        return _Result("all")
    if given.regions is not None and given.regions != regions:
        kinds = ("regions", "classes") if given.regions else ("classes", "regions")
        return _Result("none", f"its outputs are {kinds[0]} in the given weights, {kinds[1]} here")
    pairs = _matched(outputs, given.outputs)
    for here, there in pairs.items():
        fresh[here] = theirs[there]
    known, new = [outputs[i] for i in pairs], [name for i, name in enumerate(outputs) if i not in pairs]
    if not known:
        return _Result("none", "the given weights have no output of these names")
    return _Result("some", f"outputs {', '.join(known)} taken, {', '.join(new)} fresh") if new else _Result("all")


def _take_columns(fresh: Tensor, theirs: Tensor, given: GivenWeights, inputs: Sequence[str]) -> _Result:
    """The columns (channels) of the first convolution, by name, else by number."""
    count, here = theirs.shape[1], fresh.shape[1]
    named = given.channels if given.channels is not None and len(given.channels) == count and len(inputs) == here else ()
    pairs = _matched(inputs, named)
    if pairs:
        fresh.zero_()
        for ours, there in pairs.items():
            fresh[:, ours] = theirs[:, there]
        new = [name for i, name in enumerate(inputs) if i not in pairs]
        return _Result("some", f"channels {', '.join(inputs[i] for i in pairs)} taken, {', '.join(new)} at 0") if new else _Result("all")
    if count == here:
        fresh.copy_(theirs)
        return _Result("all")
    fresh.copy_(theirs.mean(1, keepdim=True).expand_as(fresh) * (count / here))
    return _Result("some", f"each of the {here} channels is the mean of the given {count} times {count / here:g}")


def _matched(ours: Sequence[str], theirs: Sequence[str]) -> dict[int, int]:
    """Our positions -> theirs, of the names that both have; capitals don't matter."""
    there = {name.casefold(): i for i, name in enumerate(theirs)}
    return {i: there[name.casefold()] for i, name in enumerate(ours) if name.casefold() in there}


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "one number"
