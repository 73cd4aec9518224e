"""From a network plan to a network."""

from __future__ import annotations

from torch import nn

from autoseg.errors import PlanError
from autoseg.network.factory import load_factory
from autoseg.network.residual import Block, ResidualEncoder
from autoseg.network.unet import Encoder, UNet
from autoseg.planning.schema import NetworkPlan


def build(network_plan: NetworkPlan, channels: int, outputs: int, *, deep_supervision: bool = False) -> nn.Module:
    """The network that a plan describes, with fresh weights drawn from torch's global generator.

    It maps (B, channels, *patch) to logits (B, outputs, *patch); each axis of the patch must divide by `network_plan.divisor`.

    Args:
        network_plan: one configuration's network, in the axis order that the network sees (`configuration.inside()`).
        channels: of the image.
        outputs: classes with background, or regions.
        deep_supervision: give every decoder level a head. In training mode such a network returns the list of all logits, full
            resolution first; in evaluation mode the full resolution alone. A network of your own (`factory`) isn't asked for it.

    Raises:
        PlanError: the factory cannot be loaded or returns no module, or options that contradict each other.
    """
    if network_plan.factory is not None:
        return _own_network(network_plan.factory, network_plan, channels, outputs)
    kind = ResidualEncoder if network_plan.kind == "residual_unet" else Encoder
    encoder: nn.Module = kind(network_plan, channels)
    network = UNet(network_plan, encoder, outputs, deep_supervision=deep_supervision)
    initialise(network, network_plan.initialisation)
    return network


def initialise(network: nn.Module, rule: str) -> None:
    """Draw the weights of all convolutions and zero their biases; then zero the last norm of every residual block.

    `glorot_uniform` is Keras's default (paper.md item 11), `kaiming_normal` with slope .01 the peer's (section 4.2).
    """
    for module in network.modules():
        if isinstance(module, nn.modules.conv._ConvNd):
            if rule == "glorot_uniform":
                nn.init.xavier_uniform_(module.weight)
            else:
                nn.init.kaiming_normal_(module.weight, a=0.01)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in network.modules():
        if isinstance(module, Block):
            module.start_as_skip()


def _own_network(factory: str, network_plan: NetworkPlan, channels: int, outputs: int) -> nn.Module:
    network = load_factory(factory, key="network.factory")(network_plan, channels, outputs)
    if not isinstance(network, nn.Module):
        raise PlanError(
            f"network.factory {factory!r} returned {type(network).__name__}, not a torch.nn.Module",
            remedy="Let it return the network",
        )
    return network
