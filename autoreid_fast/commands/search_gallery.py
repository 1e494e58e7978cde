"""`search-gallery`: find a person's pictures in a folder."""

from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from autoreid_fast.commands.options import parse, show
from autoreid_fast.data.images import open_rgb
from autoreid_fast.devices import DeviceName
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.evaluation.thumbnail import thumbnail
from autoreid_fast.files import write_text
from autoreid_fast.inference.embedder import Embedder, load
from autoreid_fast.inference.gallery import Gallery, open_gallery
from autoreid_fast.progress import progress_bar
from autoreid_fast.report.pages.page import Section, render_page
from autoreid_fast.report.pages.ranked_lists import render_ranked_lists
from autoreid_fast.report.ranked_list import RankedList, Tile

Found = list[tuple[float, str]]


def run_search_gallery(arguments: list[str]) -> int:
    """Rank a folder's images by their distance to a person's picture."""
    model_help = tyro.conf.arg(
        aliases=["--run"], help="Run folder of a training, or a .safetensors file that `export` wrote."
    )

    def command(
        query: tuple[Path, ...],
        gallery: Path,
        model: Annotated[Path, model_help],
        top: int = 10,
        page: Path = Path("search-gallery.html"),
        cache_dir: Path | None = None,
        device: DeviceName = "auto",
    ) -> None:
        """Find a person's pictures in a folder: prints the nearest, and writes a page with the pictures.

        The folder's features are kept on disk, and extracted again when an image or the network changes.

        Args:
            query: One or more pictures of people. One that lies in the gallery does not find itself.
            gallery: Folder of images, searched with all folders in it.
            model: The network.
            top: How many to show, 1 to 999.
            page: Where to write the page: one HTML file that needs nothing else.
            cache_dir: Folder of the cached features; default $XDG_CACHE_HOME/autoreid_fast or
                ~/.cache/autoreid_fast.
            device: Where to run; auto takes CUDA where there is one.
        """
        if not query:
            raise AutoReIDError("query: give at least one picture")
        embedder = load(model, device)
        features = embedder.embed(query)
        with progress_bar(f"extracting {gallery.name}") as show_done:
            found_in = open_gallery(embedder, gallery, cache_dir, show_done)
        results = [
            found_in.nearest(feature, top, person) for feature, person in zip(features, query, strict=True)
        ]
        for person, found in zip(query, results, strict=True):
            show(f"{person}: {len(found)} of {len(found_in.paths):,} images")
            for rank, (distance, path) in enumerate(found, 1):
                show(f"{rank:4}  {distance:.4f}  {gallery / path}")
        write_text(page, _page(embedder, query, found_in, results))
        show(str(page))

    parse(command, "search-gallery", arguments)
    return 0


def _page(embedder: Embedder, query: tuple[Path, ...], gallery: Gallery, results: list[Found]) -> str:
    """The page of pictures: a list a query."""
    lists = [
        RankedList(
            title=person.name,
            query=Tile(_picture(person), str(person), ("query",)),
            entries=[
                Tile(_picture(gallery.root / path), path, (f"{rank}", f"{distance:.3f}", Path(path).name))
                for rank, (distance, path) in enumerate(found, 1)
            ],
        )
        for person, found in zip(query, results, strict=True)
    ]
    note = "Below each picture: rank, Euclidean distance between features of length 1 (0 to 2), and name."
    subtitle = f"{len(gallery.paths):,} images in {gallery.root}, network {embedder.card.network}"
    return render_page(
        "Gallery search",
        subtitle,
        [Section("found", "Nearest first", render_ranked_lists(lists, note, large=True))],
    )


def _picture(path: Path) -> str:
    return thumbnail(np.asarray(open_rgb(path)))
