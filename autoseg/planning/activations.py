"""What one training step keeps and passes, operation by operation, and the most that is held at once: the memory of a step by formula.

The operations are those that `autoseg.network` and `autoseg.training.loss` run, in their order. Each says, in bytes, what autograd
keeps of it until its backward pass, and what lives beside all that is kept while it runs. The peak follows by going through them
forward, then backward: what is kept leaves one by one, the weights' gradients come, and each skip's gradient waits for its level.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from autoseg.planning.schema import NetworkPlan

FLOAT, INDEX = 4, 8  # bytes of a float32, and of the whole numbers that are targets and positions of a maximum


@dataclass(frozen=True)
class Form:
    """In which form maps lie in memory.

    item: bytes of a map's element, 2 under bfloat16 and float16.
    channels_last: the memory layout.
    cpu: whether torch's way on a CPU adds to it.
    """

    item: int
    channels_last: bool
    cpu: bool

    @property
    def reorders(self) -> bool:
        """Whether a convolution of contiguous maps copies them into its own layout, as oneDNN does."""
        return self.cpu and not self.channels_last

    @property
    def short(self) -> bool:
        """Whether maps are in half precision, and weights are copied into it."""
        return self.item < FLOAT


@dataclass(frozen=True)
class Operation:
    """One operation of a step, in bytes.

    kept: what autograd, or the next operation, holds of it until its backward pass has run.
    forward, backward: what lives beside everything that is kept, while it runs.
    gradient: of its weights, which stays.
    waits: gradient that stays from its backward pass on until that of the operation which ends `level` of the encoder.
    ends: the level of the encoder that ends here.
    """

    kept: float = 0.0
    forward: float = 0.0
    backward: float = 0.0
    gradient: float = 0.0
    waits: float = 0.0
    level: int | None = None
    ends: int | None = None


def peak(operations: Sequence[Operation]) -> float:
    """Bytes that are held at most while these operations run forward, then backward; what was there before is not counted."""
    held, most = 0.0, 0.0
    for operation in operations:
        held += operation.kept
        most = max(most, held + operation.forward)
    waiting: dict[int, float] = {}
    for operation in reversed(operations):
        held += operation.gradient
        most = max(most, held + sum(waiting.values()) + operation.backward)
        held -= operation.kept
        if operation.level is not None:
            waiting[operation.level] = operation.waits
        waiting.pop(operation.ends, None)
    return most


def kept(operations: Sequence[Operation]) -> float:
    """Bytes that are kept between the forward and the backward pass."""
    return sum(operation.kept for operation in operations)


@dataclass(frozen=True)
class _Pass:
    """What the operations of one network's step depend on.

    sizes: voxels of a map at each level, for the whole batch. padded: by how much a border of one voxel makes it larger.
    """

    network: NetworkPlan
    form: Form
    sizes: tuple[int, ...]
    padded: tuple[float, ...]

    @classmethod
    def of(cls, network: NetworkPlan, patch: Sequence[int], batch: int, form: Form) -> _Pass:
        size, sizes, padded = list(patch), [], []
        for stride in network.strides:
            size = [n // s for n, s in zip(size, stride, strict=True)]
            sizes.append(batch * math.prod(size))
            padded.append(math.prod((n + 2) / n for n in size))
        return cls(network, form, tuple(sizes), tuple(padded))

    @property
    def instance(self) -> bool:
        return self.network.norm.name == "instance"

    def map(self, width: int, level: int) -> float:
        """Bytes of a map."""
        return self.form.item * width * self.sizes[level]

    def float_copy(self, width: int, level: int) -> float:
        """Bytes of the float32 copy that 3D pooling makes of a shorter map on a CPU."""
        makes = self.form.cpu and self.form.short and self.network.dimension == 3
        return FLOAT * width * self.sizes[level] if makes else 0.0

    def weights(self, inside: int, outside: int, kernel: Sequence[int]) -> float:
        return FLOAT * inside * outside * math.prod(kernel)


def step_operations(
    network: NetworkPlan,
    patch: Sequence[int],
    batch: int,
    channels: int,
    outputs: int,
    form: Form,
    *,
    deep_supervision: bool,
    regions: bool,
) -> list[Operation]:
    """The operations of one training step in their order, the loss included.

    Args:
        network: in the order inside, as `patch`.
        channels: of the image, a previous stage's outputs among them.
        outputs: classes with background, or regions.
    """
    through = _Pass.of(network, patch, batch, form)
    sizes = through.sizes
    heads = max(1, len(sizes) - 1) if deep_supervision else 1
    return [
        *_encoder(through, channels),
        *_decoder(through),
        *(_head(through, level, outputs) for level in range(heads)),
        *(_loss(sizes[level], outputs, form, regions, again=level > 0) for level in range(heads) if level == 0 or level < heads - 1),
    ]


def _encoder(through: _Pass, channels: int) -> Iterator[Operation]:
    network, form = through.network, through.form
    residual = network.kind == "residual_unet"
    inside, needs_gradient = channels, False
    if form.short:
        yield Operation(kept=form.item * channels * through.sizes[0])  # the image in the form of the maps
    if residual:
        yield from _unit(through, channels, network.features[0], 0, network.kernels[0], needs_gradient=False)
        inside, needs_gradient = network.features[0], True
    for level, (width, stride) in enumerate(zip(network.features, network.strides, strict=True)):
        before, strided = max(level - 1, 0), max(stride) > 1
        if strided and network.downsampling == "max_pool" and not residual:
            yield _max_pool(through, inside, level)
            before = level
        for unit in range(network.blocks.encoder[level]):
            place = {"kernel": network.kernels[level], "input_level": before if unit == 0 else level}
            if residual:
                yield from _block(through, inside, width, level, pooled=strided and unit == 0, **place)
            else:
                yield from _unit(through, inside, width, level, needs_gradient=needs_gradient, **place)
            inside, needs_gradient = width, True
        yield Operation(ends=level)


def _decoder(through: _Pass) -> Iterator[Operation]:
    network = through.network
    for level in reversed(range(len(network.features) - 1)):
        width, below = network.features[level], network.features[level + 1]
        yield _up(through, below, width, level, network.strides[level + 1])
        joined = through.map(2 * width, level)
        yield Operation(kept=joined, forward=joined / 2, waits=joined, level=level)
        for unit in range(network.blocks.decoder[level]):
            yield from _unit(through, 2 * width if unit == 0 else width, width, level, network.kernels[level])


def _unit(
    through: _Pass,
    inside: int,
    outside: int,
    level: int,
    kernel: Sequence[int],
    *,
    input_level: int | None = None,
    needs_gradient: bool = True,
    last_of_block: bool = False,
) -> Iterator[Operation]:
    """Convolution, norm and activation. The activation overwrites its input; whatever comes next keeps what the unit gives."""
    network, out = through.network, through.map(outside, level)
    input_level = level if input_level is None else input_level
    scratch = through.padded[input_level] if through.form.cpu else 0.0
    weights = through.weights(inside, outside, kernel)
    yield _convolution(through, through.map(inside, input_level), out, weights, needs_gradient=needs_gradient, scratch=scratch)
    if network.dropout > 0 and not last_of_block:
        yield Operation(forward=2 * out, backward=2 * out)
    # an instance norm gives a view of what it made; writing into a view costs two more copies backward
    activation = [] if last_of_block else [Operation(kept=out, backward=(4 if through.instance else 2) * out)]
    if network.norm.name == "none":
        yield from activation
    elif network.order_of_layers == "conv-norm-activation":
        yield from (_norm(through, out), *activation)
    else:  # the norm keeps the very map that the activation does
        yield from (*activation, replace(_norm(through, out), kept=0.0), Operation(kept=out))


def _norm(through: _Pass, out: float) -> Operation:
    """A norm keeps its input. An instance norm works on contiguous maps: from others it makes, and keeps, a copy."""
    if through.instance and through.form.channels_last:
        return Operation(kept=out, forward=2 * out, backward=3 * out)
    return Operation(kept=out, forward=out, backward=2 * out)


def _convolution(
    through: _Pass, given: float, out: float, weights: float, *, needs_gradient: bool = True, scratch: float = 0.0
) -> Operation:
    """Its input is kept by whoever made it.

    Args:
        scratch: how often the input is copied for the weights' gradient, borders and all.
    """
    form, back = through.form, given if needs_gradient else 0.0
    copies = given + out if form.reorders else 0.0
    if through.instance and form.channels_last:
        copies += given + out  # what a norm gave is contiguous, and is brought back each time
    short_weights = weights * form.item / FLOAT if form.short else 0.0
    backward = out + back + copies + (0.0 if form.reorders else scratch * given)
    return Operation(kept=short_weights, forward=out + copies, backward=backward, gradient=weights)


def _max_pool(through: _Pass, width: int, level: int) -> Operation:
    """It keeps the position of each maximum, and the next convolution what it gives."""
    out, positions, copy = through.map(width, level), INDEX * width * through.sizes[level], through.float_copy(width, level - 1)
    return Operation(kept=out + positions + copy, backward=out + through.map(width, level - 1) + copy)


def _up(through: _Pass, below: int, width: int, level: int, stride: Sequence[int]) -> Operation:
    """A transposed convolution; its gradient comes as a part of the joined maps' gradient, and is copied out."""
    given, out = through.map(below, level + 1), through.map(width, level)
    return Operation(forward=out, backward=out + given, gradient=through.weights(below, width, stride))


