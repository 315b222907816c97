"""Phase E: images a second of both networks, against the published TensorFlow code; a step over the patterns in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from case import Case, scaling
from profiles import method_settings, profile_base

import fly64_nb.methods.networks.patch_networks as networks  # first: TensorFlow must come after PyTorch's triton
from fly64_nb.data.dataset import Dataset
from fly64_nb.datasets import make_datasets
from fly64_nb.methods.networks.graphs import adam, as_graph
from fly64_nb.methods.networks.layers import patches_to_pairs, support_size
from fly64_nb.methods.networks.learning import (
    Examples,
    TrainingSettings,
    batches,
    best_precision,
    make_network,
    mean_loss,
    validation_rows,
)
from fly64_nb.methods.pinn import PINN
from fly64_nb.methods.supervised import SUPERVISED

# the published code on one core: fixed numbers that this project was given, not measured here
PUBLISHED_TRAINING, PUBLISHED_INFERENCE = 34.0, 46.0
SHOWN = {"PINN": "physics-informed", "Supervised": "supervised"}


def network(data: Dataset, name: str, settings: TrainingSettings) -> networks.PatchNetwork:
    """A compiled network."""
    kinds = {
        "PINN": lambda: partial(networks.PhysicsNetwork, stages=settings.stages, dose=data.dose),
        "Supervised": lambda: networks.SupervisedNetwork,
    }
    made = make_network(kinds[name](), data, settings, {})
    made.compile(adam(settings.learning_rate), jit_compile=False)
    return made


def target(data: Dataset, name: str) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """What a network's answer is compared with: photons that it is not shown, or true patches."""
    support = support_size(data.known_probe)
    return {
        "PINN": lambda groups, dealt: dealt,
        "Supervised": lambda groups, dealt: patches_to_pairs(data.Y[groups], support),
    }[name]


def training(data: Dataset, name: str, settings: TrainingSettings, gridsize: int, images: int) -> Callable[[], Any]:
    """Steps of training as a study does them, photons dealt anew for each; the first call compiles."""
    grouped, members = replace(data, metadata={**data.metadata, "gridsize": gridsize}), gridsize**2
    made, size = network(data, name, settings), max(1, settings.batch // members)
    rows, _ = validation_rows(data.x, settings.validation_share, members)
    shown = batches(Examples(grouped, rows, target(data, name), settings), size)
    train, steps = as_graph(made.train_step), images // (size * members)
    return lambda: mean_loss(made, train, islice(shown, steps))


def step(data: Dataset, settings: TrainingSettings, count: int) -> Callable[[], Any]:
    """Four steps of the physics-informed network with so many patterns at once."""
    made = network(data, "PINN", settings)
    examples = Examples(data, np.arange(len(data)), target(data, "PINN"), settings)
    inputs, wanted = next(islice(batches(examples, count), 1))
    return lambda: [made.train_on_batch(inputs, wanted) for _ in range(4)]


def cases(full: bool, gpu: bool) -> list[Case]:
    profile = "full" if full else "quick"
    data = make_datasets(profile_base(profile), 1e4)["train"]
    precision, images = best_precision(), 1600 if full else 320
    settings = {m.name: method_settings(m, profile, precision=precision) for m in (PINN, SUPERVISED)}
    about = f"{images} of {data.window}², {settings['PINN'].filters} filters, {precision}"
    published = lambda rate, n: {
        "bound": n / rate,
        "peer_name": f"published TensorFlow code, {rate:g} images/s on one core (fixed number)",
        "items": n,
        "item": "images",
    }
    made = []
    for name, gridsize in (("PINN", 1), ("PINN", 2), ("Supervised", 1)):
        call = training(data, name, settings[name], gridsize, images)
        title = f"training, {SHOWN[name]}, gs{gridsize}"
        made.append(Case(title, call, about, **published(PUBLISHED_TRAINING, images), repeats=5))
    for name in SHOWN:
        trained = network(data, name, settings[name])
        call = lambda n=trained: n.predict_patches(data.diffraction[:images])
        made.append(Case(f"inference, {SHOWN[name]}", call, about, **published(PUBLISHED_INFERENCE, images), repeats=5))
    sizes = (8, 16, 32, 64, 128) if full else (8, 16, 32)
    prepare = lambda count: step(data, settings["PINN"], count)
    return [*made, scaling("scaling of a training step (E)", sizes, prepare, "patterns a batch")]
