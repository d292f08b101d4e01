import pytest
import torch

from clvp_train.models import CLVPConfig, CLVPModel

IDS = torch.arange(12).reshape(2, 6)
TOWER = {"vocab_size": 20, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 1}


@pytest.fixture
def model():
    torch.manual_seed(0)
    tower = {**TOWER, "initializer_range": 0.2}
    return CLVPModel(CLVPConfig(text_config=tower, speech_config=tower, projection_dim=16)).eval()


@pytest.fixture
def dtypes(monkeypatch):
    """Those that attention is computed in."""
    found, attend = [], torch.nn.functional.scaled_dot_product_attention

    def noted(query, *arguments, **settings):
        result = attend(query, *arguments, **settings)
        found.append((query.dtype, result.dtype))
        return result

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", noted)
    return found


@pytest.mark.parametrize("autocast", [True, False])
def test_on_a_cpu_attention_is_in_float32_and_all_else_in_bfloat16(model, dtypes, autocast):
    exact = model.get_text_features(IDS)
    dtypes.clear()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        rounded = (model if autocast else model.bfloat16()).get_text_features(IDS)
    assert dtypes == [(torch.float32, torch.float32)] and rounded.dtype == torch.bfloat16
    assert torch.nn.functional.cosine_similarity(rounded.float(), exact).min() > 0.99
    rounded.float().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.text_model.parameters())


def test_in_float32_nothing_changes(model, dtypes):
    model.get_text_features(IDS)
    assert dtypes == [(torch.float32, torch.float32)]
    dtypes.clear()
    model.double().get_text_features(IDS)
    assert dtypes == [(torch.float64, torch.float64)]