def _block(
    through: _Pass, inside: int, outside: int, level: int, *, kernel: Sequence[int], input_level: int, pooled: bool
) -> Iterator[Operation]:
    """A residual block: two units, the skip beside them, their sum, activated in place."""
    out = through.map(outside, level)
    yield from _unit(through, inside, outside, level, kernel, input_level=input_level)
    yield from _unit(through, outside, outside, level, kernel, last_of_block=True)
    beside = out  # what the second unit gave waits for the skip
    if pooled:
        copy = through.float_copy(inside, input_level)
        yield Operation(kept=copy, forward=beside, backward=out + copy)
    if inside != outside:
        given = through.map(inside, level) if pooled else 0.0
        convolution = _convolution(through, through.map(inside, level), out, through.weights(inside, outside, [1]))
        yield Operation(kept=given, forward=beside, backward=given)
        yield replace(convolution, forward=convolution.forward + beside, backward=convolution.backward + out)
        if through.network.norm.name != "none":
            norm = _norm(through, out)
            yield replace(norm, forward=norm.forward + beside, backward=norm.backward + out)
    yield Operation(kept=out, forward=2 * out, backward=2 * out)


def _head(through: _Pass, level: int, outputs: int) -> Operation:
    """A convolution of one voxel; in 3D torch's own on a CPU, which works on contiguous copies."""
    width, logits = through.network.features[level], through.map(outputs, level)
    given = through.map(width, level)
    copies = given if through.form.cpu and through.network.dimension == 3 else 0.0
    return Operation(kept=logits, forward=copies, backward=logits + given + copies, gradient=through.weights(width, outputs, [1]))


