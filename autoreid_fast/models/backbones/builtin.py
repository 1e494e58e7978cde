"""Built-in backbones by name: ResNets, and the networks of published genotypes."""

from collections.abc import Sequence

from autoreid_fast.models.backbones.resnet import ResNet
from autoreid_fast.models.registry import register_backbone
from autoreid_fast.nas.derived_network import DerivedNetwork
from autoreid_fast.nas.published import GENOTYPES


@register_backbone("resnet18")
def resnet18(channels: int = 64, last_stride: int = 2) -> ResNet:
    """ResNet-18"""
    return ResNet(18, channels, last_stride)


@register_backbone("resnet34")
def resnet34(channels: int = 64, last_stride: int = 2) -> ResNet:
    """ResNet-34"""
    return ResNet(34, channels, last_stride)


@register_backbone("resnet50")
def resnet50(channels: int = 64, last_stride: int = 2) -> ResNet:
    """ResNet-50"""
    return ResNet(50, channels, last_stride)


def _register_genotype(name: str, summary: str) -> None:
    def build(channels: int = 64, cells_per_block: Sequence[int] = (2, 2, 2, 2)) -> DerivedNetwork:
        return DerivedNetwork(GENOTYPES[name], channels, cells_per_block)

    build.__doc__ = summary
    register_backbone(name)(build)


_register_genotype("darts_v1", "DARTS, searched on CIFAR-10, first order")
_register_genotype("darts_v2", "DARTS, searched on CIFAR-10, second order (Table 1: DARTS)")
_register_genotype("gdas_v1", "GDAS, searched on CIFAR-10")
_register_genotype("autoreid_baseline", "Auto-ReID, Table 1: Baseline (run 1)")
_register_genotype("autoreid_base_reid", "Auto-ReID, Table 1: Baseline + ReID Search Space (run 1)")
_register_genotype("autoreid_retrieval", "Auto-ReID, Table 1: Retrieval + ReID Search Space (run 1)")
