"""Rules of normalisations and slopes, against their formulas."""

import torch
from torch import nn

from .loops import apply_rule, draw_cotangents


def apply_to_layer(layer, X):
    layer = layer.double().eval()
    cotangents = draw_cotangents(layer, X)
    names = [name for name, parameter in layer._parameters.items() if parameter is not None]
    return cotangents, apply_rule(layer, X, cotangents, names)[1]


def draw(*shape):
    return torch.randn(shape, dtype=torch.float64)


def test_the_bias_of_a_normalisation_sums_cotangents_over_positions():
    cotangents, gradients = apply_to_layer(nn.BatchNorm2d(3), draw(4, 3, 2, 5))
    torch.testing.assert_close(gradients["bias"], cotangents.sum(dim=(3, 4)))


def test_the_weight_of_a_batch_norm_uses_the_running_statistics():
    layer, X = nn.BatchNorm1d(3), draw(4, 3)
    layer.running_mean.fill_(2)
    layer.running_var.fill_(9)
    cotangents, gradients = apply_to_layer(layer, X)
    normalized = (X - 2) / (9 + layer.eps) ** 0.5
    torch.testing.assert_close(gradients["weight"], cotangents * normalized[:, None])


def test_the_weight_of_an_instance_norm_uses_the_statistics_of_the_sample():
    layer, X = nn.InstanceNorm1d(3, affine=True), draw(4, 3, 5)
    cotangents, gradients = apply_to_layer(layer, X)
    centred = X - X.mean(dim=2, keepdim=True)
    normalized = centred / (centred.square().mean(dim=2, keepdim=True) + layer.eps).sqrt()
    expected = (cotangents * normalized[:, None]).sum(dim=3)
    torch.testing.assert_close(gradients["weight"], expected)


def test_the_weight_of_a_tracked_instance_norm_uses_the_running_statistics():
    layer, X = nn.InstanceNorm1d(3, affine=True, track_running_stats=True), draw(4, 3, 5)
    layer.running_mean.fill_(2)
    layer.running_var.fill_(9)
    cotangents, gradients = apply_to_layer(layer, X)
    normalized = (X - 2) / (9 + layer.eps) ** 0.5
    expected = (cotangents * normalized[:, None]).sum(dim=3)
    torch.testing.assert_close(gradients["weight"], expected)


def test_the_weight_of_an_rms_norm_is_divided_by_the_root_mean_square():
    layer, X = nn.RMSNorm(5, eps=0.0), draw(4, 5)
    cotangents, gradients = apply_to_layer(layer, X)
    normalized = X / X.square().mean(dim=1, keepdim=True).sqrt()
    torch.testing.assert_close(gradients["weight"], cotangents * normalized[:, None])


def test_one_slope_for_all_channels_sums_over_all_elements():
    X = draw(4, 3, 5)
    cotangents, gradients = apply_to_layer(nn.PReLU(), X)
    expected = (cotangents * X.clamp(max=0)[:, None]).sum(dim=(2, 3))[..., None]
    torch.testing.assert_close(gradients["weight"], expected)


def test_one_slope_per_channel_sums_over_positions():
    X = draw(4, 3, 5)
    cotangents, gradients = apply_to_layer(nn.PReLU(3), X)
    expected = (cotangents * X.clamp(max=0)[:, None]).sum(dim=3)
    torch.testing.assert_close(gradients["weight"], expected)
