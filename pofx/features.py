"""What examples are compared in: principal components, random convolutions, a frozen classifier, a network in a file."""

import dataclasses
import functools
import hashlib
import json
import math
import pathlib
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from pofx import discovery
from pofx.core import Batch, Classes, Classifies, DataSpec, Encodes, UsageError
from pofx.data.dataset import Dataset

#: Components that features keep, and examples that a network sees at once.
COMPONENTS, PART = 64, 256
#: Rows and columns from which on features of an image at half its fineness still tell places apart.
ROOM = 24
#: Training examples that features are fitted to, and numbers of which they consist, at most.
FITTED, ELEMENTS = 10_000, 1 << 27
#: Moves of a classifier that is trained now, and numbers (pixels, of images) that it sees in all: some 20 seconds on two cores.
MOVES, NUMBERS = 4000, 200_000_000
#: Networks that come with pofx, NAME.safetensors with NAME.json, for the data set of that name.
FROZEN = pathlib.Path(__file__).parent / "data" / "frozen"
CHOICES = ("auto", "components", "convolutions", "frozen", "labels")


@dataclasses.dataclass(frozen=True)
class Features:
    """A fixed map from examples to vectors.

    name: what it is, in a few words that a number can be quoted with.
    """

    name: str
    transform: Callable[[Tensor], np.ndarray]

    def __call__(self, x: Tensor) -> Float[np.ndarray, "n features"]:
        """float64 features of examples in the space of `Batch.x`."""
        with torch.no_grad():
            return np.concatenate([self.transform(part) for part in x.split(PART)]).astype(np.float64)


def choose(request: str, dataset: Dataset) -> Features:
    """Features by name, for the data whose training part they may be fitted to.

    Arguments:
        request: auto: a frozen network made for these data, else convolutions for images, else components.
                 components: principal components of the training part. convolutions: a random network.
                 frozen: the network that comes with pofx. labels: a classifier trained on the labels of the training part.
                 A path: a TorchScript network from images in [0, 255] to features, such as Inception-v3.
    Raises `UsageError` where there is no such thing.
    """
    images = dataset.spec.kind == "images"
    if request == "auto":
        request = "frozen" if _frozen(dataset) else "convolutions" if images else "components"
    if request == "components":
        return components(dataset)
    if request == "convolutions":
        if not images:
            raise UsageError(f"features of convolutions are for images, not {dataset.spec.kind}: take components")
        return convolutions(dataset)
    if request == "frozen":
        path = _frozen(dataset)
        if path is None:
            made = ", ".join(sorted(path.stem for path in FROZEN.glob("*.safetensors")))
            raise UsageError(f"no frozen network was made for {dataset.source}: there are networks for {made}; take auto")
        return frozen(path)
    if request == "labels":
        return of_labels(dataset)
    if pathlib.Path(request).exists():
        return network(pathlib.Path(request), dataset.spec)
    raise UsageError(f"there are no features {request!r}: take {', '.join(CHOICES)}, or the path of a TorchScript file")


