"""The search space and the search's networks: genotype, operations, cells, supernet, derived network.

Read in the paper's order: `genotype` and `operations` (Sec. 3.1), `part_aware` (Sec. 3.3, Fig. 2), `cell`
(Eq. 1 and 2), `macro` (Sec. 3.2 and 4.2), `supernet`, `derive`, `network`.
"""
