"""What the runs of `central_claim.py` share: arms, images, masks, models and scores."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from condvae.data import DataConfig, PreparedImages, prepare_images
from condvae.evaluation.cases import build_cases, read_cases, write_cases
from condvae.ground.devices import place, resolve_device
from condvae.ground.files import open_atomic, sha256_of_file
from condvae.ground.images import to_nchw
from condvae.ground.pixels import load_pixels
from condvae.ipa import ConditionalModel, PartialEncoder, heads_for, initialise
from condvae.masks.sampling import MaskConfig, draw_masks
from condvae.models.folder import load_vae, read_card
from condvae.posterior.image_posterior import ImagePosterior
from condvae.scores.extractors import load_extractor
from condvae.scores.feature_network import save_feature_network, train_feature_network
from condvae.scores.frechet import frechet_distance
from condvae.tasks import Inpainting
from condvae.tasks.subject import Subject
from condvae.training import ObjectiveConfig, TrainingConfig
from condvae.training.initial import new_vae
from condvae.training.objectives import ConditionalObjective, objective_class
from condvae.training.randomness import image_noise

__all__ = ["ARMS", "BATCH", "Arm", "Bench", "Setting"]

PUBLISHED = "free_form_published"
BATCH = 32
EVALUATION_SEED = 0  # of masks, noise, features and completions: the same for all runs


@dataclass(frozen=True)
class Arm:
    """One way to learn c(z | y).

    Attributes:
        title: For tables.
        rates: Learning rates to try.
        initialisation: Of the partial encoder.
        stratified: Whether training masks show every fifth of the observed share equally often.
        flows: See `PartialEncoder`.
        objective: What is minimised.
    """

    title: str
    rates: tuple[float, ...]
    initialisation: str = "random"
    stratified: bool = False
    flows: str = ""
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)


RATES = (1e-3, 2e-3, 4e-3)
ARMS = {
    "published": Arm("IPA, random start, rate 2e-4", (2e-4,)),
    "tuned_random": Arm("IPA, random start, tuned rate", RATES),
    "copy": Arm("IPA, copied start", RATES, "copy"),
    "stratified": Arm("IPA, stratified masks", RATES, stratified=True),
    "ours": Arm("copied start, stratified masks", RATES, "copy", True),
    "ours_flows": Arm("ours, flows at 1x1 and 4x4", RATES, "copy", True, "1:spline,4:affine"),
    "ours_4": Arm(
        "ours, 4 observations a pass",
        RATES,
        "copy",
        True,
        objective=ObjectiveConfig(observations_per_image=4),
    ),
    "residual": Arm("residual start, stratified masks", RATES, "residual", True),
    "ipa_r": Arm(
        "IPA-R, copied start", (2e-4, 6e-4, 2e-3), "copy", objective=ObjectiveConfig("ipa_r")
    ),
    "joint": Arm("from scratch", RATES, objective=ObjectiveConfig("joint")),
}


@dataclass(frozen=True)
class Setting:
    """What all runs share.

    Attributes:
        folder: Everything is written here.
        data: Images.
        vae: Folder of the frozen VAE.
        pool: Training masks, drawn once.
        cases_per_bin: A fifth of the test cases of the Frechet distance.
        device: Where to compute.
    """

    folder: Path
    data: DataConfig
    vae: Path
    pool: int
    cases_per_bin: int
    device: str


class Bench:
    """Images, masks, cases and features: made when first opened, taken from the folder later."""

    def __init__(self, setting: Setting) -> None:
        torch.set_num_threads(1)
        self.setting = setting
        self.device = resolve_device(setting.device)
        self.card = read_card(setting.vae, "vae")
        self.images: PreparedImages = prepare_images(setting.data, setting.folder / "images")
        self.size = setting.data.image_size
        self.validation = self.images.indices("validation")
        count = len(self.validation)
        self.even = self.masks(True, count, EVALUATION_SEED + 1)
        self.as_published = self.masks(False, count, EVALUATION_SEED + 2)
        self._open_cases()
        self.identity = {
            "data": self.images.fingerprint,
            "vae": self.card["sha256"],
            "batch": BATCH,
            "pool": setting.pool,
            "device": self.device.type,
        }

    def masks(self, stratified: bool, count: int, seed: int) -> NDArray[np.bool_]:
        """Free-form masks of the published kind, bool (count,H,W); slow to draw, so they are kept."""
        config = MaskConfig({PUBLISHED: 1.0}, stratified)
        name = f"{'even' if stratified else 'published'}-{self.size}-{count}-{seed}.npy"
        path = self.setting.folder / "masks" / name
        if not path.exists():
            print(f"drawing {count} masks", flush=True)
            with open_atomic(path) as file:
                np.save(file, draw_masks(config, self.size, count, seed))
        masks: NDArray[np.bool_] = np.load(path)
        return masks

    def _open_cases(self) -> None:
        """Test cases, their truths, and a network for features."""
        images, folder = self.images, self.setting.folder
        key, per_bin = images.fingerprint[:12], self.setting.cases_per_bin
        manifest = folder / f"cases-{key}-{per_bin}.jsonl"
        if not manifest.exists():
            rows = images.indices("test")
            cases = build_cases(
                rows.tolist(),
                [images.records[row].sha256 for row in rows],
                self.size,
                MaskConfig({PUBLISHED: 1.0}),
                per_bin=per_bin,
                seed=EVALUATION_SEED,
                prefix="quick",
            )
            write_cases(manifest, cases)
        self.manifest = sha256_of_file(manifest)
        cases = read_cases(manifest)
        self.case_ids = tuple(f"{case.case_id}/{case.seed}" for case in cases)
        self.case_masks = torch.from_numpy(np.stack([case.mask for case in cases])).unsqueeze(1)
        chosen = np.array([case.image_id for case in cases])
        self.truths = to_nchw(torch.from_numpy(images.pixels[chosen]))
        features = folder / f"features-{key}"
        if not (features / "card.json").exists():
            print("training the feature network", flush=True)
            train = images.indices("train")
            labels = None if images.labels is None else torch.from_numpy(images.labels[train])
            pixels = to_nchw(torch.from_numpy(images.pixels[train]))
            network, card = train_feature_network(
                pixels, labels, name=images.config.name, features=16, seed=EVALUATION_SEED
            )
            save_feature_network(features, network, card)
        self.extractor = load_extractor("feature_network", features)
        self.true_features = self.extractor.features(self.truths)

    def new_model(self, arm: Arm, seed: int) -> ConditionalModel:
        """A model before its first step."""
        vae, _ = load_vae(self.setting.vae, self.device)
        if arm.objective.name == "joint":
            mean, std = self.images.training_moments()
            vae = place(new_vae(vae.architecture, mean, std, seed, vae.contract.bits), self.device)
        channels = Inpainting().condition_channels(vae.contract)
        partial = PartialEncoder(vae, channels, heads_for(arm.initialisation), arm.flows)
        initialise(partial, vae, arm.initialisation, seed)
        return ConditionalModel(vae, place(partial, self.device))

    def objective(
        self, arm: Arm, model: ConditionalModel, config: TrainingConfig, seed: int
    ) -> ConditionalObjective:
        """What trains `model`."""
        return objective_class(arm.objective)(
            model.vae,
            model.latents,
            Inpainting(),
            self.images.pixels,
            self.images.indices("train"),
            self.validation,
            self.masks(arm.stratified, self.setting.pool, EVALUATION_SEED),
            self.even,
            config,
            seed,
            None,
            arm.objective,
        )

    @torch.no_grad()
    def score(
        self, model: ConditionalModel, masks: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """KL(q || c) of every group (N,L) in nats, and the bound (N) in nats per dimension."""
        vae, rates, bounds = model.vae, [], []
        for start in range(0, len(self.validation), 4 * BATCH):
            part = slice(start, start + 4 * BATCH)
            rows = self.validation[part]
            pixels = load_pixels(self.images.pixels, rows, self.device)
            mask = torch.from_numpy(masks[part]).unsqueeze(1).to(self.device)
            y = Inpainting().observe(Subject(pixels, mask), vae.contract).to(self.device, vae.dtype)
            noise = image_noise(EVALUATION_SEED, rows, self.device, vae.dtype)
            rate, output = model.rate_nats(pixels, y.condition, noise)
            nats = rate.sum(dim=1) + vae.pixel_nats(output, pixels).sum(dim=(1, 2))
            rates.append(rate.double().cpu())
            bounds.append(nats.double().cpu() / vae.contract.dimensions)
        return torch.cat(rates).numpy(), torch.cat(bounds).numpy()

    def frechet(self, model: ConditionalModel) -> float:
        """Distance of one completion of each test case to the truths."""
        posterior = ImagePosterior(model, Inpainting())
        y = posterior.observe(self.truths, self.case_masks, self.case_ids)
        drawn = posterior.sample(y, 1, seed=EVALUATION_SEED)[0]
        return frechet_distance(
            self.extractor.features(drawn), self.true_features, resamples=0
        ).value