def _loss(voxels: int, outputs: int, form: Form, regions: bool, *, again: bool) -> Operation:
    """The probabilities are kept in float32.

    Args:
        again: at a lower level of deep supervision, for which the target is brought to its size.
    """
    values = FLOAT * outputs * voxels
    target = (values if regions else INDEX * voxels) if again else 0.0
    if regions:
        return Operation(kept=values + target, forward=3 * values, backward=4 * values)
    copy = values if form.channels_last or form.short else 0.0
    return Operation(kept=values + target, forward=copy + 3 * FLOAT * voxels, backward=2 * values + 3 * FLOAT * voxels)


def prediction_peak(network: NetworkPlan, patch: Sequence[int], tiles: int, channels: int, outputs: int, form: Form) -> float:
    """Bytes that are held at most while a network looks at `tiles` tiles: nothing is kept for a backward pass, the skips until the end.

    Args:
        network: in the order inside, as `patch`.
    """
    through = _Pass.of(network, patch, tiles, form)
    widths = network.features
    maps = [through.map(width, level) for level, width in enumerate(widths)]
    units = 4 if network.kind == "residual_unet" else 3  # maps of its own that a level holds at most: given, convolved, normalised
    copies = (2 if form.reorders else 0) + (2 if network.norm.name == "instance" and form.channels_last else 0)
    image = FLOAT * channels * through.sizes[0]
    most = max(sum(maps[:level]) + (units + copies) * maps[level] for level in range(len(maps)))
    for level in range(len(maps) - 1):  # beside all skips and what lower levels of the decoder gave: the joined maps, and its units
        below = sum(maps[level + 1 : -1])
        most = max(most, sum(maps) + below + (2 + 3 + copies) * maps[level])
    return image + most + 2 * FLOAT * outputs * through.sizes[0]
