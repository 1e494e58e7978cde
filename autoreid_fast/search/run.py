"""Algorithm 1 as a run: search an architecture by alternating steps on omega and alpha."""

import json
import logging
from collections import Counter

import torch

from autoreid_fast.data.batches import TrainBatches
from autoreid_fast.data.dataset import split_half
from autoreid_fast.data.load import load_dataset
from autoreid_fast.data.sampler import IdentitySampler
from autoreid_fast.devices import choose_device
from autoreid_fast.distributed.collectives import mean_over_processes
from autoreid_fast.distributed.group import on_main
from autoreid_fast.distributed.processes import current_shard
from autoreid_fast.files import write_json
from autoreid_fast.nas.derivation import alpha_entropy
from autoreid_fast.nas.genotype import Genotype
from autoreid_fast.nas.input_size import check_input_size
from autoreid_fast.progress import epoch_progress
from autoreid_fast.runs.folder import RunFolder
from autoreid_fast.search.config import SearchConfig
from autoreid_fast.search.searcher import Searcher, build_supernet
from autoreid_fast.training.epoch import Epoch
from autoreid_fast.training.joint_batch import average_buffers, check_share_of_batch
from autoreid_fast.training.loop import EpochRecord, Observe, Stateful, run_epochs
from autoreid_fast.training.setup import training_images

__all__ = ["SearchConfig", "Searcher", "describe", "search"]

logger = logging.getLogger("autoreid_fast")


def describe(genotype: Genotype) -> str:
    """What a genotype is made of, in a line: how often each operation was chosen in each cell."""
    cells = []
    for name, cell in (("normal", genotype.normal), ("reduce", genotype.reduce)):
        counts = Counter(edge.op for node in cell for edge in node)
        cells.append(f"{name}: " + ", ".join(f"{count} {op}" for op, count in counts.most_common()))
    return "; ".join(cells)


def search(config: SearchConfig, run: RunFolder, observe: Observe | None = None) -> Genotype:
    """Run or resume a search; leaves ``genotype.json`` and ``metrics.json`` in the run folder.

    The folder must have been started (``RunFolder.start``). Two runs with one seed on one CPU are equal
    bit for bit, killed and resumed or not. Several processes share each batch. ``observe`` sees every epoch,
    as in `run_epochs`.

    Raises:
        AutoReIDError: data, device or sizes do not allow the search; said before work starts.
    """
    check_share_of_batch(config.batch.identities, config.distributed)
    device = choose_device(config.device)
    captured = config.captured_on(device)
    check_input_size(config.data.height, config.data.width, config.space, config.cells_per_block)
    with torch.device("meta"):  # what cannot be built is known before images are decoded
        build_supernet(config)
    images = training_images(load_dataset(config.data), config.data)
    halves = split_half(images.cache.records, config.seed)
    streams = []
    shard = current_shard()
    for stream, half in enumerate(halves):
        seed = 2 * config.seed + stream
        sampler = IdentitySampler(images.labels, config.batch.identities, config.batch.images, seed, half)
        streams.append(
            TrainBatches(images.cache, images.labels, sampler, config.augmentation, device, seed, shard)
        )
    steps = min(len(stream) for stream in streams)
    images_a_step = 2 * config.batch.identities * config.batch.images
    torch.manual_seed(config.seed)
    searcher = Searcher(config, images.identities, device)
    searcher.model.train()
    how = f"{device}, {'captured' if captured else 'eager'} steps"
    logger.info(
        "searching the %s space on %s: %d + %d images of %d identities, %d step pairs an epoch",
        *(config.space, how, len(halves[0]), len(halves[1]), images.identities, steps),
    )

    def one_epoch(epoch: Epoch) -> EpochRecord:
        searcher.set_epoch(epoch.number)

        def names(step: int) -> list[str]:
            return [name for stream in streams for name in stream.names(epoch.number, step)]

        with epoch_progress("search", epoch.number, config.epochs, images_a_step) as show_done:
            pairs = zip(*(stream.epoch(epoch.number, epoch.done) for stream in streams), strict=False)
            for train, val in epoch.steps(pairs, names):
                omega_loss, alpha_loss = searcher.step(train, val)
                epoch.add(omega_loss=omega_loss, alpha_loss=alpha_loss)
                show_done(epoch.done + 1, steps, omega_loss)
        losses = mean_over_processes(epoch.means()).tolist()
        if not config.distributed.sync_bn:
            average_buffers(searcher.model)
        alphas = (searcher.supernet.alpha_normal, searcher.supernet.alpha_reduce)
        entropies = [alpha_entropy(alpha) for alpha in alphas]
        genotype = searcher.genotype()
        record: EpochRecord = {
            "images": (steps - epoch.first) * images_a_step,
            "omega_loss": losses[0],
            "alpha_loss": losses[1],
            "omega_learning_rate": float(searcher.omega_optimizer.param_groups[0]["lr"]),
            "alpha_learning_rate": float(searcher.alpha_optimizer.param_groups[0]["lr"]),
            "entropy_normal": entropies[0],
            "entropy_reduce": entropies[1],
            "alpha_normal": alphas[0].tolist(),
            "alpha_reduce": alphas[1].tolist(),
            "genotype": json.loads(genotype.to_json()),
        }
        record["line"] = (
            f"omega {record['omega_loss']:.3f}  alpha {record['alpha_loss']:.3f}  "
            f"entropy {entropies[0]:.3f}/{entropies[1]:.3f}  {describe(genotype)}"
        )
        return record

    parts: dict[str, Stateful] = {
        "model": searcher.model,
        "omega_optimizer": searcher.omega_optimizer,
        "alpha_optimizer": searcher.alpha_optimizer,
    }
    history = run_epochs(run, config.epochs, parts, one_epoch, observe, tolerant=config.nonfinite == "skip")
    genotype = searcher.genotype()
    on_main(lambda: genotype.save(run.genotype))
    figures = ("omega_loss", "alpha_loss", "entropy_normal", "entropy_reduce", "genotype")
    on_main(lambda: write_json(run.metrics, {name: history[-1][name] for name in figures}))
    logger.info("found %s\nwritten to %s", describe(genotype), run.genotype)
    return genotype
