"""What the paper prints, to stand beside a run: rank-1 and mAP in per cent, parameters and FLOPs."""

from typing import Any, NamedTuple

from autoreid_fast.models.registry import NETWORKS


class Published(NamedTuple):
    """A row of a table of the paper; None for what the table does not have."""

    where: str
    rank1: float
    mAP: float
    rank5: float | None = None
    rank10: float | None = None
    params_M: float | None = None
    flops_G: float | None = None


_MARKET = {
    "resnet18": Published("ResNet-18, Table 1", 85.2, 66.0, 94.6, 96.5, 11.6, 1.7),
    "resnet34": Published("ResNet-34, Table 1", 86.7, 68.0, 94.8, 96.6, 21.7, 3.4),
    "resnet50": Published("ResNet-50, Table 1", 87.2, 68.5, 95.5, 97.1, 25.1, 3.8),
    "darts_v2": Published("DARTS, Table 1", 85.6, 65.2, 94.3, 96.4, 9.1, 1.7),
    "gdas_v1": Published("GDAS, Table 1", 86.5, 66.8, 94.7, 96.9, 13.5, 2.3),
    "autoreid_baseline": Published("Baseline, Table 1", 87.0, 68.5, 95.4, 97.1, 11.9, 2.0),
    "autoreid_base_reid": Published("Baseline + ReID space, Table 1", 90.0, 71.3, 96.5, 97.7, 10.9, 1.7),
    "autoreid_retrieval": Published("Retrieval + ReID space, Table 1", 89.7, 72.7, 96.7, 98.0, 11.4, 1.8),
}
_WITH_PCB = {
    "darts_v2": Published("DARTS + PCB, Table 4", 86.9, 70.3, params_M=9.1, flops_G=1.75),
    "gdas_v1": Published("GDAS + PCB, Table 4", 86.6, 68.1, params_M=13.5, flops_G=2.3),
    "autoreid_baseline": Published("Baseline + PCB, Table 4", 86.6, 70.2, params_M=11.9, flops_G=2.03),
}
_SEARCHED = {
    "market1501": Published("Auto-ReID, Table 1", 90.7, 74.6, 96.9, 98.1, 13.1, 2.1),
    "market1501 pretrained": Published("Auto-ReID, Table 3", 94.5, 85.1, params_M=13.1),
    "cuhk03 labeled": Published("Auto-ReID, Table 5", 77.9, 73.0),
    "cuhk03 detected": Published("Auto-ReID, Table 5", 73.3, 69.3),
    "msmt17": Published("Auto-ReID, Table 6", 78.2, 52.5, 88.2, 91.1),
}


def published(config: dict[str, Any]) -> Published | None:
    """The paper's row for a training's config: its network's own, else Auto-ReID's on that data set.

    None where the paper says nothing, as on the synthetic set.
    """
    data = config.get("data", {})
    kind, network = str(data.get("kind")), str(config.get("network"))
    pretrained = config.get("pretrained") is not None
    if config.get("tail", "embedding") != "embedding":
        table = _WITH_PCB if (kind, config["tail"]) == ("market1501", "pcb") and not pretrained else {}
        return table.get(network)
    if kind == "market1501" and not pretrained and network in _MARKET:
        return _MARKET[network]
    if network in NETWORKS and not network.startswith("autoreid"):
        return None
    named = {"market1501": " pretrained" if pretrained else "", "cuhk03": f" {data.get('boxes')}"}
    return _SEARCHED.get(kind + named.get(kind, ""))
