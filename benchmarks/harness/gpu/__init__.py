"""Sessions on machines with a GPU, run by ``gpu_run.sh``: two runs, results per GPU, targets."""
