from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from timm.models.densenet import DenseNet
from torch import nn

from cutline.errors import RecipeError, WeightsError
from cutline.image import load_image
from cutline.training import encoders
from cutline.training.encoders import Backbone, Encoder, fold_batch_norm, load_encoder


def net(name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    return timm.create_model(name, pretrained=False, **options)


def unsettled(module: nn.Module) -> nn.Module:
    """BatchNorm statistics as after training, so that folding them the wrong way shows."""
    for each in module.modules():
        if isinstance(each, nn.BatchNorm2d):
            for values in (each.running_mean, each.running_var, each.weight, each.bias):
                nn.init.uniform_(values, 0.5, 1.5)
    return module.eval()


def blank(name: str, **options: Any) -> Any:
    """A net whose weights are all zero: only its shapes are of interest, and it is soon there."""
    with torch.device("meta"):
        found = timm.create_model(name, pretrained=False, **options)
    found.to_empty(device="cpu")
    for values in (*found.parameters(), *found.buffers()):
        values.detach().zero_()
    return found


@pytest.mark.parametrize(
    ("name", "pooled", "side", "shape"),
    [
        ("inception_v3", False, None, (64, 2048)),
        ("vgg16", False, 64, (4, 512)),
        ("resnet50", False, 64, (4, 2048)),
        ("densenet201", True, 64, (1, 1920)),
        ("tf_efficientnet_lite2", False, 64, (4, 1280)),
        ("vit_base_patch16_clip_224", False, 32, (4, 768)),
        ("vit_tiny_patch16_224", True, 32, (1, 192)),
        ("vit_small_patch14_reg4_dinov2", False, 28, (4, 384)),
        ("mambaout_femto", False, 64, (4, 288)),
    ],
)
def test_features_of_many_families(
    name: str, pooled: bool, side: int | None, shape: tuple[int, int]
) -> None:
    fixed = side and timm.get_pretrained_cfg(name).fixed_input_size
    whole = blank(name, **({"img_size": side} if fixed else {}))
    encoder = Encoder(whole, name, pooled=pooled, side_px=side)
    rows, columns = encoder.grid
    assert (rows * columns, encoder.width) == shape
    assert rows == columns == (1 if pooled else shape[0] ** 0.5)
    with torch.inference_mode():
        pixels = torch.zeros(2, 3, encoder.transform.side_px, encoder.transform.side_px)
        assert encoder(pixels).shape == (2, *shape)


def test_regions_come_row_by_row_without_class_tokens() -> None:
    for name in ("test_vit", "test_resnet"):
        encoder = Encoder(net(name), name)
        side, (rows, columns) = encoder.transform.side_px, encoder.grid
        with torch.inference_mode():
            plain = torch.zeros(1, 3, side, side)
            marked = plain.clone()
            marked[:, :, : side // rows, -(side // columns) :] = 3.0
            changed = (encoder(marked) - encoder(plain)).norm(dim=-1)[0]
        assert int(changed.argmax()) == columns - 1, name


def test_a_backbone_sees_values_as_it_was_trained_to() -> None:
    encoder = Encoder(net("test_resnet"), "test_resnet")
    seen: list[torch.Tensor] = []
    real = encoder.net.forward_features
    encoder.net.forward_features = lambda x: seen.append(x) or real(x)
    values = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    side = encoder.transform.side_px
    pixels = encoder.transform(load_image(values))
    encoder(torch.from_numpy(pixels)[None])
    config = timm.data.resolve_model_data_config(net("test_resnet"))
    squashed = load_image(values).resize((side, side), 3)
    unit = torch.from_numpy(np.array(squashed)).permute(2, 0, 1) / 255
    mean, deviation = (torch.tensor(config[key])[:, None, None] for key in ("mean", "std"))
    torch.testing.assert_close(seen[0][0], (unit - mean) / deviation, atol=1e-4, rtol=1e-4)


NETS = {
    "ResNet": lambda: timm.create_model("test_resnet", pretrained=False),
    "EfficientNet": lambda: timm.create_model("test_efficientnet", pretrained=False),
    "DenseNet": lambda: DenseNet(growth_rate=8, block_config=(2, 2)),
}


@pytest.mark.parametrize("name", NETS)
def test_folding_batch_norm_changes_nothing(name: str) -> None:
    torch.manual_seed(0)
    whole = unsettled(NETS[name]())
    folded = fold_batch_norm(copy.deepcopy(whole))
    norms = [sum(isinstance(m, nn.BatchNorm2d) for m in each.modules()) for each in (whole, folded)]
    assert norms[1] < 0.6 * norms[0]
    with torch.inference_mode():
        pixels = torch.rand(2, 3, 64, 64)
        torch.testing.assert_close(folded(pixels), whole(pixels), atol=1e-3, rtol=1e-3)


def test_a_net_that_cannot_be_folded_so_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrongly(module: nn.Module) -> nn.Module:
        nn.init.zeros_(next(module.parameters()))
        return module

    monkeypatch.setattr(encoders, "fold_batch_norm", wrongly)
    whole = unsettled(net("test_resnet"))
    encoder = Encoder(whole, "test_resnet")
    assert encoder.net is whole


def test_weights_from_a_file(tmp_path: Path) -> None:
    trained = unsettled(net("test_resnet"))
    file = tmp_path / "weights.pth"
    torch.save(trained.state_dict(), file)
    encoder = load_encoder("test_resnet", weights=file)
    expected = Encoder(copy.deepcopy(trained), "test_resnet")
    assert encoder.checksum == expected.checksum
    with torch.inference_mode():
        pixels = torch.rand(1, 3, encoder.transform.side_px, encoder.transform.side_px)
        torch.testing.assert_close(encoder(pixels), expected(pixels))
    assert Encoder(unsettled(net("test_resnet", num_classes=7)), "x").checksum != encoder.checksum


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save(net("test_vit").state_dict(), file)
    with pytest.raises(WeightsError, match=r"weights\.pth, which does not fit test_resnet"):
        load_encoder("test_resnet", weights=file)
    file.write_text("no weights")
    with pytest.raises(WeightsError, match="does not fit"):
        load_encoder("test_resnet", weights=file)
    with pytest.raises(WeightsError, match=r"got no file .*absent\.pth"):
        load_encoder("test_resnet", weights=tmp_path / "absent.pth")


def test_without_a_hub_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr(encoders.socket, "create_connection", unreachable)
    monkeypatch.setattr(encoders, "snapshot_download", unreachable)
    monkeypatch.setattr(encoders.urllib.request, "getproxies", dict)
    with pytest.raises(WeightsError, match=r"https://huggingface.co/timm/test_resnet.* --weights"):
        load_encoder("test_resnet")


def test_an_unknown_backbone_is_refused_with_its_neighbours() -> None:
    with pytest.raises(RecipeError, match=r"got backbone 'resnet5'; expected .*resnet50"):
        load_encoder("resnet5")


def test_efficientnet_lite_is_the_backbone_that_training_cuts_in_two() -> None:
    whole, cut = load_encoder("efficientnet_lite0"), Backbone("efficientnet_lite0")
    assert (whole.transform.side_px, whole.transform.via_px) == (224, 224)
    assert whole.grid == (7, 7)
    with torch.inference_mode():
        pixels = torch.rand(1, 3, 224, 224)
        grid, _ = cut(pixels)
        expected = grid.flatten(2).transpose(1, 2)
        torch.testing.assert_close(whole(pixels), expected, atol=1e-3, rtol=1e-3)