def training(dataset: Dataset, *, examples: int = FITTED) -> Batch:
    """Training examples in an order that no sorted file decides, as many as memory should hold."""
    split = dataset.train
    limit = max(2, min(examples, ELEMENTS // math.prod(dataset.spec.shape)))
    return split.batch(split.positions(shuffle=0)[:limit])


def _projection(rows: np.ndarray, *, standardise: bool) -> tuple[Callable[[np.ndarray], np.ndarray], int]:
    """Keeps the leading principal components, in a unit in which their variances are 1 on average."""
    from sklearn.decomposition import PCA

    scale = np.ones(rows.shape[1])
    if standardise:
        scale = rows.std(0)
        # Features that never change in training would weigh without bound.
        scale = np.where(scale > 1e-3, scale, 1.0)
    pca = PCA(min(COMPONENTS, rows.shape[1], len(rows) - 1), random_state=0).fit(rows / scale)
    unit = float(np.sqrt(pca.explained_variance_.mean())) or 1.0
    return lambda x: pca.transform(x / scale) / unit, pca.n_components_


def _flat(x: Tensor) -> np.ndarray:
    return x.flatten(1).cpu().numpy().astype(np.float64)


def components(dataset: Dataset) -> Features:
    """Leading principal components of the training part: of pixels as they are, of other values standardised.

    Pixels share a unit, and one that hardly ever changes must not weigh as much as the others.
    """
    project, kept = _projection(_flat(training(dataset).x), standardise=dataset.spec.kind != "images")
    return Features(f"{kept} principal components", lambda x: project(_flat(x)))


class _RandomConvolutions(nn.Module):
    """Three convolutions with fixed random weights, the last two strided; mean and spread of each channel over a grid of 2 x 2.

    Arguments:
        stride: of the first one.
    """

    def __init__(self, channels: int, stride: int = 1) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.layers = nn.ModuleList()
        for i, (inputs, outputs) in enumerate(((channels, 32), (32, 64), (64, 128))):
            layer = nn.Conv2d(inputs, outputs, 3, stride=stride if i == 0 else 2, padding=1)
            nn.init.normal_(layer.weight, std=math.sqrt(2 / (9 * inputs)), generator=generator)
            nn.init.normal_(layer.bias, std=0.1, generator=generator)
            self.layers.append(layer)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch features"]:
        x = 2 * x - 1
        for layer in self.layers:
            x = layer(x).relu()
        mean = nn.functional.adaptive_avg_pool2d(x, 2)
        # Above 0 for the sake of gradients, which a square root at 0 does not have.
        spread = (nn.functional.adaptive_avg_pool2d(x.square(), 2) - mean.square()).clamp(min=1e-12).sqrt()
        return torch.cat((mean, spread), 1).flatten(1)


def convolutions(dataset: Dataset) -> Features:
    """Random convolutional features, decorrelated on the training part.

    References:
        On Random Weights and Unsupervised Feature Learning (Saxe et al., 2011),
        https://dl.acm.org/doi/10.5555/3104482.3104619
    """
    network = _RandomConvolutions(dataset.spec.shape[0]).eval()

    def outputs(x: Tensor) -> np.ndarray:
        return network(x.cpu()).numpy().astype(np.float64)

    with torch.no_grad():
        project, kept = _projection(np.concatenate([outputs(part) for part in training(dataset).x.split(PART)]), standardise=True)
    return Features(f"{kept} components of random convolutions", lambda x: project(outputs(x)))


def quick(dataset: Dataset, *, examples: int) -> Features:
    """As `convolutions` for images and `components` for anything else, fitted to fewer examples by an eigendecomposition, and
    of images with a quarter of the work where they have room for it: a training that looks at its samples has no second to spare, nor
    one for the import of scikit-learn."""
    images = dataset.spec.kind == "images"
    network: nn.Module = nn.Flatten()
    if images:
        network = _RandomConvolutions(dataset.spec.shape[0], stride=2 if min(dataset.spec.shape[1:]) >= ROOM else 1).eval()

    def outputs(x: Tensor) -> Tensor:
        return network(x.cpu()).double()

    with torch.no_grad():
        rows = torch.cat([outputs(part) for part in training(dataset, examples=examples).x.split(PART)])
        spread = rows.std(0, correction=0)
        scale = torch.where(spread > 1e-3, spread, 1.0)
        mean = (rows / scale).mean(0)
        centred = rows / scale - mean
        # Of both products of the rows with themselves, which have the same eigenvalues, the smaller one.
        wide = centred.shape[1] > len(centred)
        variances, vectors = torch.linalg.eigh(centred @ centred.T if wide else centred.T @ centred)
        kept = variances > variances[-1] * 1e-9
        variances, vectors = variances[kept][-COMPONENTS:], vectors[:, kept][:, -COMPONENTS:]
        axes = centred.T @ vectors / variances.sqrt() if wide else vectors
        unit = (variances.mean() / max(1, len(rows) - 1)).sqrt()
    name = f"{axes.shape[1]} components" + (" of random convolutions" if images else "")
    return Features(name, lambda x: (((outputs(x) / scale - mean) @ axes) / unit).numpy())


def _frozen(dataset: Dataset) -> pathlib.Path | None:
    path = next((path for path in FROZEN.glob("*.safetensors") if path.stem == dataset.source), None)
    if path is None:
        return None
    made = _made(path)
    spec, theirs = made["spec"], made["data"]["options"]
    # Options may have changed size, channels or bits, or put examples that the network learned from into the validation part.
    divided = all(dataset.options.get(name, default) == theirs.get(name, default) for name, default in (("seed", 0), ("validation", None)))
    return path if divided and (tuple(spec["shape"]), spec["bits"]) == (dataset.spec.shape, dataset.spec.bits) else None


def _made(path: pathlib.Path) -> dict[str, Any]:
    """What is known of a frozen network: spec, config, accuracy, how it was made."""
    return json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))


@functools.cache
def instrument(path: pathlib.Path) -> Any:
    """A frozen classifier that comes with pofx. Raises `UsageError` where its file is damaged."""
    from safetensors.torch import load

    made, content = _made(path), path.read_bytes()
    if hashlib.sha256(content).hexdigest() != made["sha256"]:
        raise UsageError(f"{path} is damaged: install pofx again")
    cls = discovery.model("classifier")
    model = cls(DataSpec.from_json(made["spec"]), cls.Config.from_json(made["config"]))
    model.load_state_dict(load(content))
    return model.eval().requires_grad_(False)


def frozen(path: pathlib.Path) -> Features:
    """The last hidden layer of a classifier that comes with pofx, in a unit in which training data have variance 1 on average."""
    made, model = _made(path), cast(Encodes, instrument(path))
    name = f"{path.stem} classifier {made['sha256'][:8]} ({made['accuracy']:.1%} on test)"
    return Features(name, lambda x: model.encode(x.cpu()).numpy() / made["unit"])


