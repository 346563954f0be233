"""The novelty output is the Mahalanobis distance of the pooled features."""

import pytest
import torch
from calibrated import calibrated
from sklearn.decomposition import PCA

from mskscreen.errors import ModelError


def fitted(network, images, components):
    with torch.no_grad():
        features = network.pooled(network.features(images))
    return PCA(components, svd_solver="full").fit(features.double().numpy())


def attach(network, pca):
    parts = (torch.tensor(part) for part in (pca.mean_, pca.components_, pca.explained_variance_))
    network.attach_novelty(*parts, float(pca.noise_variance_))


def test_novelty_is_the_mahalanobis_distance_under_the_fitted_covariance():
    network = calibrated("resnet18")
    pca = fitted(network, torch.rand(40, 1, 64, 64), 10)
    attach(network, pca)
    images = torch.rand(40, 1, 64, 64)
    with torch.no_grad():
        novelty = network(images)[3]
        features = network.pooled(network.features(images))
    assert network.output_names == ("pred1", "pred2", "map", "novelty")
    centred = features.double().numpy() - pca.mean_
    expected = ((centred @ pca.get_precision()) * centred).sum(1) ** 0.5
    torch.testing.assert_close(novelty.double(), torch.tensor(expected), rtol=1e-3, atol=0)


def test_images_unlike_the_training_data_are_further_away():
    network = calibrated("resnet18")
    pca = fitted(network, torch.rand(40, 1, 64, 64), 10)
    attach(network, pca)
    with torch.no_grad():
        usual = network(torch.rand(8, 1, 64, 64))[3]
        strange = network(torch.linspace(0, 1, 64).expand(8, 1, 64, 64))[3]
    assert strange.min() > usual.max()


def test_statistics_that_do_not_fit_are_refused():
    network = calibrated("resnet18")
    with pytest.raises(ModelError, match="512"):
        network.attach_novelty(torch.zeros(100), torch.zeros(3, 100), torch.ones(3), 1.0)
    for variances in (torch.tensor(1.0), torch.ones(1, 1)):
        with pytest.raises(ModelError, match="variances"):
            network.attach_novelty(torch.zeros(512), torch.zeros(1, 512), variances, 1.0)
    with pytest.raises(ModelError, match="positive"):
        network.attach_novelty(torch.zeros(512), torch.zeros(3, 512), torch.zeros(3), 1.0)
