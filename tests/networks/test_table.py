"""The six networks are those of the release, and an architecture string names exactly one network."""

import json

import pytest
import torch
from calibrated import LITE, MERGED, MIRRORED
from typer.testing import CliRunner

from mskscreen.cli.main import app
from mskscreen.errors import ModelError
from mskscreen.networks import NETWORKS, Architecture, build_network
from mskscreen.networks.complexity import measure

# Recovered from the release; all six agree with what it printed to the last digit.
TOTALS = {
    "inception_v3": 21_991_407,
    "xception": 21_012_791,
    "densenet121": 7_057_295,
    "resnet18": 11_228_751,
    "vgg16_bn": 134_679_631,
    "vgg19_bn": 139_991_887,
}


@pytest.mark.parametrize("name", TOTALS)
def test_parameters_are_those_of_the_release(name):
    with torch.device("meta"):
        network = build_network(name)
    assert sum(p.numel() for p in network.parameters()) == TOTALS[name]


def test_verb_prints_published_beside_measured():
    result = CliRunner().invoke(app, ["networks", "--format", "json"])
    rows = {row["name"]: row for row in json.loads(result.stdout)}
    assert list(rows) == list(NETWORKS) == list(TOTALS)
    columns = ["name", "parameters", "gflops", "input_size", "published_mparams", "published_gflops"]
    for name, row in rows.items():
        assert list(row) == columns
        assert row["parameters"] == TOTALS[name]
        # The release prints from two to three decimals.
        assert row["parameters"] / 1e6 == pytest.approx(row["published_mparams"], abs=0.005)
        # The release counts batch norms, which are folded here: never more than it, and at most 3 % less.
        assert 0.97 * row["published_gflops"] < row["gflops"] <= row["published_gflops"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("resnet18", Architecture("resnet18")),
        ("densenet121(pool=gem)", Architecture("densenet121", pool="gem")),
        (LITE, Architecture("timm:tf_efficientnet_lite0", pool="gem", stride=16)),
        (MERGED, Architecture("timm:tf_efficientnet_lite0", pool="gem", stride=16, merged=True)),
        (
            MIRRORED,
            Architecture("timm:tf_efficientnet_lite0", pool="gem", stride=16, merged=True, mirrored=True),
        ),
        ("timm:resnet18.a1_in1k(stride=8)", Architecture("timm:resnet18.a1_in1k", stride=8)),
    ],
)
def test_architecture_string_and_value_are_inverse(text, expected):
    assert Architecture.parse(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("resnet19", "resnet18"),
        ("timm:no_such_net", "no_such_net"),
        ("timm:resnet18.no_such_tag", "no_such_tag"),
        (f"resnet18(stride={'9' * 5000})", "999..."),
        ("timm:hf-hub:someone/model", "hf-hub"),
        ("timm:local-dir:/etc", "local-dir"),
        ("resnet18(pool=max)", "max"),
        ("resnet18(stride=7)", "7"),
        ("resnet18(stride=-16)", "-16"),
        ("resnet18(merge=32)", "merge"),
        ("timm:vit_tiny_patch16_224(merge=16)", "merge"),
        ("resnet18(mirror=no)", "mirror"),
        ("resnet18(depth=3)", "depth"),
        ("resnet18(pool=gem", "resnet18"),
        ("xception(stride=16)", "stride"),
        ("vgg16_bn(pool=gem)", "wide layers"),
        ("timm:vit_tiny_patch16_224", "feature map"),
    ],
)
def test_unknown_architecture_is_one_clear_error(text, named):
    with torch.device("meta"), pytest.raises(ModelError) as caught:
        build_network(text)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_stride_halves_the_cells_of_the_map():
    shapes = {}
    for stride in (32, 16):
        with torch.device("meta"):
            network = build_network(f"timm:tf_efficientnet_lite0(stride={stride})").eval()
            shapes[stride] = tuple(network(torch.zeros(1, 1, 256, 256))[2].shape)
    assert shapes == {32: (1, 1, 8, 8), 16: (1, 1, 16, 16)}


def test_merging_gives_the_fine_map_at_the_cost_of_the_coarse_one():
    names = ("timm:tf_efficientnet_lite0(pool=gem)", LITE, MERGED)
    with torch.device("meta"):
        coarse, dilated, merged = (build_network(name).eval()(torch.zeros(1, 1, 256, 256))[2] for name in names)
    assert merged.shape == dilated.shape != coarse.shape
    costs = [measure(name, (256, 256)).gflops for name in names]
    assert costs[2] < 1.1 * costs[0] < costs[1]


def test_layers_behind_the_last_feature_map_are_left_out():
    with torch.device("meta"):
        network = build_network("timm:mobilenetv3_small_050").eval()
        outputs = network(torch.zeros(1, 1, 224, 224))
        gradients = torch.autograd.grad(sum(o.sum() for o in outputs), network.parameters(), allow_unused=True)
    assert all(gradient is not None for gradient in gradients)


@pytest.mark.parametrize(
    ("name", "size", "made"),
    [("inception_v3", 64, 299), ("vgg16_bn", 16, 224), ("timm:maxvit_pico_rw_256", 96, 256)],
)
def test_an_input_that_a_network_cannot_take_is_refused_by_its_size(name: str, size: int, made: int):
    with pytest.raises(ModelError, match=f"{name} cannot take an input of {size} pixels; it was made for {made}"):
        measure(name, (size, size))
    assert measure(name, (made, made)).gflops > 0