def smooth(dataset: Dataset) -> tuple[str, Callable[[Tensor], Float[Tensor, "rows features"]]] | None:
    """A map with gradients from images to features in which training data have variance 1 on average, and its name: the frozen
    network that was made for these data, else random convolutions; None for data that are no images."""
    if dataset.spec.kind != "images":
        return None
    path = _frozen(dataset)
    if path is not None:
        model, scale = cast(Encodes, instrument(path)), _made(path)["unit"]
        return f"{path.stem} classifier", lambda x: model.encode(x.cpu()).to(x.device) / scale
    network = _RandomConvolutions(dataset.spec.shape[0]).eval().requires_grad_(False)
    with torch.no_grad():
        scale = unit(np.concatenate([network(part).numpy() for part in training(dataset, examples=1000).x.split(PART)]))
    return "random convolutions", lambda x: network(x.cpu()).to(x.device) / scale


def of_labels(dataset: Dataset) -> Features:
    """The last hidden layer of a classifier of the labels, in a unit in which training data have variance 1 on average.

    Raises `UsageError` for data without classes, and for a classifier without a hidden layer.
    """
    model, accuracy = classifier(dataset)
    if Encodes not in model.capabilities:
        raise UsageError("the classifier of these few examples has no hidden layer to take features from: take components")

    def outputs(x: Tensor) -> np.ndarray:
        return cast(Encodes, model).encode(x.cpu()).numpy()

    with torch.no_grad():
        scale = unit(np.concatenate([outputs(part) for part in training(dataset).x.split(PART)]))
    held = f" ({accuracy:.1%} on held-out data)" if math.isfinite(accuracy) else ""
    return Features(f"classifier of these labels{held}", lambda x: outputs(x) / scale)


def unit(rows: Float[np.ndarray, "n features"]) -> float:
    """The unit in which the variances of features are 1 on average."""
    return float(np.sqrt(rows.var(0, dtype=np.float64).mean())) or 1.0


def classifier(dataset: Dataset) -> tuple[Any, float]:
    """A classifier of the data's classes, on the CPU, and its held-out accuracy (NaN where nothing is held out).

    The frozen one that was made for these data, else one trained now on the labels of the training part: the same for
    equal data, and once in a process. Raises `UsageError` for data without classes.
    """
    if not isinstance(dataset.spec.label, Classes):
        raise UsageError(f"{dataset.source} has no classes to train a classifier on: name a column of them with --data.label")
    path = _frozen(dataset)
    if path is not None and tuple(_made(path)["spec"]["label"]["names"]) == dataset.spec.label.names:
        return instrument(path), _made(path)["accuracy"]
    # Runs of other seeds may divide the same data differently.
    some = dataset.train.batch(dataset.train.positions(shuffle=0)[:PART])
    key = (dataset.fingerprint, dataset.spec, hashlib.sha256(some.x.numpy().tobytes()).hexdigest())
    if key not in _trained:
        _trained[key] = _train(dataset)
    return _trained[key]


_trained: dict[tuple[str, DataSpec, str], tuple[Any, float]] = {}


def _train(dataset: Dataset) -> tuple[Any, float]:
    from pofx import api
    from pofx.settings import Settings
    from pofx.trainer import Trainer

    cls, spec = discovery.model("classifier"), dataset.spec
    chosen = api.recipe(cls, "classifier", spec, None)
    passes = math.ceil((chosen.budget.epochs or 0) * spec.size / chosen.batch_size)
    steps = min(chosen.budget.steps or passes, MOVES, NUMBERS // (chosen.batch_size * math.prod(spec.shape[-2:])))
    settings = api.complete(Settings(steps=max(1, steps)), chosen)
    # Nothing that is held out has a part in it, and what it takes is counted in moves, not in seconds.
    alone = dataclasses.replace(dataset, validation=None, test=None)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        trainer = Trainer(api.build(cls, spec, chosen.config, 0), alone, settings)
        trainer.train()
    model = trainer.average.cpu().eval().requires_grad_(False)
    # Not of the test part, which may be looked at only when it is measured.
    held = dataset.validation or dataset.test
    right, labelled = 0, 0
    if held is not None:
        for batch in held.batches(PART):
            assert batch.label is not None
            right += int((cast(Classifies, model).classify(batch.x).argmax(1) == batch.label).sum())
            labelled += int((batch.label >= 0).sum())
    return model, right / labelled if labelled else math.nan


def network(path: pathlib.Path, spec: DataSpec) -> Features:
    """A TorchScript network in a file of the user's, such as the Inception-v3 of published Fréchet distances."""
    if spec.kind != "images":
        raise UsageError(f"{path} sees images, and these data are {spec.kind}: take components")
    try:
        module = torch.jit.load(str(path), map_location="cpu").eval()
    except RuntimeError as error:
        raise UsageError(f"{path} is not a TorchScript file: save the network with torch.jit.save") from error

    def transform(x: Tensor) -> np.ndarray:
        shown = (x.cpu() * 255).round().clamp(0, 255)
        shown = shown.expand(-1, 3, -1, -1) if shown.shape[1] == 1 else shown
        try:
            found = module(shown)
        except RuntimeError as error:
            raise UsageError(f"{path} does not take images of {tuple(shown.shape[1:])}: {str(error).splitlines()[-1]}") from error
        return cast(Tensor, found).flatten(1).numpy()

    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    return Features(f"{path.name} ({digest})", transform)
