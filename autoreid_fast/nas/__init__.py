"""Architecture search: genotypes, search spaces, operations, supernets and derived networks.

In the paper's order: `space` and `operations` (Sec. 3.1 and 3.3), `cell` and `supernet` (Eq. 2),
`macro` (Sec. 3.2 and 4.2), `derivation`, `genotype`, `derived_network` (Eq. 1).
"""

from typing import TYPE_CHECKING

from autoreid_fast.lazy import lazy_exports

if TYPE_CHECKING:
    from autoreid_fast.nas.backbone import Backbone
    from autoreid_fast.nas.derivation import alpha_entropy, derive
    from autoreid_fast.nas.derived_network import DerivedNetwork
    from autoreid_fast.nas.genotype import Edge, Genotype
    from autoreid_fast.nas.input_size import check_input_size
    from autoreid_fast.nas.operations.candidates import with_search_norm
    from autoreid_fast.nas.operations.registry import build_operation, register_operation
    from autoreid_fast.nas.published import GENOTYPES
    from autoreid_fast.nas.space import register_search_space, search_space
    from autoreid_fast.nas.supernet.sampled import SampledSupernet
    from autoreid_fast.nas.supernet.source_supernet import SourceSupernet
    from autoreid_fast.nas.supernet.supernet import Supernet

__all__ = [
    "GENOTYPES",
    "Backbone",
    "DerivedNetwork",
    "Edge",
    "Genotype",
    "SampledSupernet",
    "SourceSupernet",
    "Supernet",
    "alpha_entropy",
    "build_operation",
    "check_input_size",
    "derive",
    "register_operation",
    "register_search_space",
    "search_space",
    "with_search_norm",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "GENOTYPES": ".published",
        "Backbone": ".backbone",
        "DerivedNetwork": ".derived_network",
        "Edge": ".genotype",
        "Genotype": ".genotype",
        "SampledSupernet": ".supernet.sampled",
        "SourceSupernet": ".supernet.source_supernet",
        "Supernet": ".supernet.supernet",
        "alpha_entropy": ".derivation",
        "build_operation": ".operations.registry",
        "check_input_size": ".input_size",
        "derive": ".derivation",
        "register_operation": ".operations.registry",
        "register_search_space": ".space",
        "search_space": ".space",
        "with_search_norm": ".operations.candidates",
    },
)
