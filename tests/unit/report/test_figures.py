import numpy as np
import pytest
import torch

from clvp_train.metrics import retrieval_ranks
from clvp_train.report import FigureData, draw, png
from clvp_train.report.figures import svg

RETRIEVAL = {"recall_curve", "rank_histogram", "score_distributions", "roc_curve", "similarity"}
PERTURBATIONS = [
    {"perturbation": "cut_off", "side": "speech", "share": 0.1, "rate": 0.7, "interval": [0.6, 0.8]},
    {"perturbation": "cut_off", "side": "speech", "share": 0.5, "rate": 0.9, "interval": [0.85, 0.95]},
    {"perturbation": "negate", "side": "text", "share": None, "rate": 0.5, "interval": [0.3, 0.7]},
]


def make_data(size, width=8):
    draw_ = torch.Generator().manual_seed(size)
    text, speech = (torch.nn.functional.normalize(torch.randn(size, width, generator=draw_), dim=1) for _ in range(2))
    return FigureData.from_retrieval(text, speech, retrieval_ranks(text, speech))


@pytest.mark.parametrize("size", [1, 2, 3, 40, 2500])
def test_figures_at_all_sizes(size):
    data = make_data(size)
    if size > 1:
        assert set(draw(data)) == RETRIEVAL
    data.voices, data.lengths, data.perturbations = (
        ["a", "b"] * (size // 2) + ["c"] * (size % 2),
        np.arange(size),
        PERTURBATIONS,
    )
    data.scores["perturbed"] = np.linspace(-1, 1, 5)
    figures = draw(data)
    assert set(figures) == RETRIEVAL | {"detection_rates", "projection_by_voice", "projection_by_length"}
    assert len(data.similarity) == min(size, 32) and len(data.projection) == min(size, 2000)
    for title, figure in figures.values():
        assert title and svg(figure).startswith("<svg")


def test_recall_curve_shows_the_recall():
    data = make_data(40)
    data.ranks = {"text → speech": np.array([1.0] * 30 + [40.0] * 10)}
    curve, chance = draw(data)["recall_curve"][1].axes[0].lines
    k, recall = curve.get_data()
    assert recall[0] == 0.75 and recall[-1] == 1 and (recall[:-1] == 0.75).all() and k[-1] == 40
    assert chance.get_ydata()[-1] == 1


def test_a_legend_shows_at_most_eight_voices():
    data = make_data(60)
    data.voices = [f"voice {number}" for number in range(30)] * 2
    legend = draw(data)["projection_by_voice"][1].axes[0].get_legend()
    assert len(legend.get_texts()) == 9 and legend.get_texts()[-1].get_text() == "others"


def test_a_voice_whose_name_is_a_formula_or_markup_is_drawn_as_text():
    data = make_data(20)
    data.voices = ["$\\bad{$", "<script>"] * 10
    drawn = svg(draw(data)["projection_by_voice"][1])
    assert "\\bad{" in drawn and "&lt;script&gt;" in drawn and "<script" not in drawn


def test_png_has_a_white_background():
    image = png(draw(make_data(5))["recall_curve"][1])
    assert image.mode == "RGB" and image.getpixel((0, 0)) == (255, 255, 255) and image.width > 400


def test_the_projection_shows_the_principal_components():
    flat = torch.zeros(50, 6)
    flat[:, 2], flat[:, 4] = torch.linspace(-1, 1, 50), 0.1 * torch.tensor([1.0, -1.0]).repeat(25)
    data = FigureData.from_retrieval(flat, flat, retrieval_ranks(flat, flat))
    assert np.abs(data.projection[:, 0]) == pytest.approx(np.abs(flat[:, 2]), abs=1e-3)
    assert np.abs(data.projection[:, 1]) == pytest.approx(np.full(50, 0.1), abs=1e-2)
