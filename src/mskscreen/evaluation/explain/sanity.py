"""Whether maps depend on what the model has learned, and on nothing that should not matter.

Adebayo et al., arXiv:1810.03292: a map that stays the same when the weights are lost, or were learned from
shuffled labels, shows the image and not the model. Similarity is the rank correlation of the absolute maps.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mskscreen.errors import DataError, DecodeError, ModelError
from mskscreen.evaluation.explain.explainer import Explainer
from mskscreen.inference.backends import OpenVino
from mskscreen.inference.catalogue import read_contract
from mskscreen.inference.engines import open_engine
from mskscreen.inference.screener import Screener
from mskscreen.inference.tail import Tail, read_graph
from mskscreen.pixels import Preprocessing, Radiograph, read_radiograph
from mskscreen.saliency.cam import hirescam
from mskscreen.saliency.measures import rank_correlation, resample
from mskscreen.saliency.target import ABNORMAL, require_learned

_LAYERS = ("Convolution", "GroupConvolution", "MatMul")
_METHOD = "hirescam"
_QUALITY = 90


def sanity(screener: Screener, files: Sequence[Path], shuffled: Path | None = None) -> dict[str, Any]:
    """All checks on some images: `cascade`, `repeatability` and, with a model for it, `label randomisation`.

    `shuffled` is a model of the same architecture that was trained on shuffled labels. `unreadable` says which
    images were left out and why. Raises ModelError where the model did not learn abnormality or `shuffled` is of
    another architecture or preprocessing, and DataError where no image can be read.
    """
    path = screener.engine.path
    require_learned(screener.engine.contract, ABNORMAL)
    if shuffled:
        require_same_network(path, shuffled)
    radiographs, unreadable = [], []
    for number, file in enumerate(files, 1):
        try:
            radiographs.append(read_radiograph(file, screener.limits))
        except DecodeError as error:
            unreadable.append(f"image {number} of {len(files)}, {error}")
    if not radiographs:
        raise DataError(f"no image could be read; {unreadable[0]}")
    inputs = [screener.preprocessing(radiograph) for radiograph in radiographs]
    return {
        "cascade": cascade(path, inputs),
        "label randomisation": label_randomisation(path, shuffled, inputs) if shuffled else None,
        "repeatability": repeatability(path, radiographs),
        "unreadable": unreadable,
    }


def cascade(path: Path, images: Sequence[np.ndarray], stages: int = 5, seed: int = 0) -> list[dict[str, float]]:
    """Mean similarity of HiResCAM while the weights are shuffled from the scores down to the image.

    `images` are model inputs (1, H, W); one line a stage with the `share` of the layers that are shuffled, the
    first with none, and the share of maps that are `constant`: they are similar to nothing, and many of them would
    say that the model has died and not that its maps depend on its weights.

    Each layer's weights are permuted and given random signs, so that their sizes stay. Permuted alone they would
    keep the mean that they have learned; behind a ReLU all inputs are positive, so that a mean below zero silences
    every unit of the layer and with it the gradient. At the start of training, too, they lay evenly about zero.
    """
    layers = len(_layers(read_graph(path)))
    counts = [0, *np.unique(np.geomspace(min(2, layers), layers, stages).round().astype(int)).tolist()]
    whole = Tail.read(path)
    original = [_map(whole, image) for image in images]
    found = []
    for count in counts:
        tail = Tail(_shuffled(path, count, seed), path)
        maps = [_map(tail, image) for image in images]
        similar = [_similarity(after, before) for after, before in zip(maps, original, strict=True)]
        constant = [float(np.ptp(values) == 0) for values in maps]
        line = {"similarity": float(np.mean(similar)), "constant": float(np.mean(constant))}
        found.append({"share": count / layers} | line)
    return found


def require_same_network(path: Path, shuffled: Path) -> None:
    """Raise ModelError where a model and one trained on shuffled labels differ in more than their weights."""
    mine, theirs = read_contract(path), read_contract(shuffled)
    for name in ("architecture", "preprocessing"):
        if getattr(mine, name) != getattr(theirs, name):
            raise ModelError(
                f"{shuffled}: its {name} is '{getattr(theirs, name)}' and that of model '{mine.name}' is "
                f"'{getattr(mine, name)}'; train the same network on shuffled labels"
            )


def label_randomisation(path: Path, shuffled: Path, images: Sequence[np.ndarray]) -> float:
    """Mean similarity of the HiResCAM of a model with that of the same network trained on shuffled labels."""
    one, other = Tail.read(path), Tail.read(shuffled)
    return float(np.mean([_similarity(_map(one, image), _map(other, image)) for image in images]))


def repeatability(path: Path, radiographs: Sequence[Radiograph]) -> dict[str, float]:
    """Mean similarity of HiResCAM with that of the same image as JPEG, moved by a pixel, on another engine, and in
    bfloat16 where the processor has it (whether or not the model is approved for it).
    """
    base = Screener.load(path, engine="openvino", precision="f32")
    variants = {"ONNX Runtime": Screener.load(path, engine="onnxruntime", precision="f32")}
    if "bf16" in OpenVino.precisions():
        variants["bfloat16"] = Screener(open_engine(path, "openvino", "bf16", unapproved=True))
    found: dict[str, list[float]] = {}
    for radiograph in radiographs:
        image = base.preprocessing(radiograph)
        before = Explainer(base.engine)(image, _METHOD, ABNORMAL).values
        for name, changed in _changed(radiograph, base.preprocessing):
            again = Explainer(base.engine)(base.preprocessing(changed), _METHOD, ABNORMAL).values
            found.setdefault(name, []).append(_similarity(again, before))
        for name, screener in variants.items():
            again = Explainer(screener.engine)(image, _METHOD, ABNORMAL).values
            found.setdefault(name, []).append(_similarity(again, before))
    return {name: float(np.mean(values)) for name, values in found.items()}


def _changed(radiograph: Radiograph, preprocessing: Preprocessing) -> Iterator[tuple[str, Radiograph]]:
    # Of 8 bits it is taken as ready for display, so it must hold what is displayed.
    stored = np.round(preprocessing.shown(radiograph).pixels * 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(stored).save(buffer, "JPEG", quality=_QUALITY)
    yield "JPEG of quality 90", read_radiograph(buffer.getvalue())
    for axis, name in ((0, "moved down by a pixel"), (1, "moved right by a pixel")):
        yield name, read_radiograph(np.roll(stored, 1, axis))


def _similarity(one: np.ndarray, other: np.ndarray) -> float:
    """0 where one of them is constant: nothing is left of the other in it."""
    return float(np.nan_to_num(rank_correlation(np.abs(resample(one, *other.shape)), np.abs(other))))


def _map(tail: Tail, image: np.ndarray) -> np.ndarray:
    features = tail.features(image)
    direction = ABNORMAL.direction(tail.scores(features, ABNORMAL.output))
    return hirescam(features, tail.gradient(features, ABNORMAL.output, direction))


def _layers(graph: Any) -> list[Any]:
    """Layers with weights of their own on the way from the image to the scores, the last ones first."""
    heads = {"pred1", "pred2"}
    wanted = {node.get_name() for node in _above([graph.output(name).get_node() for name in heads])}
    return [
        node
        for node in reversed(graph.get_ordered_ops())
        if node.get_name() in wanted
        and node.get_type_name() in _LAYERS
        and node.input_value(1).get_node().get_type_name() == "Constant"
    ]


def _above(nodes: list[Any]) -> list[Any]:
    """All nodes that the given ones depend on."""
    seen: dict[str, Any] = {}
    while nodes:
        node = nodes.pop()
        if node.get_name() not in seen:
            seen[node.get_name()] = node
            nodes += [node.input_value(k).get_node() for k in range(node.get_input_size())]
    return list(seen.values())


def _shuffled(path: Path, count: int, seed: int) -> Any:
    """The graph of a model with the weights of its last `count` layers permuted and their signs drawn."""
    from openvino import opset13

    graph = read_graph(path)
    rng = np.random.default_rng(seed)
    for node in _layers(graph)[:count]:
        weights = np.array(node.input_value(1).get_node().get_data())
        shuffled = rng.permutation(weights.ravel()) * rng.choice(np.array([-1, 1], weights.dtype), weights.size)
        node.input(1).replace_source_output(opset13.constant(shuffled.reshape(weights.shape)).output(0))
    return graph
