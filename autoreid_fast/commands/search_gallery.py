"""`search-gallery`: find a person's pictures in a folder."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from PIL import Image

from autoreid_fast.commands.options import parse, show
from autoreid_fast.data.images import open_rgb
from autoreid_fast.devices import DeviceName
from autoreid_fast.errors import AutoReIDError, printable
from autoreid_fast.evaluation.thumbnail import thumbnail
from autoreid_fast.files import require_file, write_text
from autoreid_fast.inference.embedder import Embedder
from autoreid_fast.inference.gallery import Gallery, check_top
from autoreid_fast.inference.gallery_cache import open_gallery
from autoreid_fast.inference.loading import load
from autoreid_fast.progress import progress_bar
from autoreid_fast.report.pages.page import Section, render_page
from autoreid_fast.report.pages.ranked_lists import render_ranked_lists
from autoreid_fast.report.ranked_list import RankedList, Tile

log = logging.getLogger(__name__)

BLANK = Image.new("RGB", (64, 128), "white")

Neighbours = Sequence[tuple[float, str]]
"""Distances and paths of gallery images, nearest first."""

Model = Annotated[
    Path,
    tyro.conf.arg(
        aliases=["--run"],
        help="Run folder of a training, one of its checkpoints, or a .safetensors file of `export`.",
    ),
]


def run_search_gallery(arguments: list[str]) -> int:
    """Parse and run `search-gallery`."""
    parse(search_gallery, "search-gallery", arguments)
    return 0


def search_gallery(
    query: tuple[Path, ...],
    gallery: Path,
    model: Model,
    top: int = 10,
    page: Path = Path("search-gallery.html"),
    cache_dir: Path | None = None,
    device: DeviceName = "auto",
) -> None:
    """Find a person's pictures in a folder: print the nearest images, and write a page that shows them.

    The features of the folder are cached, and extracted again when an image or the network has changed.

    Args:
        query: One or more pictures of people. A query inside the gallery does not match itself.
        gallery: Folder of images, searched with all its subfolders.
        model: The network.
        top: Number of images to show, 1 to 999.
        page: Page to write: a single, self-contained HTML file.
        cache_dir: Folder of cached features; default: $XDG_CACHE_HOME/autoreid_fast or
            ~/.cache/autoreid_fast.
        device: Device to run on: auto (CUDA if available), cpu, cuda or cuda:N.
    """
    if not query:
        raise AutoReIDError("query: no picture given; give at least one")
    check_top(top)
    require_file(page)
    embedder = load(model, device)
    features = embedder.embed(query)
    with progress_bar(f"extracting {gallery.name}") as show_done:
        opened = open_gallery(embedder, gallery, cache_dir, show_done)
    results = [opened.nearest(feature, top, path) for feature, path in zip(features, query, strict=True)]
    for path, neighbours in zip(query, results, strict=True):
        show(f"{printable(str(path))}: {len(neighbours)} of {len(opened.paths):,} images")
        for rank, (distance, name) in enumerate(neighbours, start=1):
            show(f"{rank:4}  {distance:.4f}  {printable(str(gallery / name))}")
    write_text(page, _page(embedder, query, opened, results))
    show(printable(str(page)))


def _page(
    embedder: Embedder, query: tuple[Path, ...], gallery: Gallery, results: Sequence[Neighbours]
) -> str:
    lists = [_ranked_list(path, gallery, neighbours) for path, neighbours in zip(query, results, strict=True)]
    note = "Below each picture: rank, Euclidean distance between features of length 1 (0 to 2), file name."
    subtitle = f"{len(gallery.paths):,} images in {gallery.root}, network {embedder.card.network}"
    section = Section("matches", "Nearest images", render_ranked_lists(lists, note, large=True))
    return render_page("Gallery search", subtitle, [section])


def _ranked_list(query: Path, gallery: Gallery, neighbours: Neighbours) -> RankedList:
    entries = [
        Tile(_picture(gallery.root / name), name, (f"{rank}", f"{distance:.3f}", Path(name).name))
        for rank, (distance, name) in enumerate(neighbours, start=1)
    ]
    return RankedList(query.name, Tile(_picture(query), str(query), ("query",)), entries)


def _picture(path: Path) -> str:
    """Encode an image for the page; a blank one if the file has changed since it was listed."""
    try:
        image = open_rgb(path, upright=True)
    except Exception as error:  # decoders raise exceptions of any class
        log.warning("%s: not shown on the page, it cannot be read (%s)", path, error)
        image = BLANK
    return thumbnail(np.asarray(image))
