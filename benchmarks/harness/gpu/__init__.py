"""Sessions on machines with a GPU, run by ``gpu.sh``: results per GPU, targets, compilation ahead."""
