import pytest
import torch
from torch.nn import functional

from clvp_train.tortoise.dvae import Codebook, DiscreteVAE, DVAEConfig

LENGTHS = [1, 2, 3, 4, 5, 6, 7, 8, 30, 33]


@pytest.fixture(scope="module")
def dvae():
    torch.manual_seed(0)
    model = DiscreteVAE(DVAEConfig(num_mels=80, num_tokens=64, codebook_dim=8, hidden_dim=12, num_res_blocks=2)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0)
        model.codebook.embed.mul_(0.3)
    return model


@pytest.fixture(scope="module")
def mels():
    draw = torch.Generator().manual_seed(1)
    return [torch.randn(80, length, generator=draw) for length in LENGTHS]


@torch.no_grad()
def test_a_padded_batch_equals_the_layers_on_each_clip(dvae, mels):
    # the content of the padding must not matter
    padded = torch.stack([functional.pad(mel, (0, 33 - mel.shape[1]), value=7.0) for mel in mels])
    batch = dvae.encode(padded, torch.tensor(LENGTHS))
    codes = dvae.codes(padded, torch.tensor(LENGTHS))
    for mel, vectors, ids in zip(mels, batch, codes):
        alone = dvae.encoder(mel[None]).transpose(1, 2)
        torch.testing.assert_close(vectors[: alone.shape[1]], alone[0], rtol=0, atol=1e-5)
        assert ids.tolist() == dvae.codebook(alone)[0].tolist()
    assert len({code for ids in codes for code in ids.tolist()}) > 5


@torch.no_grad()
@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_num_codes_equals_the_length_of_the_layers(num_layers):
    dvae = DiscreteVAE(DVAEConfig(num_tokens=4, codebook_dim=2, hidden_dim=2, num_layers=num_layers, num_res_blocks=1))
    frames = torch.arange(1, 41)
    expected = [dvae.encoder(torch.zeros(1, 80, int(length))).shape[2] for length in frames]
    assert dvae.num_codes(frames).tolist() == expected == [-(-int(length) // 2**num_layers) for length in frames]


def test_the_published_shape_has_the_keys_of_lucidrains_dvae():
    """Names and shapes as DL-Art-School's `lucidrains_dvae.py` builds them for Tortoise."""
    with torch.device("meta"):
        shapes = {key: tuple(tensor.shape) for key, tensor in DiscreteVAE(DVAEConfig()).state_dict().items()}
    expected = {
        "encoder.0.0": (512, 80, 3),
        "encoder.1.0": (1024, 512, 3),
        "encoder.5": (512, 1024, 1),
        "decoder.0": (1024, 512, 1),
        "decoder.4.0.conv": (1024, 1024, 3),
        "decoder.5.0.conv": (512, 1024, 3),
        "decoder.6": (80, 512, 1),
    }
    for block in ("encoder.2", "encoder.3", "encoder.4", "decoder.1", "decoder.2", "decoder.3"):
        expected |= {f"{block}.net.{layer}": (1024, 1024, kernel) for layer, kernel in ((0, 3), (2, 3), (4, 1))}
    names = {f"{key}.weight": shape for key, shape in expected.items()}
    names |= {f"{key}.bias": shape[:1] for key, shape in expected.items()}
    names |= {"codebook.embed": (512, 8192), "codebook.embed_avg": (512, 8192), "codebook.cluster_size": (8192,)}
    assert shapes == names


@torch.no_grad()
def test_codes_and_features_against_naive_computation(dvae, mels):
    """The layers of `lucidrains_dvae` written out from its stored weights, one clip at a time and in float64."""
    weights = {key: tensor.double() for key, tensor in dvae.state_dict().items()}

    def convolve(x, name, **settings):
        return functional.conv1d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], **settings)

    def residual(x, name):
        inner = convolve(x, f"{name}.net.0", padding=1).relu()
        inner = convolve(inner, f"{name}.net.2", padding=1).relu()
        return x + convolve(inner, f"{name}.net.4")

    padded = torch.stack([functional.pad(mel, (0, 33 - mel.shape[1])) for mel in mels])
    for mel, ids in zip(mels, dvae.codes(padded, torch.tensor(LENGTHS))):
        x = mel[None].double()
        for layer in (0, 1):
            x = convolve(x, f"encoder.{layer}.0", stride=2, padding=1).relu()
        for block in (2, 3):
            x = residual(x, f"encoder.{block}")
        x = convolve(x, "encoder.4")[0].T
        distances = (x[:, None] - weights["codebook.embed"].T).square().sum(dim=-1)
        assert distances.argmin(dim=1).tolist() == ids.tolist()

        y = weights["codebook.embed"][:, ids][None]
        y = convolve(y, "decoder.0")
        for block in (1, 2):
            y = residual(y, f"decoder.{block}")
        for layer in (3, 4):
            y = convolve(y.repeat_interleave(2, dim=2), f"decoder.{layer}.0.conv", padding=1).relu()
        y = convolve(y, "decoder.5")
        torch.testing.assert_close(dvae.decode(ids[None]).double(), y, rtol=0, atol=1e-4)
        assert y.std() > 0.1


def test_the_codebook_returns_the_nearest_entry():
    torch.manual_seed(0)
    codebook = Codebook(dim=6, num_tokens=50)
    vectors = torch.randn(4, 11, 6)
    distances = (vectors[:, :, None] - codebook.embed.T).double().norm(dim=-1)
    assert torch.equal(codebook(vectors), distances.argmin(dim=-1))
    ids = torch.arange(50)[None]
    assert torch.equal(codebook(codebook.lookup(ids)), ids)
    assert torch.equal(codebook.lookup(torch.tensor([[7]]))[0, 0], codebook.embed[:, 7])


@torch.no_grad()
def test_decode_gives_four_frames_a_code_from_nearest_upsampling(dvae):
    codes = torch.randint(64, (2, 9), generator=torch.Generator().manual_seed(0))
    assert dvae.decode(codes).shape == (2, 80, 36)
    upsample = dvae.decoder[3][0]
    x = torch.randn(1, 24, 5)
    torch.testing.assert_close(upsample(x), upsample.conv(x.repeat_interleave(2, dim=2)))
