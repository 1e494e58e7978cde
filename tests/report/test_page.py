"""Report pages: self-contained, well formed, safe against hostile file names."""

import base64
import hashlib
import json
import logging
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from autoreid_fast.cli import main
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.report.draw import draw_report
from autoreid_fast.report.pages.run import write_report
from autoreid_fast.runs.environment import cpu_model
from autoreid_fast.runs.folder import RunFolder

from .conftest import EPOCHS, HOSTILE

Make = Callable[..., Path]
VOID = {"meta", "link", "img", "input", "br", "path", "use", "circle", "rect"}


class Reader(HTMLParser):
    """Ids, links, tags, event handlers and text of a page; fails on unbalanced tags."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.handlers: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.open += [] if tag in VOID else [tag]
        for name, value in attrs:
            self.handlers += [name] if name.startswith("on") else []
            if name == "id":
                self.ids.append(value or "")
            elif name in ("src", "href", "xlink:href", "action", "srcset"):
                self.links.append(value or "")
            if value and "url(" in value:
                self.links += re.findall(r"url\(([^)]*)\)", value)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_report_has_no_external_links(demo: Path) -> None:
    page = Reader(demo)
    inner = [link for link in page.links if not link.startswith("data:")]
    assert inner and all(link.startswith("#") for link in inner)
    assert {link[1:] for link in inner} <= set(page.ids)
    assert len(set(page.ids)) == len(page.ids)
    assert page.open == []


def test_names_are_escaped(demo: Path) -> None:
    page = Reader(demo)
    assert page.tags.count("script") == 1
    assert page.handlers == []
    assert HOSTILE in page.text  # the network's name in the config
    assert "zz $resnet$ <b>" in page.text and "b" not in page.tags


def test_only_the_script_of_the_page_may_run(demo: Path) -> None:
    text = demo.read_text(encoding="utf-8")
    script = text.split("<script>")[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in text
    )


@pytest.mark.usefixtures("no_files")
def test_sections_depend_on_the_data_of_the_runs(
    demo: Path, make_search: Make, make_training: Make, tmp_path: Path
) -> None:
    complete = {
        "results",
        "search",
        "cells",
        "alpha",
        "cmc",
        "lists",
        "saliency",
        "costs",
        "config",
        "machine",
    }
    assert complete <= set(Reader(demo).ids)
    search = set(Reader(write_report(make_search(tmp_path / "search"))).ids)
    assert {"search", "cells", "alpha", "search-curves", "config", "machine"} <= search
    assert not search & {"results", "lists", "saliency", "cmc", "costs"}
    unfinished = make_training(tmp_path / "unfinished")
    for name in ("metrics", "retrieval", "history"):
        (unfinished / f"{name}.json").unlink()
    absent = {"results", "lists", "saliency", "cmc", "costs", "curves"}
    assert not set(Reader(write_report(unfinished)).ids) & absent


def test_ranked_lists_show_verdicts_and_the_rank_of_the_first_match(demo: Path) -> None:
    text = demo.read_text(encoding="utf-8")
    lists = text.split('id="lists"')[1].split("</section>")[0]
    assert lists.count('class="tile right"') == lists.count('aria-label="right"') == 3
    assert lists.count('class="tile wrong"') == lists.count('aria-label="wrong"') == 7
    assert "Worst: AP 1.0 %, 2 matches, the first at rank 57" in lists
    assert lists.count('class="gap"') == 1  # between rank 3 and rank 57
    assert "<span>57</span>" in lists.split('class="gap"')[1]


@pytest.mark.usefixtures("no_files")
def test_results_stand_beside_another_run_and_the_paper(make_training: Make, tmp_path: Path) -> None:
    ours = make_training(tmp_path / "ours", mAP=0.4242, network="resnet50", data={"kind": "market1501"})
    text = Reader(write_report(ours, beside=make_training(tmp_path / "theirs", mAP=0.1717))).text
    assert "42.4" in text and "17.2" in text
    assert "paper: ResNet-50, Table 1" in text and "68.5" in text


@pytest.mark.usefixtures("no_files")
def test_evaluations_are_in_the_report_of_their_run_and_have_their_own(
    make_training: Make, tmp_path: Path
) -> None:
    run = make_training(tmp_path / "run")
    evaluation = make_training(run / "evaluations" / "other-reranked", mAP=0.777)
    RunFolder(evaluation).record({"run": str(run), "data": {"kind": "synthetic"}, "rerank": None}, "eval")
    text = Reader(write_report(run)).text
    assert "other-reranked" in text and "77.7" in text
    page = Reader(write_report(evaluation))
    assert {"results", "cmc", "config"} <= set(page.ids)
    assert "eval of run on synthetic" in page.text and "40.0" in page.text  # mAP of the training


@pytest.mark.usefixtures("no_files")
def test_the_machine_is_described(make_training: Make, tmp_path: Path) -> None:
    run = make_training(tmp_path / "run")
    text = " ".join(Reader(write_report(run)).text.split("Machine")[-1].split())
    assert f"CPU {cpu_model()}, threads: {torch.get_num_threads()}" in text
    assert re.search(r"started \d{4}-\d\d-\d\d \d\d:\d\d UTC", text)
    assert "GPU" not in text or torch.cuda.is_available()


def test_figures_are_also_files(demo: Path) -> None:
    report = demo.parent
    for name in ("cells", "alpha", "cmc", "ranked-lists", "saliency", "search-curves-losses", "loss"):
        assert (report / f"{name}.svg").read_text(encoding="utf-8").startswith("<?xml")
        assert (report / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_the_slider_has_the_weights_of_every_epoch(demo: Path) -> None:
    text = demo.read_text(encoding="utf-8")
    weights, kept = (
        np.frombuffer(base64.b64decode(text.split(f'data-{name}="')[1].split('"')[0]), np.uint8)
        for name in ("weights", "kept")
    )
    history = json.loads((demo.parents[1] / "search" / "history.json").read_text())
    for epoch, record in enumerate(history):
        alpha = torch.tensor([record["alpha_normal"], record["alpha_reduce"]]).double()
        expected = (100 * alpha.softmax(-1)).flatten().round()
        assert (
            np.abs(weights.reshape(EPOCHS, -1)[epoch] - expected.numpy()).max() <= 1
        )  # halves may round either way
        packed = kept.reshape(EPOCHS, -1)[epoch]
        bits = [packed[i >> 3] >> (7 - i % 8) & 1 for i in range(2 * 14 * 7)]  # as in script.js
        assert sum(bits) == 16
        strongest = np.array(bits).reshape(2, 14, 7)[:, :, 1:].max(-1)
        assert strongest.sum() == 16  # "none" is never kept, and no edge keeps two operations


def test_a_missing_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(AutoReIDError, match="holds no run"):
        write_report(tmp_path / "nothing")


@pytest.mark.usefixtures("no_files")
def test_files_and_pictures_that_cannot_be_read_are_left_out(
    tmp_path: Path, make_training: Make, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_training(tmp_path / "broken")
    (run / "metrics.json").write_text("{")
    retrieval = json.loads((run / "retrieval.json").read_text())
    retrieval["lists"][1]["query"]["picture"] = base64.b64encode(b"no picture").decode()
    (run / "retrieval.json").write_text(json.dumps(retrieval))
    with caplog.at_level(logging.WARNING, logger="autoreid_fast"):
        ids = Reader(write_report(run)).ids
    assert "results" not in ids and "lists" not in ids and {"cmc", "curves", "config"} <= set(ids)
    assert any("metrics.json: not JSON (EOF" in line for line in caplog.messages)
    assert any("a picture in retrieval.json is not a JPEG" in line for line in caplog.messages)


def test_a_drawing_error_does_not_fail_the_run(
    make_training: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_training(tmp_path / "odd")
    (run / "report").write_text("a file")
    with caplog.at_level(logging.WARNING, logger="autoreid_fast"):
        draw_report(run)
    assert [line.startswith(f"no report of {run}") for line in caplog.messages] == [True]


@pytest.mark.usefixtures("no_files")
def test_the_command_prints_the_path_of_the_page(
    make_training: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_training(tmp_path / "run")
    assert main(["report", str(run), "--beside", str(run)]) == 0
    assert Path(capsys.readouterr().out.strip()) == run / "report" / "index.html"
    assert main(["report", str(run / "no")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
