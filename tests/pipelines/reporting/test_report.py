import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from kedro.io import DataCatalog, MemoryDataset
from kedro.runner import SequentialRunner
from PIL import Image

from condvae.ground.configuration import ConfigurationError
from condvae.plots import BINS, style_samplers
from pipelines.reporting import create_pipeline
from pipelines.reporting.calibration_figures import draw_calibration
from pipelines.reporting.examples import read_examples, read_extremes
from pipelines.reporting.nodes import draw_figures_node, write_report_node
from pipelines.reporting.page import render_page

METRICS = (
    "posterior_coverage",
    "negative_elbo_nats_per_dim",
    "bound_bits_per_unobserved_dim",
    "frechet_distance",
    "perceptual_best_of_k",
    "perceptual_diversity",
    "class_agreement",
)
VOID = {"meta", "img", "link", "br", "hr"}


class Page(HTMLParser):
    """Collects text, attributes, and whether every element is closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    def words(self):
        return re.sub(r"\s+", " ", " ".join(self.text))


@pytest.fixture(scope="module")
def report(
    tmp_path_factory,
    metrics,
    comparisons,
    examples,
    extremes,
    calibration,
    training_history,
    run_facts,
):
    """The pipeline run in memory: what it returns, and the folder it wrote."""
    folder = tmp_path_factory.mktemp("reporting") / "inpaint"
    values = {
        "metrics": metrics,
        "comparisons": comparisons,
        "examples": examples,
        "extremes": extremes,
        "calibration": calibration,
        "training_history": training_history,
        "run_facts": run_facts,
        "params:folders": {"reporting": str(folder)},
    }
    catalog = DataCatalog({name: MemoryDataset(value) for name, value in values.items()})
    outputs = SequentialRunner().run(create_pipeline(), catalog)
    return outputs["report_files"].load(), folder


def test_pipeline_writes_the_named_files_and_says_so(report):
    files, folder = report
    expected = ["completions.png", "samplers.png", "extremes.png", "coverage.png"]
    expected += ["calibration_ranks_ipa.png", "calibration_ecdf.png", "training.png"]
    expected += [f"metric_{name}.png" for name in METRICS]
    assert files == {
        "folder": folder.as_posix(),
        "report": "report.html",
        "cards": "metric_cards.json",
        "figures": expected,
    }
    assert {path.name for path in folder.iterdir()} == {
        "report.html",
        "metric_cards.json",
        *expected,
    }
    for name in expected:
        Image.open(folder / name).verify()


def test_page_needs_no_other_file_and_holds_the_same_pictures(report):
    files, folder = report
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    assert not page.all("script")
    assert not page.all("link")
    assert all(attributes["href"].startswith("#") for attributes in page.all("a"))
    targets = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert {attributes["href"][1:] for attributes in page.all("a")} <= targets
    embedded = [attributes["src"] for attributes in page.all("img")]
    prefix = "data:image/png;base64,"
    assert all(source.startswith(prefix) for source in embedded)
    pictures = {base64.b64decode(source.removeprefix(prefix)) for source in embedded}
    assert pictures == {(folder / name).read_bytes() for name in files["figures"]}
    assert all(len(attributes["alt"]) > 20 for attributes in page.all("img"))


def test_page_shows_values_comparisons_definitions_and_facts(report):
    words = Page((report[1] / "report.html").read_text(encoding="utf-8")).words()
    for part in (
        "kedro run --pipeline inpaint --env base",
        "0.1080 ± 0.0040",  # closest of K, ipa, 40–60 %: 0.12 - 0.024 * 0.5
        "0.1080 [0.1044, 0.1116]",  # over all cases, ± 1.96 * 0.004 / 2.2
        "with their 95 % intervals",
        "best_of_k Definition Least perceptual distance of K completions",
        "digits_classifier_f2_abababab, sha256 abababababab…",
        "Resizer none",
        "500 cases (100, 100, 100, 100, 100 by bin)",
        "manifest 3f3f3f3f3f3f…",
        "Draws that ignore y <itself>, then pasted.",  # escaped in the file
        "ab" * 32,
        "prepare",
        "312.7",
        "ipa better",
        "Posterior coverage calibration ipa › prior › untrained",
    ):
        assert part in words, part


def test_page_tells_whether_the_posterior_can_be_trusted_before_anything_else(report):
    words = Page((report[1] / "report.html").read_text(encoding="utf-8")).words()
    start = words.index("Given an observation, a sampler of the true posterior")
    trust = words[start : words.index("In short Values over all cases")]
    for part in (
        "ipa calibrated at this n 0.9000 ± 0.0045 posterior_coverage , 90 % intervals",
        "untrained too narrow, biased 0.6500 ± 0.0045",
        "too few images to see much",
        "2 tests reject",
        "coverage.png",
    ):
        assert part in trust, part
    short = words[start + len(trust) :]
    order = ("posterior_coverage", "bound_bits_per_unobserved_dim", "frechet_distance")
    assert sorted(order, key=short.index) == list(order)


def test_cards_are_written_for_the_run(report):
    cards = json.loads((report[1] / "metric_cards.json").read_text())
    assert set(cards) == set(METRICS)
    assert cards["perceptual_best_of_k"]["extractor_sha256"] == "ab" * 32
    assert cards["posterior_coverage"]["n"]["pooled"] == [500]


def test_text_of_the_run_cannot_become_markup(report):
    text = (report[1] / "report.html").read_text(encoding="utf-8")
    assert "&lt;itself&gt;" in text
    assert "<itself>" not in text


def test_same_inputs_give_the_same_bytes(
    report,
    tmp_path,
    metrics,
    comparisons,
    examples,
    extremes,
    calibration,
    training_history,
    run_facts,
):
    files, folder = report
    few = metrics[metrics["metric"] == "class_agreement"]
    again = draw_figures_node(few, examples, extremes, calibration, training_history, run_facts)
    for name, content in again.items():
        assert content == (folder / name).read_bytes()
    figures = {name: (folder / name).read_bytes() for name in files["figures"]}
    folders = {"reporting": str(tmp_path)}
    write_report_node(figures, metrics, comparisons, calibration, run_facts, folders)
    assert (tmp_path / "report.html").read_bytes() == (folder / "report.html").read_bytes()


def test_without_training_labels_or_other_samplers_the_report_is_shorter(
    tmp_path, metrics, comparisons, examples, run_facts
):
    kept = metrics[metrics["metric"].isin(["frechet_distance", "perceptual_diversity"])].copy()
    kept.loc[kept["metric"] == "frechet_distance", "value"] = np.nan
    others = ("/untrained", "/prior")
    unlabelled = {key: values for key, values in examples.items() if not key.endswith(others)}
    unlabelled["labels"] = np.full(len(examples["bins"]), "")
    facts = {key: run_facts[key] for key in ("task", "command")}
    figures = draw_figures_node(kept, unlabelled, {}, {}, [], facts)
    expected = {"completions.png", "samplers.png", "metric_perceptual_diversity.png"}
    assert set(figures) == expected
    folders = {"reporting": str(tmp_path)}
    write_report_node(figures, kept, comparisons[:0], {}, facts, folders)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    words = page.words()
    assert "Fréchet distance" in words
    assert "Training" not in words
    assert "Paired comparisons" not in words
    assert "Can this posterior be trusted?" not in words
    assert "Calibration in pictures" not in words


def test_facts_and_manifests_are_checked_before_anything_is_written(
    tmp_path, metrics, comparisons, run_facts
):
    folders = {"reporting": str(tmp_path / "new")}
    without = {key: value for key, value in run_facts.items() if key != "command"}
    with pytest.raises(ConfigurationError, match="run_facts lack 'command'"):
        write_report_node({}, metrics, comparisons, {}, without, folders)
    with pytest.raises(ConfigurationError, match="different manifests"):
        write_report_node({}, metrics, comparisons, {}, run_facts | {"manifest": "00"}, folders)
    assert not (tmp_path / "new").exists()


def test_examples_are_the_first_of_each_bin_and_hide_what_is_not_observed(examples):
    cases = read_examples(examples, per_bin=2)
    assert list(cases) == ["ipa", "untrained", "prior"]
    assert [case.bin for case in cases["prior"]] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert [case.case_id for case in cases["ipa"]][:3] == ["00000-0", "00001-0", "00003-0"]
    case = cases["untrained"][2]
    assert np.array_equal(case.completions, examples["completions/untrained"][:, 3])
    assert np.array_equal(case.observation[case.mask], case.truth[case.mask])
    assert not case.observation[~case.mask].any()
    assert case.observed_share == examples["masks"][3].mean()
    assert case.label == "3"


def test_examples_survive_a_numpy_archive_and_any_order_of_cases(examples):
    buffer = io.BytesIO()
    order = np.random.default_rng(0).permutation(len(examples["bins"]))
    shuffled = {
        key: values[:, order] if key.startswith("completions/") else values[order]
        for key, values in reversed(examples.items())
    }
    np.savez(buffer, **shuffled)
    buffer.seek(0)
    cases = read_examples(np.load(buffer), 1, ["untrained", "lama"])
    assert list(cases) == ["untrained", "prior", "ipa"]
    assert [case.bin for case in cases["ipa"]] == list(range(len(BINS)))


def test_examples_that_do_not_fit_are_refused(examples):
    lacking = {key: values for key, values in examples.items() if key != "mean/prior"}
    with pytest.raises(ConfigurationError, match="examples lack mean/prior"):
        read_examples(lacking, per_bin=1)
    with pytest.raises(ConfigurationError, match="completions/<sampler>"):
        read_examples({key: values for key, values in examples.items() if "/" not in key}, 1)
    with pytest.raises(ConfigurationError, match="different numbers of cases"):
        read_examples(examples | {"labels": examples["labels"][:3]}, per_bin=1)


def test_extremes_keep_their_order_and_scores(extremes):
    sampler, cases, scores = read_extremes(extremes)
    assert sampler == "ipa"
    assert [case.case_id for case in cases] == ["00012-0", "00013-0", "00000-0", "00001-0"]
    assert scores == [0.5, 0.75, 60.0, 72.5]


def test_extremes_that_do_not_fit_are_refused(extremes, examples):
    with pytest.raises(ConfigurationError, match="examples lack scores"):
        read_extremes({key: values for key, values in extremes.items() if key != "scores"})
    with pytest.raises(ConfigurationError, match="different numbers of cases"):
        read_extremes(extremes | {"scores": np.zeros(3)})
    with pytest.raises(ConfigurationError, match="extremes of ipa, untrained, prior"):
        read_extremes(examples | {"scores": np.zeros(15)})


def test_first_sampler_of_the_table_is_shown_whatever_its_name(
    metrics, calibration, examples, run_facts
):
    names = {"ipa": "lama, big/2", "untrained": "ipa", "prior": "prior"}
    table = metrics[metrics["metric"] == "class_agreement"].copy()
    table["sampler"] = table["sampler"].map(names)
    arrays = {}
    for key, values in examples.items():
        part, slash, sampler = key.partition("/")
        arrays[f"{part}/{names[sampler]}" if slash else key] = values
    found = {names[sampler]: values for sampler, values in reversed(calibration.items())}
    figures = draw_figures_node(table, arrays, {}, found, [], run_facts)
    assert "calibration_ranks_lama__big_2.png" in figures
    page = render_page(figures, table, pd.DataFrame(columns=["metric"]), found, run_facts)
    assert page.index("<h3>lama, big/2 ") < page.index("<h3>ipa ")
    without = {name: values for name, values in found.items() if name == "ipa"}
    assert "calibration_ranks_ipa.png" in draw_calibration(without, "lama", style_samplers(["ipa"]))
